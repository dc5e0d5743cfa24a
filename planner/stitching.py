"""Plans made of several legs, for goals farther than any recorded episode goes.

A denoiser that only ever saw pieces of routes cuts through walls when it is asked for a whole one, and doubts it (see
`selection`). Free-ended legs go where the data goes; from each of their ends the goal is asked for, and the chain whose
worst leg is least doubted wins. Nothing but the denoiser's own judgement is needed.

Shape letters: P problems, K candidates, H horizon (tokens), D columns of a token, n tokens of a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .batch import Batch
from .conditions import Conditions
from .plan import Array, Plan
from .selection import GUIDE_SHARE
from .spec import TrajectorySpec

PREFERENCE = 1.2  # doubt counts so much more for each further leg

PlanMany = Callable[[Sequence[Conditions], Sequence[torch.Generator], int | None], list[Plan]]
"""Plans problems in one batch, each from its generator, with so many candidates (None for the usual number)."""


@dataclass(frozen=True)
class Chain:
    """Legs one after the other: tokens (n, D) until the last one's horizon ends, and where that arrives."""

    tokens: Array
    arrival: int
    doubt: float
    consistency: float
    legs: int = 1

    @classmethod
    def of(cls, plan: Plan, candidate: int = 0) -> Chain:
        """One candidate as a chain of one leg."""
        tokens, arrival = plan.trajectories[candidate], int(plan.arrivals[candidate])
        return cls(tokens, arrival, float(plan.implausibility[candidate]), float(plan.consistency[candidate]))

    def then(self, leg: Chain, arrived: int) -> Chain:
        """This chain until it arrives, followed by another; `arrived` is the column that says so."""
        head = self.tokens[: self.arrival].copy()
        head[:, arrived] = -1.0
        return Chain(
            np.concatenate([head, leg.tokens]),
            self.arrival + leg.arrival,
            max(self.doubt, leg.doubt),
            max(self.consistency, leg.consistency),
            self.legs + leg.legs,
        )


def stitched(
    batch: Batch, one_leg: Callable[[Batch], list[Plan]], spec: TrajectorySpec, device: torch.device
) -> list[Plan]:
    """Plans of several legs for a batch, each leg from `one_leg`; what was planned before is not gone on with."""
    sampling, wish = batch.sampling, batch.wish

    def plan_many(
        problems: Sequence[Conditions], sources: Sequence[torch.Generator], candidates: int | None
    ) -> list[Plan]:
        leg = sampling.changed({"candidates": candidates, "select": "unprompted"})
        alike = wish if wish is None or len(problems) == len(batch.conditions) else replace(wish, past=())
        return one_leg(Batch(problems, sources, leg, alike))

    plans = stitch(plan_many, batch.conditions, batch.generators, observations=spec.observations, legs=sampling.legs)
    if wish is None or sampling.guidance == "gradient":
        return plans
    return [
        plan.ranked(plan.scores + GUIDE_SHARE * replace(wish, past=wish.past[i : i + 1]).liking_of(plan, device))
        for i, plan in enumerate(plans)
    ]


def stitch(
    plan_many: PlanMany,
    conditions: Sequence[Conditions],
    generators: Sequence[torch.Generator],
    *,
    observations: slice,
    legs: int,
) -> list[Plan]:
    """Plans of at most so many legs, best chains first; scores are minus the doubt, which a further leg makes dearer.

    Args:
        plan_many: of one leg each.
        conditions: P problems: a whole start observation, and what the end has to be.
        generators: one per problem.
        observations: the columns of a state.
        legs: at most, 2 or more.

    Raises:
        ValueError: something between start and end is pinned: no leg would know which of them it belongs to.
    """
    for problem in conditions:
        if problem.mask[1:-1].any() or not problem.mask[0, observations].all() or not problem.mask[-1].any():
            raise ValueError("legs join a whole start and an end: pin nothing between, or plan with legs=1")
    direct = plan_many(conditions, generators, None)
    found = [[Chain.of(plan, k) for k in range(len(plan.trajectories))] for plan in direct]
    free = [_only_start(problem) for problem in conditions]
    heads = [[Chain.of(plan, k) for k in range(len(plan.trajectories))] for plan in plan_many(free, generators, None)]
    column = direct[0].spec.arrived
    for leg in range(1, legs):
        owners = [p for p, own in enumerate(heads) for _ in own]
        ends = [chain.tokens[chain.arrival, observations] for own in heads for chain in own]
        last = plan_many(
            [_from(conditions[p], end, observations) for p, end in zip(owners, ends, strict=True)],
            _split(generators, owners),
            1,
        )
        flat = [chain for own in heads for chain in own]
        for p, head, goal_leg in zip(owners, flat, last, strict=True):
            found[p].append(head.then(Chain.of(goal_leg), column))
        if leg < legs - 1:
            further = plan_many(
                [_from(free[p], end, observations) for p, end in zip(owners, ends, strict=True)],
                _split(generators, owners),
                1,
            )
            heads = [[] for _ in conditions]
            for p, head, more in zip(owners, flat, further, strict=True):
                heads[p].append(head.then(Chain.of(more), column))
    return [_as_plan(chains, plan) for chains, plan in zip(found, direct, strict=True)]


def _as_plan(chains: Sequence[Chain], like: Plan) -> Plan:
    """Chains as the candidates of one plan, the shorter ones padded by staying where they end."""
    scores = np.array([-c.doubt * PREFERENCE ** (c.legs - 1) for c in chains])
    best = np.argsort(-scores, kind="stable")
    longest = max(len(c.tokens) for c in chains)
    padded = [np.concatenate([c.tokens, np.repeat(c.tokens[-1:], longest - len(c.tokens), axis=0)]) for c in chains]
    return replace(
        like,
        trajectories=np.stack(padded)[best],
        arrivals=np.array([c.arrival for c in chains])[best],
        scores=scores[best],
        consistency=np.array([c.consistency for c in chains])[best],
        implausibility=np.array([c.doubt for c in chains])[best],
    )


def _only_start(problem: Conditions) -> Conditions:
    mask = problem.mask.clone()
    mask[1:] = False
    return Conditions(mask, problem.values)


def _from(problem: Conditions, state: Array, observations: slice) -> Conditions:
    """The same problem from another start (O,)."""
    values = problem.values.clone()
    values[0, observations] = torch.from_numpy(np.asarray(state, dtype=np.float32))
    return Conditions(problem.mask, values)


def _split(generators: Sequence[torch.Generator], owners: Sequence[int]) -> list[torch.Generator]:
    """A generator of its own for every leg, seeded by its problem's."""
    made = []
    for p in owners:
        g = generators[p]
        made.append(torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=g, device=g.device))))
    return made
