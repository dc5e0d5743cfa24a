"""Guides: what a plan should prefer, as values of one type.

`a + b` adds, `2.0 * a` weighs, `a.during(0.2, 1.0)` limits a guide to a part of the denoising; each result is a
guide again. Costs are written on clean trajectories in environment units; the sampler's chain rule carries
their gradients to the noisy ones, so a weight means the same for every scheduler.

Shape letters: B batch, H horizon (tokens), P positions, A actions, D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .spec import TrajectorySpec

Cost = Callable[[TrajectorySpec, Tensor], Tensor]
"""Trajectories (B, H, D) in environment units to costs (B,), lower is better."""


@dataclass(frozen=True)
class Term:
    """One weighted cost, at work while the denoising progress lies in [begin, end]."""

    name: str
    cost: Cost
    weight: float = 1.0
    begin: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Guide:
    """A sum of weighted costs."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, cost: Cost, name: str = "custom") -> Guide:
        """Any differentiable function of the spec and clean trajectories (B, H, D) to costs (B,)."""
        return cls((Term(name, cost),))

    def score(self, spec: TrajectorySpec, trajectories: Tensor, progress: float = 1.0) -> Tensor:
        """Minus the weighted costs at work at `progress`, (B,)."""
        total = trajectories.new_zeros(len(trajectories)) + 0.0 * trajectories.flatten(1).sum(1)
        for term in self.terms:
            if term.begin <= progress <= term.end:
                total = total - term.weight * term.cost(spec, trajectories)
        return total

    def __add__(self, other: Guide) -> Guide:
        return Guide(self.terms + other.terms)

    def __mul__(self, factor: float) -> Guide:
        return Guide(tuple(replace(t, weight=t.weight * factor) for t in self.terms))

    __rmul__ = __mul__

    def during(self, begin: float, end: float) -> Guide:
        """Only while the progress from noise (0) to plan (1) lies in [begin, end]."""
        if not 0 <= begin < end <= 1:
            raise ValueError(f"during({begin}, {end}): need 0 <= begin < end <= 1")
        return Guide(tuple(replace(t, begin=max(t.begin, begin), end=min(t.end, end)) for t in self.terms))

    def describe(self) -> tuple[str, ...]:
        """One line per term."""
        return tuple(f"{t.name}@{t.weight:g}" for t in self.terms)


def avoid(x: float, y: float, radius: float) -> Guide:
    """Keep out of a disc.

    Args:
        x: metres.
        y: metres.
        radius: metres, positive.
    """
    if radius <= 0:
        raise ValueError(f"avoid: radius={radius:g} must be positive")

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return F.relu(radius - _distance(spec, path, (x, y))).square().sum(-1) / radius**2

    return Guide.of(cost, f"avoid:x={x:g},y={y:g},radius={radius:g}")


def goal(x: float, y: float) -> Guide:
    """End near a point, softly.

    Args:
        x: metres.
        y: metres.
    """
    return Guide.of(lambda spec, path: _distance(spec, path[:, -1:], (x, y))[:, 0], f"goal:x={x:g},y={y:g}")


def via(x: float, y: float) -> Guide:
    """Pass near a point at any time before arrival.

    Args:
        x: metres.
        y: metres.
    """

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        near = _distance(spec, path, (x, y)).square()
        return -torch.logsumexp(-8.0 * near, dim=-1) / 8.0

    return Guide.of(cost, f"via:x={x:g},y={y:g}")


def speed(max: float) -> Guide:
    """Stay below a speed.

    Args:
        max: metres per second, positive.
    """
    if max <= 0:
        raise ValueError(f"speed: max={max:g} must be positive")

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        if not spec.velocity:
            raise ValueError("speed: the task observes no velocity")
        pace = (path[..., spec.velocity_columns].square().sum(-1) + 1e-8).sqrt()
        return F.relu(pace - max).square().mean(-1)

    return Guide.of(cost, f"speed:max={max:g}")


def effort() -> Guide:
    """Small actions: their mean square."""
    return Guide.of(lambda spec, path: path[..., spec.actions].square().sum(-1).mean(-1), "effort")


def smooth() -> Guide:
    """Small accelerations: mean square of the positions' second differences, in metres per second squared."""

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        if path.shape[1] < 3:
            return 0.0 * path.flatten(1).sum(1)  # two tokens do not bend
        bend = path[..., spec.position_columns].diff(n=2, dim=1) / spec.token_seconds**2
        return bend.square().sum(-1).mean(-1)

    return Guide.of(cost, "smooth")


def length() -> Guide:
    """Arrive sooner: tokens spent before arrival, counted softly, as seconds."""

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return spec.token_seconds * (1 - path[..., spec.arrived]).sum(-1) / 2

    return Guide.of(cost, "length")


FAMILY: dict[str, Callable[..., Guide]] = {
    "avoid": avoid,
    "effort": effort,
    "goal": goal,
    "length": length,
    "smooth": smooth,
    "speed": speed,
    "via": via,
}


def _distance(spec: TrajectorySpec, path: Tensor, point: tuple[float, float]) -> Tensor:
    """Distance (B, H) of the first two position columns from a point."""
    columns = spec.position_columns[:2]
    if len(columns) < 2:
        raise ValueError(f"this guide needs two position columns, the task has {len(columns)}")
    gap = path[..., columns] - path.new_tensor(point)
    return (gap.square().sum(-1) + 1e-8).sqrt()
