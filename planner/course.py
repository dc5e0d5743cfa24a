"""A plan's path with a time for every point of it: what is driven.

Shape letters: K candidates, H horizon (tokens), P positions, n steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from .plan import Array, Plan, Reference
from .plant import Plant
from .windows import consistency, worst_before_arrival

STRAY = 2.0  # voxels outside free space from which a path counts as blocked


@dataclass(frozen=True)
class Course:
    """A path with a time for every point of it, ready to be followed.

    Attributes:
        plant: that it is for.
        plan: that it was made of.
        positions: (n, P) at each environment step; past its end a course stays at its last position.
        velocities: (n, P) that lead to them, per second.
        plan_steps: (n,) environment steps after which the plan, at its own pace, is where the course is.
        seconds: time until it is at the goal.
        stray: how far outside visited space it leads, in position units; 0 if nowhere.
    """

    plant: Plant
    plan: Plan
    positions: Array
    velocities: Array
    plan_steps: Array
    seconds: float
    stray: float

    @property
    def steps(self) -> int:
        """Environment steps until it ends."""
        return len(self.positions) - 1

    def as_plan(self) -> Plan:
        """As a plan of tokens, one candidate."""
        return as_plan([self])

    @property
    def blocked(self) -> bool:
        """Whether it leads where nothing shows a way."""
        return self.stray > STRAY * self.plant.config.voxel

    def plan_age(self, age: float) -> float:
        """Environment steps after which the plan, at its own pace, is where the course is after `age` steps."""
        return float(self.plan_steps[min(round(age), self.steps)])

    def reference(self, steps: ArrayLike) -> Reference:
        """What the course asks for at environment steps (n,) after its start."""
        at = np.minimum(np.round(np.asarray(steps, dtype=float)).astype(int), self.steps)
        beyond = np.asarray(steps) > self.steps
        asked = self.plan.reference(self.plan_steps[at])
        velocity = np.where(beyond[:, None], 0.0, self.velocities[at])
        observation = asked.observation.copy()
        observation[:, self.plan.spec.position_indices] = self.positions[at]
        if self.plan.spec.velocity:
            observation[:, self.plan.spec.velocity_indices] = velocity
        return Reference(observation, self.positions[at], velocity, asked.action)


def as_plan(made: Sequence[Course]) -> Plan:
    """Courses of one problem's candidates, best first, as a plan of tokens: what is driven, at its own pace."""
    plan, spec = made[0].plan, made[0].plan.spec
    tokens = max(plan.trajectories.shape[1], *(math.ceil(c.steps / spec.stride) + 1 for c in made), 2)
    paths = np.array([_tokens(course, tokens) for course in made], dtype=np.float32)
    arrivals = np.array([math.ceil(c.steps / spec.stride) for c in made])
    exact = torch.from_numpy(paths)
    return replace(
        plan,
        trajectories=paths,
        arrivals=arrivals,
        consistency=worst_before_arrival(spec, exact, consistency(spec, exact)).double().numpy(),
        scores=np.array([c.plan.scores[0] for c in made]),
        implausibility=np.array([c.plan.implausibility[0] for c in made]),
    )


def _tokens(course: Course, count: int) -> Array:
    """A course as (H, D): every stride-th step, with the means of the actions between; then it stays at its end."""
    spec = course.plan.spec
    steps = np.arange(count * spec.stride + 1)
    asked = course.reference(steps)
    actions = (
        course.plant.actions_for(asked.velocity[:-1], asked.velocity[1:]).reshape(count, spec.stride, -1).mean(axis=1)
    )
    over = steps[: -1 : spec.stride] >= course.steps
    actions[over] = 0.0
    return np.hstack([actions, asked.observation[: -1 : spec.stride], np.where(over, 1.0, -1.0)[:, None]])
