"""Receding-horizon execution: follow the plan for a while, look, plan again.

    environment step   0 ........ N ........ 2N ....
    plan               [== followed ==][- dropped -]
                                [== followed ==][- dropped -]

Shape letters: B environments, T steps, O observations, A actions, P positions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .conditions import Conditions
from .controllers import Controller
from .course import Course
from .guides import Cost, Guide
from .pipeline import Feasible, TrajectoryPlanner
from .plan import Plan, Reference
from .roadmap import HALVINGS

Array = NDArray[np.floating[Any]]

Way = Plan | Course
Hasten = Callable[[Sequence[Plan]], Sequence[Way]]
"""What each of several plans is followed along."""


class Environments(Protocol):
    """B environments side by side: all that execution knows of a simulator or a robot."""

    def reset(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Begin an episode each; observations (B, O) and goals (B, P), P = 0 where there are none."""
        ...

    def step(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Apply actions (B, A); next observations (B, O), rewards (B,), and which episodes have ended (B,)."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One executed episode.

    Attributes:
        goal: (P,).
        states: (T + 1, O) observations.
        actions: (T, A) as applied.
        rewards: (T,).
        plan_steps: environment steps at which it planned.
        plans: the plan made at each of them.
    """

    goal: Array
    states: Array
    actions: Array
    rewards: Array
    plan_steps: tuple[int, ...]
    plans: tuple[Plan, ...] = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"Rollout({len(self.rewards)} steps, return {self.rewards.sum():g}, planned {len(self.plan_steps)} times)"
        )


def plan_in_force(plan_steps: Sequence[int], step: int) -> int:
    """Which of the plans made at `plan_steps` is followed at a step; -1 before the first."""
    return int(np.searchsorted(plan_steps, step, side="right")) - 1


@dataclass(frozen=True)
class Moment:
    """All environments after one step: observations (B, O), actions (B, A), rewards, ended and who replanned (B,).

    `plans` are those in force, one for each; none where the executor does not keep them.
    """

    step: int
    observations: Array
    actions: Array
    rewards: Array
    ended: NDArray[np.bool_]
    plans: tuple[Plan, ...]
    replanned: NDArray[np.bool_]


class Executor:
    """Plans for all environments in one batch, follows, and plans again.

    Args:
        planner: makes the plans.
        environments: B of them.
        controller: turns plans into actions.
        replan_every: environment steps between plans; one that ends earlier, at a stop on the way, is replaced then.
        guide: what plans should prefer.
        tempo: plan time that passes per time executed; above 1 follows plans faster than they were demonstrated, for a
            plant that can (a demonstrator whose actions are noisy and clipped leaves force unused).
        tolerance: distance from a plan, in position units, up to which one that is about to arrive is kept.
        feasible: candidates that it refuses rank behind all others.
        pin_goal: pin the environments' goals; without it plans are only pulled by the guide.
        keep_plans: hold every plan in the rollouts; off for long or wide runs.
        hasten: plans are followed along the fastest course that this finds for each (see `racing`), at tempo 1.
        vias: positions (P,) that every environment is to pass in this order on the way to its goal.
        passed_within: distance, in position units, at which one counts as passed.
        or_goals: positions (P,) that will do as well as an environment's own goal: whichever is reached soonest from
            where its episode begins.
        **options: further fields of `options.Sampling`, over the planner's own (where plans are hastened and nothing is
            said, its `racing` ones).
    """

    def __init__(
        self,
        planner: TrajectoryPlanner,
        environments: Environments,
        *,
        controller: Controller,
        replan_every: int = 20,
        guide: Guide | Cost | None = None,
        tempo: float = 1.0,
        tolerance: float = 0.25,
        feasible: Feasible | None = None,
        pin_goal: bool = True,
        keep_plans: bool = True,
        hasten: Hasten | None = None,
        vias: Sequence[Sequence[float]] = (),
        passed_within: float = 0.25,
        or_goals: Sequence[Sequence[float]] = (),
        **options: object,
    ) -> None:
        if replan_every < 1:
            raise ValueError(f"replan_every={replan_every} must be at least 1 step")
        if not 0 < tempo <= 10:
            raise ValueError(f"tempo={tempo} must be above 0 and at most 10")
        self.planner, self.environments, self.controller = planner, environments, controller
        self.replan_every, self.guide, self.tempo, self.tolerance = replan_every, guide, tempo, tolerance
        self.feasible, self.pin_goal, self.keep_plans = feasible, pin_goal, keep_plans
        given = {name: value for name, value in options.items() if value is not None}
        raced = hasten is not None and guide is None and "legs" not in given
        self.options: dict[str, Any] = (planner.sampling.racing() if raced else {}) | given
        if (len(vias) or len(or_goals)) and not pin_goal:
            raise ValueError("vias and goals to choose from need a pinned goal: leave pin_goal=False out")
        self.hasten, self.vias, self.passed_within, self.or_goals = hasten, vias, passed_within, or_goals
        self.plan_seconds: list[float] = []

    def run(self, *, steps: int, seeds: Sequence[int]) -> list[Rollout]:
        """Whole episodes, one per environment."""
        moments = list(self.moments(steps=steps, seeds=seeds))
        return self.rollouts(moments)

    def moments(self, *, steps: int, seeds: Sequence[int]) -> Iterator[Moment]:
        """Execute at most `steps` environment steps, yielding after each; the first moment is the reset.

        Each environment's plans draw from a generator seeded by its own seed, so an episode is the same alone
        and beside others.
        """
        if steps < 1 or not len(seeds):
            raise ValueError(f"steps={steps} and the number of seeds ({len(seeds)}) must be at least 1")
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        observations, goals = self.environments.reset(seeds)
        self.goals = goals = self._nearest(observations, goals, seeds)
        self._ahead = [list(self.vias) for _ in seeds]
        self._seen = [[o] for o in observations]
        ended = np.zeros(len(seeds), dtype=bool)
        flights: list[_Flight] = []
        for step in range(steps):
            turn = step % self.replan_every
            fresh = self._due(flights, observations, turn) & ~ended
            if turn == 0 or fresh.any():
                flights = self._replan(flights, fresh, observations, generators)
                references = iter(_references(flights, min(self.replan_every - turn, steps - step), self.tempo))
                ahead = next(references)
            plans = tuple(f.driven for f in flights) if self.keep_plans else ()
            if step == 0:
                nothing = np.zeros((len(seeds), 0), np.float32)
                yield Moment(0, observations, nothing, np.zeros(len(seeds)), ended, plans, fresh)
            now, ahead = ahead, next(references)
            actions = self.controller.act(observations, now, ahead).astype(np.float32)
            observations, rewards, finished = self.environments.step(actions)
            rewards = np.where(ended, 0.0, rewards)
            ended = ended | finished
            for flight, seen, now in zip(flights, self._seen, observations, strict=True):
                flight.age += self.tempo
                seen.append(now)
            self._pass(flights, observations)
            yield Moment(step + 1, observations, actions, rewards, ended, plans, fresh)
            if ended.all():
                return

    @property
    def vias_left(self) -> list[int]:
        """How many vias each environment has still to pass."""
        return [len(ahead) for ahead in self._ahead]

    def rollouts(self, moments: Sequence[Moment]) -> list[Rollout]:
        """One record per environment, cut where its episode ended."""
        first, rest = moments[0], moments[1:]
        made = []
        for i in range(len(first.observations)):
            last = next((m.step for m in rest if m.ended[i]), len(rest))
            own = [m for m in rest if m.step <= last]
            asked = [m for m in own if m.replanned[i]]
            made.append(
                Rollout(
                    self.goals[i],
                    np.array([first.observations[i], *[m.observations[i] for m in own]]),
                    np.array([m.actions[i] for m in own]),
                    np.array([m.rewards[i] for m in own]),
                    tuple(m.step - 1 for m in asked),
                    tuple(m.plans[i] for m in asked) if self.keep_plans else (),
                )
            )
        return made

    def _due(self, flights: list[_Flight], observations: Array, turn: int) -> NDArray[np.bool_]:
        """Who is to plan anew (B,): everyone in turn, and between turns those who have come to a stop on their way."""
        if not flights:
            return np.ones(len(observations), dtype=bool)
        if turn:
            return np.array([f.passed or (not f.final and f.age >= f.way.steps) for f in flights])
        return np.array([not self._kept(f, o) for f, o in zip(flights, observations, strict=True)])

    def _kept(self, flight: _Flight, observation: Array) -> bool:
        """Whether a plan is kept to because it is about to arrive, or has arrived, and is well followed.

        It holds its goal by itself; planning again from within reach of it only adds noise.
        """
        held = bool(self.goals.shape[1]) and self.pin_goal and flight.final
        if not held or flight.way.steps - flight.age > self.replan_every * self.tempo:
            return False
        here = observation[self.planner.spec.position_indices]
        off = here - flight.way.reference(np.array([flight.age])).position[0]
        return bool(np.linalg.norm(off) <= self.tolerance)

    def _nearest(self, observations: Array, goals: Array, seeds: Sequence[int]) -> Array:
        """Each environment's goal (B, P): its own, or one of those that would do as well and is reached sooner."""
        if not len(self.or_goals):
            return goals
        known: dict[str, Any] = {"vias": self.vias, "guide": self.guide, "feasible": self.feasible, **self.options}
        made = []
        for observation, own, seed in zip(observations, goals, seeds, strict=True):
            choice = [own.tolist(), *self.or_goals]
            best, _ = self.planner.nearest(
                observation.tolist(), choice, generator=torch.Generator().manual_seed(seed), **known
            )
            made.append(choice[best])
        return np.array(made, dtype=goals.dtype)

    def _pass(self, flights: list[_Flight], observations: Array) -> None:
        """Strike off the vias that environments are at; what is planned is then over."""
        for i in (i for i, ahead in enumerate(self._ahead) if ahead):
            here = observations[i][self.planner.spec.position_indices]
            if np.linalg.norm(here - self._ahead[i][0]) <= self.passed_within:
                self._ahead[i].pop(0)
                flights[i].passed = True

    def _aims(self, i: int, observation: Array, nearer: int) -> Sequence[Sequence[float]]:
        """Where to plan to, one after another: nowhere in particular, the goal, or first a stop on the way to it."""
        goal = self._ahead[i][0] if self._ahead[i] else self.goals[i].tolist()
        if not len(goal) or not self.pin_goal:
            return ()
        one_leg = self.options.get("legs") in (None, 1) and self.planner.sampling.legs == 1
        return self.planner.stops(observation.tolist(), goal, nearer=nearer) if one_leg else (goal,)

    def _replan(
        self,
        flights: list[_Flight],
        due: NDArray[np.bool_],
        observations: Array,
        generators: Sequence[torch.Generator],
    ) -> list[_Flight]:
        """New plans for those that are due: one batch of those that go on from a plan, one of those that do not.

        Those that found no way try for nearer stops.
        """
        who: list[int] = np.flatnonzero(due).tolist()
        anew = [i for i in who if not flights or flights[i].passed]  # what led to a via says nothing of what is next
        fresh: dict[int, _Flight] = {}
        for group, before in ((anew, []), ([i for i in who if i not in anew], flights)):
            aims = {i: self._aims(i, observations[i], 0) for i in group}
            fresh |= self._flights(aims, before, observations, generators) if group else {}
        for halvings in range(1, HALVINGS + 1):
            lost = {i: self._aims(i, observations[i], halvings) for i in who if fresh[i].blocked}
            lost = {i: aim for i, aim in lost.items() if len(aim) > 1}
            if lost:
                again = self._flights(lost, [], observations, generators)
                fresh |= {i: flight for i, flight in again.items() if not flight.blocked}
        return [fresh.get(i) or flights[i] for i in range(len(due))]

    def _flights(
        self,
        aims: dict[int, Sequence[Sequence[float]]],
        flights: list[_Flight],
        observations: Array,
        generators: Sequence[torch.Generator],
    ) -> dict[int, _Flight]:
        """Plans to the first of each environment's aims, by environment; they go on from the flights before, if any."""
        problems: list[Conditions] = [
            self.planner.problem(observations[i].tolist(), aim[0] if aim else None) for i, aim in aims.items()
        ]
        plans = self.planner.plan_many(
            problems,
            generators=[generators[i] for i in aims],
            guide=self.guide,
            previous=[(flights[i].plan, flights[i].plan_age) for i in aims] if flights else None,
            feasible=self.feasible,
            tempo=self.tempo,
            past=[np.array(self._seen[i]) for i in aims] if self.guide is not None else (),
            **self.options,
        )
        began = time.perf_counter()
        ways = plans if self.hasten is None else self.hasten(plans)
        self.plan_seconds.append(plans[0].seconds + time.perf_counter() - began)
        return {
            i: _Flight(plan, way, final=len(aim) <= 1 and not self._ahead[i])
            for (i, aim), plan, way in zip(aims.items(), plans, ways, strict=True)
        }


@dataclass
class _Flight:
    """A plan, the way it is followed (itself, or a course), and how far that has been gone, in its own steps.

    `final` says whether it ends at the goal, not at a stop or via on the way there; `passed` whether its via was
    passed, so that there is another place to go to.
    """

    plan: Plan
    way: Way
    final: bool = True
    age: float = 0.0
    passed: bool = False

    @cached_property
    def driven(self) -> Plan:
        """The way as a plan, for pictures and records."""
        return self.way if isinstance(self.way, Plan) else self.way.as_plan()

    @property
    def blocked(self) -> bool:
        return isinstance(self.way, Course) and self.way.blocked

    @property
    def plan_age(self) -> float:
        """How far the plan itself has been followed, in its own environment steps."""
        return self.age if isinstance(self.way, Plan) else self.way.plan_age(self.age)


def _references(flights: Sequence[_Flight], count: int, tempo: float) -> list[Reference]:
    """What the plans ask for at each of the next `count` + 1 steps, all environments together."""
    each = [f.way.reference(f.age + tempo * np.arange(count + 1)) for f in flights]
    pace = {"velocity": tempo}
    names = ("observation", "position", "velocity", "action")
    return [
        Reference(*(np.stack([pace.get(name, 1.0) * getattr(r, name)[n] for r in each]) for name in names))
        for n in range(count + 1)
    ]
