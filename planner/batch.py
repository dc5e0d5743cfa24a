"""Problems that are planned together.

Shape letters: P problems, K candidates, B = P * K batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .conditions import Conditions, stack
from .guides import Guide
from .guides.marks import Region
from .normalizer import Normalizer
from .options import Sampling
from .plan import Plan
from .sampling import Step
from .spec import TrajectorySpec
from .steering import Wish


@dataclass(frozen=True)
class Batch:
    """P problems: one conditions, generator and, at a replan, plan before (with the steps since it began) for each."""

    conditions: Sequence[Conditions]
    generators: Sequence[torch.Generator]
    sampling: Sampling
    wish: Wish | None = None
    previous: Sequence[tuple[Plan, float]] | None = None

    def pins(self, spec: TrajectorySpec, horizon: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mask and values (B, H, D) in environment units: what is known, and what is asked of free ends.

        Candidates whose end is free are asked for ends in the guide's regions, or else for durations, each its own.

        Raises:
            ValueError: conditions of another shape.
        """
        mask, values = stack(self.conditions)
        if mask.shape[1:] != (horizon, spec.width):
            raise ValueError(
                f"conditions over {tuple(mask.shape[1:])} do not fit this planner's "
                f"{(horizon, spec.width)} (tokens, columns); make them with planner.problem(...)"
            )
        count, arrived = self.sampling.candidates, spec.arrived
        mask, values = (t.unsqueeze(1).repeat(1, count, 1, 1) for t in (mask, values))  # (P, K, H, D)
        if self._regions:
            asked, ends = self._ends(spec, mask, values)
            mask, values = mask | asked, torch.where(asked, ends, values)
        if self.sampling.spread and spec.position and (free := ~mask[..., arrived].any(-1)).any():
            ends = torch.linspace(1, horizon - 1, count).round() if count > 1 else torch.tensor([horizon - 1])
            reached = torch.where(torch.arange(horizon) >= ends[:, None], 1.0, -1.0)  # (K, H)
            mask[..., arrived] |= free[..., None]
            values[..., arrived] = torch.where(free[..., None], reached, values[..., arrived])
        return mask.flatten(0, 1).to(device), values.flatten(0, 1).to(device)

    @property
    def _regions(self) -> tuple[Region, ...]:
        """Where free ends may be; legs of a plan of several have none: they lead there together."""
        return () if self.wish is None or self.sampling.legs > 1 else self.wish.guide.regions

    def _ends(self, spec: TrajectorySpec, mask: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Mask and values (P, K, H, D) of ends in the regions wished for, which candidates of free ends share."""
        regions, count = self._regions, mask.shape[1]
        asked, ends = torch.zeros_like(mask), torch.zeros_like(values)
        start = values[:, 0, 0, spec.position_columns]
        for number, region in enumerate(regions):
            own = slice(number, count, len(regions))
            points = region.ends(start, -(-count // len(regions)))[:, : len(range(count)[own])]
            columns = spec.position_columns[: points.shape[-1]]
            asked[:, own, -1, spec.arrived], ends[:, own, -1, spec.arrived] = True, 1.0
            asked[:, own, -1][..., columns], ends[:, own, -1][..., columns] = True, points
        taken = mask[..., spec.arrived].any(-1) | mask[:, :, -1, spec.position_columns].any(-1)  # (P, K)
        return asked & ~taken[..., None, None], ends

    def question(self, spec: TrajectorySpec, horizon: int) -> Question:
        """Everything that planning needs to know, as tensors on the CPU."""
        pinned, values = self.pins(spec, horizon, torch.device("cpu"))
        rivals = self._rivals(horizon) if self.previous is not None and self.sampling.incumbent else None
        passed = None if self.wish is None else self.wish.remembered
        return Question(pinned, values, *stack(self.conditions), self._warm_start(horizon), rivals, passed)

    def _warm_start(self, horizon: int) -> Tensor | None:
        """What is left of the previous plans, (B, H, D) in environment units; None where all begins from noise."""
        if self.previous is None or self.sampling.warm_steps >= self.sampling.steps:
            return None
        left = [torch.from_numpy(plan.remainder(steps)[:, :horizon]) for plan, steps in self.previous]
        return torch.cat([rest[torch.arange(self.sampling.candidates) % len(rest)] for rest in left])

    def _rivals(self, horizon: int) -> Tensor:
        """What is left of each problem's best candidate, (P, H, D) in environment units."""
        return torch.stack(
            [torch.from_numpy(plan.remainder(steps)[0, :horizon]) for plan, steps in self.previous or ()]
        )


Shape = tuple[int, Sampling, tuple[Guide, float] | None, tuple[str, ...]]


def shape_of(batch: Batch, question: Question) -> Shape:
    """What two batches must have in common for the same work to do for both."""
    wish = None if batch.wish is None else (batch.wish.guide, batch.wish.tempo)
    return len(batch.conditions), batch.sampling, wish, tuple(question.tensors())


@dataclass(frozen=True)
class Question:
    """A batch as tensors, in environment units; P problems of K candidates each, B = P * K.

    Attributes:
        pinned, values: (B, H, D) what is known, and what is asked of free ends.
        mask, given: (P, H, D) what is known, as it was given.
        warm: (B, H, D) trajectories to begin from; None to begin from noise.
        rivals: (P, H, D) what is left of the plans before, which competes; None where nothing does.
        passed: (P, n, positions) passed before the plans begin; None where no guide asks.
    """

    pinned: Tensor
    values: Tensor
    mask: Tensor
    given: Tensor
    warm: Tensor | None = None
    rivals: Tensor | None = None
    passed: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name: `Question(**tensors)` is the inverse."""
        return {f.name: t for f in fields(self) if (t := getattr(self, f.name)) is not None}

    def to(self, device: torch.device) -> Question:
        """On a device."""
        return Question(**{name: t.to(device) for name, t in self.tensors().items()})

    def exact(self, count: int, pinned: Tensor, trajectories: Tensor) -> Tensor:
        """Trajectories, `count` of each problem, in environment units, with what is pinned put in as it was given."""
        mask, given = (t.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1) for t in (self.mask, self.given))
        return torch.where(mask & pinned, given, trajectories)

    def with_rivals(self, end: Step, normalizer: Normalizer) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates, pins and their values, normalised, and behind each problem's K what is left of its last plan."""
        assert self.rivals is not None
        rivals = (normalizer.normalize(self.rivals), self.mask, normalizer.normalize(self.given))
        made = [
            torch.cat([own.reshape(len(rival), -1, *own.shape[1:]), rival.unsqueeze(1)], dim=1).flatten(0, 1)
            for own, rival in zip((end.noisy, end.pinned, end.values), rivals, strict=True)
        ]
        return made[0], made[1], made[2]
