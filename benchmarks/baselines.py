"""References measured under the same protocol as the planner: the demonstrator and chance.

Shape letters: B environments, O observations, A actions, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diffplan.envs.experts import EXPERTS
from diffplan.envs.maze import WaypointController
from diffplan.envs.simulators import Simulators, side_by_side
from diffplan.envs.tasks import ArmTask, MazeTask, Task

Array = NDArray[np.float64]


class Policy(Protocol):
    """Acts for B environments at once."""

    def begin(self, observations: Array, goals: Array) -> None: ...

    def act(self, observations: Array) -> Array: ...


class RandomPolicy:
    """Uniform actions in [-1, 1]."""

    def __init__(self, task: Task, seeds: Sequence[int]) -> None:
        self.width = len(task.spec.action_names)
        self.rngs = [np.random.default_rng([seed, 1]) for seed in seeds]

    def begin(self, observations: Array, goals: Array) -> None:
        pass

    def act(self, observations: Array) -> Array:
        return np.array([rng.uniform(-1, 1, self.width) for rng in self.rngs])


class WaypointPolicy:
    """The controller that made the data, without its noise and jitter; it knows the map."""

    def __init__(self, task: MazeTask, seeds: Sequence[int]) -> None:
        self.controllers = [WaypointController(task.maze) for _ in seeds]

    def begin(self, observations: Array, goals: Array) -> None:
        for controller, observation, goal in zip(self.controllers, observations, goals, strict=True):
            controller.aim(observation[:2], goal)

    def act(self, observations: Array) -> Array:
        return np.array([c.act(o) for c, o in zip(self.controllers, observations, strict=True)])


class ExpertPolicy:
    """The scripted expert that made an arm's data, undisturbed."""

    def __init__(self, task: ArmTask) -> None:
        self.expert = EXPERTS[task.skill]

    def begin(self, observations: Array, goals: Array) -> None:
        self.goals = goals

    def act(self, observations: Array) -> Array:
        return np.array([self.expert(o, g) for o, g in zip(observations, self.goals, strict=True)])


def policies(task: Task, seeds: Sequence[int]) -> dict[str, Policy]:
    """The references that fit a task, by name."""
    made: dict[str, Policy] = {"random policy": RandomPolicy(task, seeds)}
    if isinstance(task, MazeTask):
        made["waypoint controller"] = WaypointPolicy(task, seeds)
    if isinstance(task, ArmTask):
        made["scripted expert"] = ExpertPolicy(task)
    return made


def run_policies(
    task: Task, seeds: Sequence[int], *, also: Mapping[str, Policy] | None = None
) -> dict[str, list[Array]]:
    """Rewards (T,) of every reference, by name: of one episode per seed, until it ended.

    `also` are further policies, which must not mind how many episodes they act in at once.
    """
    found: dict[str, list[Array]] = {}
    for simulators, group in side_by_side(task, seeds):
        for name, policy in (policies(task, group) | dict(also or {})).items():
            found.setdefault(name, []).extend(_run(simulators, policy, group))
    return found


def run_policy(task: Task, policy: Policy, *, seeds: Sequence[int]) -> list[Array]:
    """Rewards (T,) of one episode per seed, until it ended."""
    with Simulators(task, len(seeds)) as simulators:
        return _run(simulators, policy, seeds)


def _run(simulators: Simulators, policy: Policy, seeds: Sequence[int]) -> list[Array]:
    observations, goals = simulators.reset(seeds)
    policy.begin(observations.astype(float), goals.astype(float))
    rewards: list[NDArray[np.floating[Any]]] = []
    lasted = np.zeros(len(seeds), dtype=int)
    ended = np.zeros(len(seeds), dtype=bool)
    while len(rewards) < simulators.task.episode_steps and not ended.all():
        lasted += ~ended
        observations, reward, ended = simulators.step(policy.act(observations.astype(float)).astype(np.float32))
        rewards.append(reward)
    return [own[:steps].astype(float) for own, steps in zip(np.array(rewards).T, lasted, strict=True)]
