"""Guides: what a plan should prefer, as values of one type.

`a + b` adds, `2.0 * a` weighs, `a.during(0.2, 1.0)` limits a guide to a part of the denoising; each result is a
guide again. Costs are written on clean trajectories in environment units; the sampler's chain rule carries
their gradients to the noisy ones, so a weight means the same for every scheduler.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from ..spec import TrajectorySpec
from .marks import Mark, Region

Cost: TypeAlias = Callable[[TrajectorySpec, Tensor], Tensor]
"""Trajectories (B, H, D) in environment units to costs (B,), lower is better."""

_COUNT = ("no", "one", "two", "three")


@dataclass(frozen=True)
class Sight:
    """What a guide can see of a batch at one step.

    Attributes:
        spec: the columns.
        clean: (B, H, D) predicted clean trajectories, or finished ones, in environment units, as they will be
            executed (velocities and durations at the executor's tempo).
        noisy: (B, H, D) what is being denoised, normalised; None where only finished trajectories are known.
        timestep: (B,) training timestep of `noisy`.
        pinned: (B, H, D) bool, given entries.
        past: (B, n, P) positions that were passed before the plan begins; None for none.
    """

    spec: TrajectorySpec
    clean: Tensor
    noisy: Tensor | None = None
    timestep: Tensor | None = None
    pinned: Tensor | None = None
    past: Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One weighted cost, at work while the denoising progress lies in [begin, end].

    Attributes:
        name: as in a SPEC.
        cost: of what is seen, (B,), lower is better.
        weight: how much it counts.
        begin, end: when it is at work.
        mark: what it looks like in the plane, if it has a look.
        axes: positions that a task must have for it.
    """

    name: str
    cost: Callable[[Sight], Tensor]
    weight: float = 1.0
    begin: float = 0.0
    end: float = 1.0
    mark: Mark | None = None
    axes: int = 0

    def check(self, spec: TrajectorySpec) -> None:
        """Refuse a task of too few positions.

        Raises:
            ValueError: with what it needs, what the task has, and the remedy.
        """
        if len(spec.position) < self.axes:
            has = ": ".join([str(len(spec.position)), *filter(None, [", ".join(spec.position)])])
            remedy = "; leave out what it says of z" if self.axes == 3 and len(spec.position) == 2 else ""
            raise ValueError(f"{self.name} needs {_COUNT[self.axes]} position columns, the task has {has}{remedy}")


@dataclass(frozen=True)
class Guide:
    """A sum of weighted costs."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, cost: Cost, name: str = "custom", *, mark: Mark | None = None, axes: int = 0) -> Guide:
        """Any differentiable function of the spec and clean trajectories (B, H, D) to costs (B,).

        `mark` is what it looks like in the plane, `axes` how many positions a task must have for it.
        """
        return cls((Term(name, lambda sight: cost(sight.spec, sight.clean), mark=mark, axes=axes),))

    def check(self, spec: TrajectorySpec) -> None:
        """Refuse a task that has too few positions for a term.

        Raises:
            ValueError: the message names the term and the remedy.
        """
        for term in self.terms:
            term.check(spec)

    def score(self, spec: TrajectorySpec, trajectories: Tensor, progress: float | None = None) -> Tensor:
        """Score (B,) of trajectories (B, H, D) in environment units; as `value`."""
        return self.value(Sight(spec, trajectories), progress)

    def value(self, sight: Sight, progress: float | None = None) -> Tensor:
        """Minus the weighted costs (B,): of the terms at work at a progress, or of all."""
        self.check(sight.spec)
        total = sight.clean.new_zeros(len(sight.clean)) + 0.0 * sight.clean.flatten(1).sum(1)
        for term in self.terms if progress is None else self.at(progress).terms:
            total = total - term.weight * term.cost(sight)
        return total

    def at(self, progress: float) -> Guide:
        """What is at work at a progress from noise (0) to plan (1)."""
        return Guide(tuple(t for t in self.terms if t.begin <= progress <= t.end))

    def __add__(self, other: Guide | Cost) -> Guide:
        return Guide(self.terms + as_guide(other).terms)

    __radd__ = __add__

    def __mul__(self, factor: float) -> Guide:
        return Guide(tuple(replace(t, weight=t.weight * factor) for t in self.terms))

    __rmul__ = __mul__

    def during(self, begin: float, end: float) -> Guide:
        """Steer only while the progress from noise (0) to plan (1) lies in [begin, end].

        Finished candidates are still judged by it.
        """
        if not 0 <= begin < end <= 1:
            raise ValueError(f"during({begin}, {end}): need 0 <= begin < end <= 1")
        return Guide(tuple(replace(t, begin=max(t.begin, begin), end=min(t.end, end)) for t in self.terms))

    def without_zeros(self) -> Guide | None:
        """The terms that weigh something; None where none does, so that a weight of zero costs nothing."""
        terms = tuple(t for t in self.terms if t.weight != 0)
        return Guide(terms) if terms else None

    def describe(self) -> tuple[str, ...]:
        """One line per term, a SPEC wherever it came from one."""
        return tuple(f"{t.name}@{t.weight:.12g}" for t in self.terms)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Where plans that have no goal may end, by terms that want it."""
        return tuple(t.mark for t in self.terms if isinstance(t.mark, Region) and t.weight > 0)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What the terms look like in the plane, those that have a look and weigh something."""
        return tuple(t.mark for t in self.terms if t.mark is not None and t.weight != 0)


def as_guide(wish: Guide | Cost | Any) -> Guide:
    """A guide as it is, or one made of a callable on (spec, clean trajectories).

    Raises:
        TypeError: neither.
    """
    if isinstance(wish, Guide):
        return wish
    if not callable(wish):
        raise TypeError(f"a guide is a Guide or a function of (spec, trajectories), got {wish!r}")
    return Guide.of(wish, getattr(wish, "__name__", "custom"))
