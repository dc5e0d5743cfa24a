"""Plans and executed episodes of the Fetch arm, drawn by MuJoCo: the paths of gripper and object in space.

`backend.use_backend` comes first: mujoco, imported here only to draw, reads its backend once.

Shape letters: T steps, O observations, Q generalised positions, n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.guides.marks import Mark
from diffplan.planner.plan import Plan

from .arm_stage import ArmStage
from .colours import AGENT, GREY, START, VIA
from .lettering import write_key
from .references import planned_observations
from .render import HELD_FRAMES, drawn_steps, held_so_far, progress
from .robot_view import Page
from .scene import EDGE, FOOT, PICTURE_SCALE
from .tasks import ArmTask
from .tasks.arms import GRIP, OBJECT
from .video import Picture

Array = NDArray[np.floating[Any]]

WIDTH, HEIGHT = 480, 400  # pixels of a frame
THICK, SLIM = 0.0045, 0.003  # metres, radii of the object's path and of the gripper's
RIVALS = 15  # candidates beside the chosen one that are drawn


def plan_picture(
    task: ArmTask, plan: Plan, *, goal: ArrayLike | None, marks: Sequence[Mark] = (), title: str = ""
) -> Picture:
    """The arm where the plan begins, what is planned of gripper and object, and rival candidates in thin grey.

    Args:
        task: what was planned.
        plan: candidate 0 is the chosen one.
        goal: (3,) position, in a ball of what counts as there.
        marks: what guides asked for.
        title: a few words; cut short, with an ellipsis, where they do not fit.

    Returns:
        (h, w, 3), twice the size of a frame.
    """
    page = _page(task, title, PICTURE_SCALE)
    with ArmStage(task, *page.room) as stage:
        _stand(stage, stage.postures.poses(planned_observations(plan)[:1])[0], goal, marks)
        _add_plan(stage, plan)
        return page.shot(stage.shot(), f"{plan.steps} steps   {plan.duration_seconds:.2f} s", "")


def plan_frames(
    task: ArmTask,
    plan: Plan,
    *,
    goal: ArrayLike | None,
    marks: Sequence[Mark] = (),
    title: str = "",
    count: int = 40,
) -> Iterator[Picture]:
    """`plan_picture` as a film of `count` frames (h, w, 3): the arm follows its plan; the last frame is held."""
    page, rows = _page(task, title), planned_observations(plan)
    with ArmStage(task, *page.room) as stage:
        poses = stage.postures.poses(rows)
        for step in np.linspace(0, len(rows) - 1, count).round().astype(int):
            _stand(stage, poses[step], goal, marks)
            _add_plan(stage, plan)
            frame = page.shot(stage.shot(), f"{step * plan.spec.dt_seconds:.2f} s", "")
            yield frame
    yield from [frame] * HELD_FRAMES


def arm_frames(
    task: ArmTask,
    poses: ArrayLike,
    states: ArrayLike,
    plans_at: Callable[[int], ArrayLike | None],
    *,
    goal: ArrayLike | None,
    marks: Sequence[Mark] = (),
    every: int = 1,
    title: str = "",
) -> Iterator[Picture]:
    """An executed episode: the simulator as it was, the way so far, and what was planned of the way ahead.

    Args:
        task: what was executed.
        poses: (T + 1, Q) of the simulator.
        states: (T + 1, O) observations.
        plans_at: observations (n, O) of the plan in force at a step, the present first, one for each environment step;
            None for nothing.
        goal, marks, title: as in `plan_picture`.
        every: steps from one frame to the next.

    Yields:
        (h, w, 3); the last frame is held.
    """
    poses, states = np.asarray(poses, dtype=float), np.asarray(states, dtype=float)
    page = _page(task, title, executed=True)
    words = [""] if goal is None or not np.size(goal) else held_so_far(task, states, goal)
    tell = progress(task, len(states) - 1, words)
    with ArmStage(task, *page.room) as stage:
        for step in drawn_steps(len(states) - 1, every):
            _stand(stage, poses[step], goal, marks)
            ahead = plans_at(step)
            if ahead is not None:
                _add_ways(stage, np.asarray(ahead, dtype=float))
            for _, points in _paths(task, states[: step + 1]):
                stage.add_way(points, START, radius=SLIM)
            frame = page.shot(stage.shot(), tell(step), "")
            yield frame
    yield from [frame] * HELD_FRAMES


def _page(task: ArmTask, title: str, scale: int = 1, *, executed: bool = False) -> Page:
    """A page that tells what the colours mean."""
    page = Page(WIDTH, HEIGHT, title, scale=scale)
    words = {"gripper": VIA} | ({"object": AGENT} if task.has_object else {}) | ({"so far": START} if executed else {})
    write_key(page.figure, words, scale * (WIDTH - EDGE), scale * FOOT / 2, from_right=True)
    return page


def _stand(stage: ArmStage, pose: Array, goal: ArrayLike | None, marks: Sequence[Mark]) -> None:
    """Begin a picture of the arm in a pose (Q,), with what was asked for."""
    stage.show(pose)
    stage.add_marks(marks)
    if goal is not None and np.size(goal):
        stage.add_goal(goal)


def _add_plan(stage: ArmStage, plan: Plan) -> None:
    """The chosen candidate, and its rivals."""
    for rival in range(1, min(len(plan.arrivals), 1 + RIVALS)):
        for _, points in _paths(stage.task, planned_observations(plan, rival)):
            stage.add_thread(points, GREY)
    _add_ways(stage, planned_observations(plan))


def _add_ways(stage: ArmStage, rows: Array) -> None:
    """What observations (n, O) of a plan ask of the gripper and of the object."""
    for colour, points in _paths(stage.task, rows):
        stage.add_way(points, colour, radius=THICK if colour == AGENT else SLIM)


def _paths(task: ArmTask, rows: Array) -> list[tuple[str, Array]]:
    """The colour and places (n, 3) of the gripper, and of the object where there is one, in observations (n, O)."""
    names = task.spec.observation_names
    things = [(VIA, GRIP), (AGENT, OBJECT)] if task.has_object else [(VIA, GRIP)]
    return [(colour, rows[:, [names.index(n) for n in place]]) for colour, place in things]
