"""The gallery of the mazes' benchmark: what was planned, what was driven, and the fastest way, seen from above.

Drawn at twice the size at which a README shows it. Shape letters: n points of a path.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from diffplan.envs.colours import AGENT, FREE, INK, START, VIA, WALL
from diffplan.envs.maze import MazeMap
from diffplan.envs.tasks import MazeTask, find_task

from .maze_report import Row, in_order

WIDTH, DPI, SCALE = 830, 100, 2  # pixels of a README's column; inches are pixels / DPI, drawn SCALE times as fine

WORDS: Any = {"fontsize": 8.5, "frameon": False, "labelcolor": INK, "handlelength": 2.2, "columnspacing": 2}

PAIR_COLOURS, NEUTRAL = (AGENT, VIA, START, "#3a86c8"), "#7d8894"  # of a panel's start-goal pairs, and of the legend
CROWDED = 0.8  # of a pair's cells, in other pairs' ways: then it is one pair too many
ON_TOP = 0.5  # metres between marks of two pairs, below which one hides the other
GAP, HEAD, FOOT, HIGHEST = 12, 24, 34, 430  # pixels: between panels, a panel's title, the legend, a lone panel

ROLES: dict[str, tuple[str, dict[str, Any]]] = {
    "driven": ("driven", {"linewidth": 4.0, "alpha": 0.45, "solid_capstyle": "round"}),
    "course": ("course", {"linewidth": 4.0, "alpha": 0.45, "solid_capstyle": "round"}),
    "plan": ("plan", {"linewidth": 1.0}),
    "fastest": ("time-optimal", {"linewidth": 1.1, "linestyle": (0, (4, 2))}),
}
"""How a path is called and drawn; a course only where nothing was driven."""

MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "start": ("start", {"marker": "o", "markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 1.0}),
    "goal": ("goal", {"marker": "*", "markersize": 12, "markeredgecolor": INK, "markeredgewidth": 0.7}),
}

GOAL_RADIUS, REACHED = 0.5, {"alpha": 0.16, "linewidth": 0}  # metres that count as there, under the protocol


def gallery_figure(report: Row) -> Figure | None:
    """A panel per maze with what was planned, what was driven and the fastest way; None without a gallery."""
    gallery = report.get("gallery") or {}
    shown = {task: _chosen(_maze(task), gallery[task]) for task in in_order(gallery) if gallery[task]}
    if not shown:
        return None
    boxes, below = _boxes({task: _shape(_maze(task)) for task in shown})
    figure = new_figure(WIDTH, below + FOOT)
    for task, (x, y, w, h) in boxes.items():
        axes = figure.add_axes((x / WIDTH, 1 - (y + h) / (below + FOOT), w / WIDTH, h / (below + FOOT)))
        _draw_maze(axes, _maze(task))
        axes.set_title(task, fontsize=9, color=INK, loc="left", pad=5)
        for pair, colour in zip(shown[task], PAIR_COLOURS, strict=False):
            _draw_pair(axes, pair, colour)
    handles = _legend([pair for pairs in shown.values() for pair in pairs])
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), **WORDS)
    return figure


def _chosen(maze: MazeMap, pairs: Sequence[Row]) -> list[Row]:
    """The first pair, then those that share the least with the ones already chosen: lines over lines hide."""
    ways = [{maze.cell(point) for role in ROLES for point in pair.get(role) or []} for pair in pairs]

    def crowding(i: int) -> float:
        """Share of a pair's cells that are taken, and one more where marks would stand on marks."""
        marks = [[np.asarray(pairs[j][place][:2]) for place in MARKS if pairs[j].get(place)] for j in (i, *chosen)]
        near = any(np.linalg.norm(one - other) < ON_TOP for one in marks[0] for them in marks[1:] for other in them)
        return len(ways[i] & set().union(*(ways[j] for j in chosen))) / max(len(ways[i]), 1) + near

    chosen, left = [0], list(range(1, len(pairs)))
    while left and len(chosen) < len(PAIR_COLOURS):
        best = min(left, key=crowding)
        if crowding(best) > CROWDED and len(chosen) > 1:
            break
        chosen.append(best)
        left.remove(best)
    return [pairs[i] for i in chosen]


