"""Guides at work: from a wish in environment units to what the denoising loop climbs.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .constants import constant
from .guides import Guide, Sight, SpeedLimit
from .normalizer import Normalizer
from .options import Sampling
from .plan import Array, Plan
from .sampling import Score, Steering
from .spec import TrajectorySpec

REMEMBERED = 64  # points of the past
FAR = 1e6  # position units: where nothing was passed


@dataclass(frozen=True)
class Wish:
    """A guide, for plans of one planner.

    Attributes:
        guide: what to prefer.
        spec: the columns.
        normalizer: environment units to network units.
        tempo: plan time that passes per time executed (see `execution.Executor`): guides see velocities and durations
            as they will be executed.
        past: (n, O) observations of each problem before its plan begins; () for none.
        passed: the same as positions (problems, n, P) on the planner's device, where they are at hand already.
    """

    guide: Guide
    spec: TrajectorySpec
    normalizer: Normalizer
    tempo: float = 1.0
    past: Sequence[Array] = ()
    passed: Tensor | None = None

    @property
    def speed_limit(self) -> float | None:
        """The least speed limit that is asked for, as executed."""
        return min((m.max for m in self.guide.marks if isinstance(m, SpeedLimit)), default=None)

    def sight(
        self, clean: Tensor, noisy: Tensor | None = None, t: Tensor | None = None, pinned: Tensor | None = None
    ) -> Sight:
        """What the guide sees of normalised trajectories (B, H, D), of which `clean` is the clean version."""
        path, past = self.normalizer.denormalize(clean), self._passed(clean)
        if self.tempo == 1:
            return Sight(self.spec, path, noisy, t, pinned, past)
        rates = self.spec.velocity_columns
        pace = constant([self.tempo if c in rates else 1.0 for c in range(self.spec.width)], clean)
        spec = replace(self.spec, dt_seconds=self.spec.dt_seconds / self.tempo)
        return Sight(spec, path * pace, noisy, t, pinned, past)

    def _passed(self, clean: Tensor) -> Tensor | None:
        """Positions (B, n, P) of the past, for a batch of trajectories."""
        passed = self.passed if self.passed is not None else self.remembered
        if passed is None:
            return None
        passed = passed.to(clean)
        each = len(clean) // len(passed)
        return passed.unsqueeze(1).expand(-1, each, -1, -1).flatten(0, 1)

    @cached_property
    def remembered(self) -> Tensor | None:
        """Positions (problems, n, P), at most `REMEMBERED` for each; far away where there are fewer."""
        if not self.past or not self.spec.position:
            return None
        each = torch.full((len(self.past), REMEMBERED, len(self.spec.position)), FAR)
        for row, seen in zip(each, map(np.asarray, self.past), strict=True):
            kept = np.unique(np.linspace(0, len(seen) - 1, min(REMEMBERED, len(seen))).round().astype(int))
            row[: len(kept)] = torch.from_numpy(seen[kept][:, self.spec.position_indices]).float()
        return each

    def steering(self, pinned: Tensor, sampling: Sampling) -> Steering | None:
        """For the denoising loop; None where the guide only chooses among finished candidates."""
        if sampling.guidance == "candidates":
            return None

        def at(progress: float) -> Score | None:
            now = self.guide.at(progress)
            if not now.terms:
                return None
            return lambda clean, noisy, t: now.value(self.sight(clean, noisy, t, pinned))

        def carried(before: float, progress: float) -> Score | None:
            old, new = self.guide.at(before).terms, self.guide.at(progress).terms
            if old == new:
                return None
            both = Guide(tuple(term for term in new if term in old))
            return lambda clean, noisy, t: both.value(self.sight(clean, noisy, t, pinned))

        particles = sampling.guidance == "particles"
        return Steering(
            at,
            gradient=not particles,
            particles=particles,
            gradient_cap=sampling.gradient_cap,
            smoothing=sampling.smoothing,
            carried=carried,
        )

    @torch.no_grad()
    def liking(self, clean: Tensor, pinned: Tensor | None = None) -> Tensor:
        """Scores (B,) of finished trajectories (B, H, D), normalised."""
        start = torch.zeros(len(clean), dtype=torch.long, device=clean.device)
        return self.guide.value(self.sight(clean, clean, start, pinned))

    def liking_of(self, plan: Plan, device: torch.device) -> NDArray[np.float64]:
        """Scores (K,) of a plan's candidates."""
        paths = torch.from_numpy(plan.trajectories).to(device)
        pinned = torch.zeros_like(paths, dtype=torch.bool)
        pinned[:, 0, self.spec.observations] = True  # as the return model was trained: it always knew the start
        return self.liking(self.normalizer.normalize(paths), pinned).double().cpu().numpy()
