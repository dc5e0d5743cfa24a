"""Plan against execution: every coordinate of what has a place, over time.

Shape letters: T steps, O observations, P positions, n rows of a plan, C coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from .colours import GOAL, INK, START, VIA
from .lettering import write_key
from .scene import EDGE, FOOT, PICTURE_SCALE, Scene
from .tasks import ArmTask
from .tasks.arms import FINGERS, WITHIN
from .video import Picture

Array = NDArray[np.floating[Any]]

NARROWEST = 0.02  # metres that a panel shows at least: what stands still looks still
OPEN = 0.05  # metres of a finger that is wide open
KEY = {"executed": START, "planned": VIA, "goal, within 5 cm": GOAL, "when it planned": INK}


def coordinates(task: ArmTask) -> list[str]:
    """The observations (C,) that tell where things are: of the position, of the bodies, of the fingers."""
    places = [name for point in (task.spec.position, *task.spec.bodies) for name in point]
    return places + [name for name in FINGERS if name in task.spec.observation_names]


def coordinates_picture(
    task: ArmTask,
    states: ArrayLike,
    plan_steps: Sequence[int],
    plans: Sequence[ArrayLike],
    *,
    goal: ArrayLike | None,
    title: str = "",
) -> Picture:
    """A panel for each coordinate: what was executed, and each plan from where it was made.

    Args:
        task: what was executed.
        states: (T + 1, O) observations.
        plan_steps: steps at which it planned.
        plans: observations (n, O) of each plan, one for each environment step, until it arrives.
        goal: (P,) position: a dashed line, in the band of what counts as there.
        title: a few words; cut short, with an ellipsis, where they do not fit.

    Returns:
        (h, w, 3)
    """
    return coordinates_scene(task, states, plan_steps, plans, goal=goal, title=title).shot()


def coordinates_scene(
    task: ArmTask,
    states: ArrayLike,
    plan_steps: Sequence[int],
    plans: Sequence[ArrayLike],
    *,
    goal: ArrayLike | None,
    title: str = "",
) -> Scene:
    """What `coordinates_picture` is a picture of."""
    states, rows = np.asarray(states, dtype=float), [np.asarray(p, dtype=float) for p in plans]
    scene, chosen = _scene(task, states, plan_steps, rows, goal, title)
    times = [(step + np.arange(len(row))) * task.spec.dt_seconds for step, row in zip(plan_steps, rows, strict=True)]
    ahead = [(row[:, chosen], time) for row, time in zip(rows, times, strict=True)]
    scene.draw_strokes(scene.strokes(VIA, width=0.8), ahead, alpha=0.7)
    seconds = np.arange(len(states)) * task.spec.dt_seconds
    scene.draw_strokes(scene.strokes(START, width=1.8), [(states[:, chosen], seconds)])
    for axes in scene.panels:
        _mark_replans(axes, np.array(plan_steps) * task.spec.dt_seconds)
    _mark_goal(scene.panels, goal)
    return scene


def _scene(
    task: ArmTask, states: Array, plan_steps: Sequence[int], rows: Sequence[Array], goal: ArrayLike | None, title: str
) -> tuple[Scene, list[int]]:
    """Empty panels with room for all, and which of the observations (O,) they show."""
    names = coordinates(task)
    chosen = [task.spec.observation_names.index(name) for name in names]
    spec = replace(task.spec, observation_names=tuple(names), position=(), velocity=(), rates=(), bodies=(), stride=1)
    ends = [step + len(row) - 1 for step, row in zip(plan_steps, rows, strict=True)]
    end = max(len(states) - 1, *ends) * spec.dt_seconds
    seen = np.concatenate([states[:, chosen], *(row[:, chosen] for row in rows)])
    scene = Scene(replace(task, spec=spec), _with_room(names, seen, goal), end, title=title, scale=PICTURE_SCALE)
    write_key(scene.figure, KEY, PICTURE_SCALE * EDGE, PICTURE_SCALE * FOOT / 2)
    for axes in scene.panels:
        axes.set_title(f"{axes.get_title(loc='left')} in m", fontsize=8, loc="left", pad=3)
    return scene, chosen


def _with_room(names: Sequence[str], seen: Array, goal: ArrayLike | None) -> Array:
    """Coordinates (n, C) with rows that make every panel wide enough, and show the goal's band."""
    middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
    rows = [seen, np.stack([middle - NARROWEST / 2, middle + NARROWEST / 2])]
    rows.append(np.where(np.isin(names, FINGERS), np.array([[0.0], [OPEN]]), middle))
    if goal is not None and np.size(goal):
        band = np.tile(middle, (2, 1))
        band[:, : np.size(goal)] = np.ravel(goal) + np.array([[-WITHIN], [WITHIN]])  # positions come first
        rows.append(band)
    return np.concatenate(rows)


def _mark_goal(panels: Sequence[Axes], goal: ArrayLike | None) -> None:
    for axes, value in zip(panels, np.ravel(() if goal is None else goal), strict=False):
        axes.axhspan(value - WITHIN, value + WITHIN, color=GOAL, alpha=0.2, linewidth=0)
        axes.axhline(value, color=GOAL, linewidth=1.5, linestyle=(0, (4, 2)))


def _mark_replans(axes: Axes, seconds: Array) -> None:
    """Ticks on the lower edge at times (n,)."""
    lower_edge = axes.get_xaxis_transform()
    axes.plot(seconds, np.zeros(len(seconds)), "|", color=INK, ms=9, mew=0.8, transform=lower_edge)