def _boxes(shapes: Mapping[str, float]) -> tuple[dict[str, tuple[float, float, float, float]], float]:
    """Left, top, width and height of each task's panel, a family below the other, and the bottom, in pixels."""
    boxes: dict[str, tuple[float, float, float, float]] = {}
    below = 0.0
    for _, family in itertools.groupby(shapes, key=lambda task: task.split("-")[0]):
        tasks = list(family)
        placed = _arrange([shapes[task] for task in tasks])
        boxes |= {task: (x, below + y, w, h) for task, (x, y, w, h) in zip(tasks, placed, strict=True)}
        below = max(y + h for _, y, _, h in boxes.values()) + GAP
    return boxes, below


def _maze(task: str) -> MazeMap:
    found = find_task(task)
    if not isinstance(found, MazeTask):
        raise ValueError(f"the gallery shows mazes, and {task!r} has none")
    return found.maze


def _view(maze: MazeMap) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what is shown, in metres: of the outer walls a rim is enough."""
    left, right, bottom, top = maze.extent
    cut = 0.6 * maze.cell_metres
    return left + cut, right - cut, bottom + cut, top - cut


def _shape(maze: MazeMap) -> float:
    left, right, bottom, top = _view(maze)
    return (right - left) / (top - bottom)


def _arrange(shapes: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Left, top, width and height in pixels of panels, given width / height: the last beside a column of the others."""
    *column, last = shapes
    if not column:
        wide = min(WIDTH - 2 * GAP, HIGHEST * last)
        return [((WIDTH - wide) / 2, HEAD, wide, wide / last)]
    between = (len(column) - 1) * (GAP + HEAD)
    wide = (WIDTH - 3 * GAP - last * between) / (1 + last * sum(1 / shape for shape in column))
    boxes, top = [], float(HEAD)
    for shape in column:
        boxes.append((float(GAP), top, wide, wide / shape))
        top += wide / shape + GAP + HEAD
    tall = top - GAP - 2 * HEAD
    return [*boxes, (wide + 2 * GAP, float(HEAD), tall * last, tall)]


def _draw_maze(axes: Axes, maze: MazeMap) -> None:
    left, right, bottom, top = _view(maze)
    colours = ListedColormap([FREE, WALL])
    look: Any = {"cmap": colours, "vmin": 0, "vmax": 1, "interpolation": "nearest", "aspect": "auto"}
    axes.imshow(maze.walls, extent=maze.extent, **look)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], autoscale_on=False)
    for side in axes.spines.values():
        side.set_visible(False)


def _roles(pair: Row) -> list[str]:
    """What is drawn of a pair, the thickest first."""
    return [role for role in ROLES if pair.get(role) and not (role == "course" and pair.get("driven"))]


def _draw_pair(axes: Axes, pair: Row, colour: str) -> None:
    """The ways from one start to its goal, in one colour but for the time-optimal one."""
    for role in _roles(pair):
        path = np.asarray(pair[role], dtype=float)  # (n, 2)
        axes.plot(path[:, 0], path[:, 1], color=INK if role == "fastest" else colour, **ROLES[role][1])
    if pair.get("goal"):
        axes.add_patch(Circle(pair["goal"][:2], GOAL_RADIUS, color=colour, **REACHED))
    for place, (_, look) in MARKS.items():
        if pair.get(place):
            axes.plot(*pair[place][:2], linestyle="", color=colour, zorder=5, **look)


def _legend(pairs: Sequence[Row]) -> list[Line2D]:
    """What the lines and marks mean; each pair has a colour of its own, the legend none of them."""
    drawn = {role for pair in pairs for role in _roles(pair)}
    lines = [
        Line2D([], [], color=INK if role == "fastest" else NEUTRAL, label=words, **look)
        for role, (words, look) in ROLES.items()
        if role in drawn
    ]
    marks = [Line2D([], [], color=NEUTRAL, linestyle="", label=words, **look) for words, look in MARKS.values()]
    disc: Any = {"marker": "o", "markersize": 12, "markeredgewidth": 0} | REACHED
    return [*lines, *marks, Line2D([], [], color=NEUTRAL, linestyle="", label=f"within {GOAL_RADIUS:g} m", **disc)]


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A white figure of so many pixels at a README's size."""
    size = [(2 * round(v / 2) + 1e-3) / DPI for v in (width, height)]  # Agg truncates to whole pixels
    figure = Figure(figsize=(size[0], size[1]), dpi=DPI * SCALE, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure
