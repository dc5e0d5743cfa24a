"""An executed episode of a robot: in words, as a film, and what was expected of it against what came.

Shape letters: T steps, O observations, n plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.execution import Rollout, plan_in_force
from diffplan.planner.guides import learned_return
from diffplan.planner.pipeline import TrajectoryPlanner

from .backend import use_backend
from .tasks import RobotTask, Task
from .video import Picture

FRAME_SECONDS = 0.04
MOST_FRAMES = 200  # of a film; what comes after is not shown


def describe_robot(task: RobotTask, rollout: Rollout, plan_seconds: Sequence[float], faults: Sequence[str] = ()) -> str:
    """What happened, in a few lines."""
    steps = len(rollout.rewards)
    end = "upright to the end" if steps == task.episode_steps else f"fell after {steps * task.spec.dt_seconds:.2f} s"
    end = faults[0] if faults else end
    shown = min(steps, MOST_FRAMES * draw_every(task))
    cut = f" (a film shows the first {shown} steps)" if shown < steps else ""
    milliseconds = 1000 * float(np.median(plan_seconds))
    return (
        f"{task.name}: return {rollout.rewards.sum():.0f} in {steps} steps, {end}{cut}\n"
        f"planned {len(plan_seconds)} times, {milliseconds:.0f} ms each (median): {1000 / milliseconds:.0f} Hz"
    )


def drawn_by_mujoco(task: Task) -> TypeGuard[RobotTask]:
    """Whether films of a task show its robot; anything else, and robots that cannot be drawn here, are curves."""
    return isinstance(task, RobotTask) and use_backend() is not None


def draw_every(task: RobotTask) -> int:
    """Environment steps from one frame of a film to the next."""
    return max(1, round(FRAME_SECONDS / task.spec.dt_seconds))


def robot_film(
    task: RobotTask,
    states: ArrayLike,
    rewards: ArrayLike,
    plan_steps: Sequence[int],
    plans: Sequence[ArrayLike],
    *,
    title: str = "",
) -> Iterator[Picture]:
    """Frames of an episode in true time, `FRAME_SECONDS` apart or one step, with the future that was planned.

    Args:
        task: what was executed.
        states: (T + 1, O) observations.
        rewards: (T,).
        plan_steps: steps at which it planned.
        plans: observations (n, O) of each plan, token by token.
        title: a few words.
    """
    from .robot_view import robot_frames

    every = draw_every(task)
    paid = np.asarray(rewards, dtype=float)

    def plans_at(step: int) -> NDArray[np.float64] | None:
        index = plan_in_force(plan_steps, step)
        if index < 0 or index >= len(plans):
            return None
        ahead = np.asarray(plans[index], dtype=float)[(step - plan_steps[index]) // task.spec.stride :]
        return ahead if len(ahead) > 1 else None

    shown = np.asarray(states, dtype=float)[: MOST_FRAMES * every + 1]
    return robot_frames(task, shown, plans_at, rewards=paid, every=every, title=title)


def frames_per_second(task: RobotTask) -> float:
    """Of a film in true time."""
    return 1 / (draw_every(task) * task.spec.dt_seconds)


def expected_returns(planner: TrajectoryPlanner, rollout: Rollout) -> NDArray[np.float64]:
    """Return (n,) that the planner's return model expected of each plan that was followed.

    Raises:
        ValueError: the run has no return model.
    """
    if planner.returns is None:
        raise ValueError("this run has no return model, so nothing was expected")
    guide = learned_return(planner.returns)
    return np.array([planner.score(guide, plan.best())[0] for plan in rollout.plans])


def save_returns(task: RobotTask, planner: TrajectoryPlanner, rollout: Rollout, path: Path) -> None:
    """A picture of the returns that plans were expected to earn against those that came (.png)."""
    from .returns_view import realised_returns, returns_picture
    from .video import save_picture

    paid, fell = np.array(rollout.rewards, dtype=float), len(rollout.rewards) < task.episode_steps
    if fell:
        paid[-1] -= task.fall_penalty  # as the return model was taught
    realised = realised_returns(paid, task.discount, ended=fell)
    steps = np.array(rollout.plan_steps)
    save_picture(
        path, returns_picture(expected_returns(planner, rollout), realised[steps], steps=steps, title=task.name)
    )
