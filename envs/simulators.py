"""Gymnasium environments side by side, as the executor wants them.

Shape letters: B environments, O observations, A actions, P positions.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .parallel import cores
from .tasks import Task
from .workers import Spread, spreadable

Array = NDArray[np.floating[Any]]

MANY = 64  # environments from which on processes pay: to start them takes some five seconds, once
UNSTABLE = (3, 4, 5)  # mujoco.mjtWarning: BADQPOS, BADQVEL, BADQACC


class Simulators:
    """B environments of one task, stepped together.

    Args:
        task: which.
        count: B.
        start: places every agent here instead of where the task would.
        goal: asks every environment for this goal.
        render_mode: of the first environment; the others are never drawn.
        processes: that step them, each its share, on so many cores; 1 for this one alone. If left out, all cores for
            many environments, unless they are drawn or this process itself is one of several at the same work. The
            trajectories are the same in any case, to the bit.
        first: number of the first environment, where these are some of more.

    Attributes:
        envs: the environments that this process holds: all of them, or the first ones.
        faults: what went wrong in an episode, by the number of its environment.
    """

    def __init__(
        self,
        task: Task,
        count: int,
        *,
        start: ArrayLike | None = None,
        goal: ArrayLike | None = None,
        render_mode: str | None = None,
        processes: int | None = None,
        first: int = 0,
    ) -> None:
        self.task, self.start, self.goal, self.first = task, start, goal, first
        self.faults: dict[int, str] = {}
        if processes is None:
            processes = 1 if render_mode is not None else _worth(task, count)
        here = -(-count // max(1, min(processes, count, cores())))
        self._others = Spread(task, count - here, processes - 1, first=here) if here < count else None
        self.envs: list[Any] = []
        with contextlib.nullcontext() if self._others is None else self._others.making():
            self.envs += [task.environment(render_mode=render_mode if i == 0 else None) for i in range(here)]
        self._ended = np.zeros(here, dtype=bool)

    def reset(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        """Begin an episode each; the same seed begins the same episode in any slot."""
        if self._others is None:
            return self._reset_here(seeds)
        here = len(self.envs)
        with self._others.resetting(seeds[here:], self.start, self.goal) as others:
            own = self._reset_here(seeds[:here])
        observations, goals = (np.concatenate(parts) for parts in zip(own, *others, strict=True))
        return observations, goals

    def _reset_here(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        begun = [
            self.task.reset(env, np.random.default_rng(seed), start=self.start, goal=self.goal)
            for env, seed in zip(self.envs, seeds, strict=True)
        ]
        self._ended[:] = False
        self._steps = 0
        self.faults = {}
        self._goals = np.array([goal for _, goal in begun])
        self._observations = np.array([o for o, _ in begun])
        return self._observations.astype(np.float32), self._goals.astype(np.float32)

    def step(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Apply actions (B, A); an environment whose episode has ended stays as it is.

        One whose simulation breaks (NaN, or a state that MuJoCo gave up on) ends its episode with its last good
        observation, and is named in `faults`, as is one in which the task is lost; the others go on.
        """
        if self._others is None:
            return self._step_here(actions)
        here = len(self.envs)
        with self._others.stepping(actions[here:]) as others:
            observations, rewards, ended = self._step_here(actions[:here])
        self.faults |= self._others.faults
        return (
            np.concatenate([observations, others.observations]),
            np.concatenate([rewards, others.rewards]),
            np.concatenate([ended, others.ended]),
        )

    def _step_here(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        rewards = np.zeros(len(self.envs))
        self._steps += 1
        for i, env in enumerate(self.envs):
            if self._ended[i]:
                continue
            observation, reward, terminated, truncated, _ = env.step(np.asarray(actions[i], dtype=float))
            seen = self.task.flatten(observation)
            fault = _fault(env, seen, reward)
            if fault:
                self.faults[self.first + i] = f"environment {self.first + i} broke at step {self._steps}: {fault}"
                self._ended[i] = True
                continue
            if lost := self.task.lost(seen):
                self.faults[self.first + i] = f"environment {self.first + i} at step {self._steps}: {lost}"
                self._ended[i] = True
            self._observations[i] = seen
            rewards[i] = self.task.reward(self._observations[i], self._goals[i], reward)
            self._ended[i] |= terminated or truncated
        return self._observations.astype(np.float32), rewards, self._ended.copy()

    def render(self) -> NDArray[np.uint8]:
        """The first environment as a picture (height, width, 3)."""
        return np.asarray(self.envs[0].render())

    def close(self) -> None:
        """Close all of them; once more does nothing."""
        if self._others is not None:
            self._others.close()
        closing, self.envs = self.envs, []
        for env in closing:
            env.close()

    def __enter__(self) -> Simulators:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def side_by_side(task: Task, seeds: Sequence[int]) -> Iterator[tuple[Simulators, list[int]]]:
    """Simulators for as many episodes at once as a task allows, with the seeds that come next, until all have come."""
    most = task.together or len(seeds)
    groups = [list(seeds[i : i + most]) for i in range(0, len(seeds), most)]
    for count, alike in itertools.groupby(groups, len):
        with Simulators(task, count) as simulators:
            for group in alike:
                yield simulators, group


def _worth(task: Task, count: int) -> int:
    """Processes that step so many environments soonest."""
    alone = multiprocessing.parent_process() is None
    return min(cores(), count) if alone and count >= MANY and spreadable(task) else 1


def _fault(env: Any, observation: Array, reward: float) -> str:
    """What went wrong in a step, in words; empty if nothing did."""
    if not np.isfinite(observation).all():
        return f"observation {int(np.flatnonzero(~np.isfinite(observation))[0])} is not finite"
    if not np.isfinite(reward):
        return "the reward is not finite"
    warnings = getattr(getattr(env, "data", None), "warning", None)
    if warnings is not None and any(warnings[kind].number for kind in UNSTABLE):
        return "MuJoCo found the simulation unstable and reset it"
    return ""
