"""An executed episode of the Fetch arm: done again in the simulator for its film, and its plans beside what came.

Shape letters: T steps, O observations, A actions, Q generalised positions, n rows of a plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.execution import Rollout, plan_in_force
from diffplan.planner.guides.marks import Mark

from .backend import use_backend
from .references import planned_observations
from .simulators import Simulators
from .tasks import ArmTask, Task
from .video import Picture

Array = NDArray[np.floating[Any]]

SAME = 0.01  # metres by which an episode that is done again may differ: files round actions
PLACED = 1e-3  # metres from where an episode's seed places the object that tell that it was placed by hand


@dataclass(frozen=True)
class ArmEpisode:
    """What is drawn of an episode.

    Attributes:
        states: (T + 1, O) observations.
        actions: (T, A) as applied.
        goal: (3,).
        seed: of the episode.
        plan_steps: environment steps at which it planned.
        plans: observations (n, O) of each of these plans, one for each environment step.
    """

    states: Array
    actions: Array
    goal: Array
    seed: int
    plan_steps: tuple[int, ...]
    plans: tuple[Array, ...]

    @classmethod
    def of(cls, rollout: Rollout, seed: int) -> ArmEpisode:
        """What was executed just now."""
        plans = tuple(planned_observations(plan) for plan in rollout.plans)
        return cls(rollout.states, rollout.actions, rollout.goal, seed, tuple(rollout.plan_steps), plans)

    @classmethod
    def read(cls, record: dict[str, Any], task: ArmTask) -> ArmEpisode:
        """What a rollout's JSON tells.

        Raises:
            ValueError: arrays that do not fit together.
        """
        states, actions, goal = (np.array(record[name], float) for name in ("states", "applied_actions", "goal"))
        plans = tuple(np.array(p, dtype=float) for p in record["plan_references"])
        episode = cls(states, actions, goal, int(record["seed"]), tuple(int(s) for s in record["plan_steps"]), plans)
        episode._check(task)
        return episode

    def _check(self, task: ArmTask) -> None:
        observed, steps = len(task.spec.observation_names), len(self.actions)
        whole = self.states.shape == (steps + 1, observed) and self.actions.ndim == 2 and steps > 0
        planned = all(p.ndim == 2 and p.shape[1] == observed and len(p) > 1 for p in self.plans)
        if not whole or not planned or not 0 < len(self.plans) == len(self.plan_steps) or self.goal.shape != (3,):
            raise ValueError("states, applied_actions, goal, plan_steps and plan_references do not fit together")
        if not all(np.isfinite(values).all() for values in (self.states, self.actions, self.goal, *self.plans)):
            raise ValueError("what was executed and planned must be finite numbers")

    def plan_at(self, step: int) -> Array | None:
        """The rest of the plan in force at a step, (n, O) from the present on; None where it has come to its end."""
        index = plan_in_force(self.plan_steps, step)
        ahead = self.plans[index][step - self.plan_steps[index] :] if index >= 0 else ()
        return np.asarray(ahead) if len(ahead) > 1 else None


def drawn_as_arm(task: Task) -> TypeGuard[ArmTask]:
    """Whether pictures of a task show the arm; anything else, and where nothing can be drawn, is curves."""
    return isinstance(task, ArmTask) and use_backend() is not None


def arm_film(
    task: ArmTask,
    episode: ArmEpisode,
    *,
    goal: ArrayLike | None = None,
    marks: Sequence[Mark] = (),
    title: str = "",
    every: int = 1,
) -> Iterator[Picture]:
    """Frames of an episode as the simulator had it, with the plan in force and the way so far.

    Args:
        task: what was executed.
        episode: what happened.
        goal: (3,) position; the episode's own if left out.
        marks: what guides asked for.
        title: a few words.
        every: steps from one frame to the next.

    Raises:
        ValueError: the simulator does not do the episode again.
    """
    from .arm_view import arm_frames

    looks: dict[str, Any] = {"marks": marks, "title": title or task.name, "every": every}
    goal = episode.goal if goal is None else goal
    return arm_frames(task, replayed(task, episode), episode.states, episode.plan_at, goal=goal, **looks)


def arm_curves(task: ArmTask, episode: ArmEpisode, *, title: str = "") -> Picture:
    """Every coordinate over time, as it was planned and as it came."""
    from .coordinates_view import coordinates_picture

    return coordinates_picture(
        task, episode.states, episode.plan_steps, episode.plans, goal=episode.goal, title=title or task.name
    )


def replayed(task: ArmTask, episode: ArmEpisode) -> Array:
    """The simulator's poses (T + 1, Q) in an episode, done again from its seed with the actions that were applied.

    Raises:
        ValueError: what is seen then is not what was seen.
    """
    with Simulators(task, 1, goal=episode.goal) as simulators:
        observation = simulators.reset([episode.seed])[0][0]
        if _apart(task, observation, episode.states[0]) > PLACED:
            simulators.start = episode.states[0][task.spec.position_indices]
            observation = simulators.reset([episode.seed])[0][0]
        seen, poses = [observation], [np.array(simulators.envs[0].data.qpos)]
        for action in episode.actions:
            seen.append(simulators.step(action[None])[0][0])
            poses.append(np.array(simulators.envs[0].data.qpos))
    _check_same(task, np.array(seen), episode)
    return np.array(poses)


def _check_same(task: ArmTask, seen: Array, episode: ArmEpisode) -> None:
    if (apart := _apart(task, seen, episode.states)) > SAME:
        raise ValueError(
            f"the simulator does not repeat the episode of seed {episode.seed}: done again it differs by {apart:.3g} m "
            "(another version of MuJoCo?); its curves can be drawn: --output FILE.png"
        )


def _apart(task: ArmTask, one: ArrayLike, other: ArrayLike) -> float:
    """Metres by which gripper or object are elsewhere in observations (..., O) than in others, at most."""
    gap = np.asarray(one) - np.asarray(other)
    return float(np.max([np.linalg.norm(gap[..., body], axis=-1).max() for body in task.spec.body_indices]))
