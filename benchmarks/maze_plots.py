"""Pictures of the mazes' benchmark, made from its JSON: scores against settings, beside the gallery's."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from diffplan.envs.colours import FREE, GOAL, GREY, INK, START, VIA
from diffplan.envs.tasks import find_task

from .maze_gallery import FOOT, WIDTH, WORDS, gallery_figure, new_figure
from .maze_report import BOUND, CONTROLLER, Row, in_order, row_of

SWEEPS = {
    "replan_every": "environment steps between plans",
    "candidates": "candidates per plan",
    "training_minutes": "training time in minutes",
}
COLUMNS, TALL = 3, 215  # panels in a row of sweeps, pixels of its height


def save_plots(report: Row, folder: Path) -> list[Path]:
    """Write maze-sweeps.png and maze-gallery.png into a folder; those that the report has nothing for are left out."""
    made: dict[str, Callable[[Row], Figure | None]] = {"maze-sweeps": sweeps_figure, "maze-gallery": gallery_figure}
    paths = []
    for name, make in made.items():
        if (figure := make(report)) is not None:
            paths.append(folder / f"{name}.png")
            save_picture(figure, paths[-1])
    return paths


def save_picture(figure: Figure, path: Path) -> None:
    """As a PNG of 256 colours: a third of the bytes, and no difference to see."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    few = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def sweeps_figure(report: Row) -> Figure | None:
    """Strict score against each swept setting, a panel per task and setting; None without sweeps."""
    panels = _sweeps(report)
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    spare = rows * columns - len(panels)  # where the legend goes, else below
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = new_figure(WIDTH * max(columns, 2) / COLUMNS, rows * TALL + FOOT * (not spare), layout=layout)
    drawn = [figure.add_subplot(rows, columns, i + 1) for i in range(len(panels))]
    for axes, (task, name, points) in zip(drawn, panels, strict=True):
        _draw_sweep(axes, points, _places(task, name, points), SWEEPS[name])
        _draw_references(axes, report, task)
        axes.set_title(task, fontsize=9, color=INK, loc="left")
    for _, same in itertools.groupby(zip(drawn, panels, strict=True), key=lambda pair: pair[1][0]):
        _share_heights([axes for axes, _ in same])
    for axes in drawn[::columns]:
        axes.set_ylabel("strict score", fontsize=8.5, color=INK)
    handles = list({h.get_label(): h for axes in drawn for h in axes.get_legend_handles_labels()[0]}.values())
    if spare:
        beside = figure.add_subplot(rows, columns, len(panels) + 1, frameon=False, xticks=[], yticks=[])
        beside.legend(handles=handles, loc="center left", labelspacing=0.9, **WORDS)
    else:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), **WORDS)
    return figure


def _sweeps(report: Row) -> list[tuple[str, str, list[Row]]]:
    """Task, setting and its points in order of the setting, task by task."""
    swept = report.get("sweeps") or {}
    found = {
        (row["task"], name): [r for r in swept[name] if r["task"] == row["task"] and r.get("score_strict") is not None]
        for name in SWEEPS
        for row in swept.get(name) or []
    }
    keys = [(task, name) for task in in_order({task for task, _ in found}) for name in SWEEPS]
    return [(*key, sorted(found[key], key=lambda row: float(row["value"]))) for key in keys if found.get(key)]


def _places(task: str, name: str, points: Sequence[Row]) -> list[tuple[float, str]]:
    """Where points stand, and what their ticks say: replanning less than once an episode is never replanning."""
    never = find_task(task).episode_steps if name == "replan_every" else math.inf
    values = [float(row["value"]) for row in points]
    return [(min(v, never), "never" if v >= never else f"{round(v, 1):g}") for v in values]


def _draw_sweep(axes: Axes, points: Sequence[Row], places: Sequence[tuple[float, str]], label: str) -> None:
    """Scores with their 95% intervals over a setting, on a logarithmic scale where that is possible."""
    values, told = [place for place, _ in places], dict(places)
    halves = [row.get("score_strict_ci95") or 0.0 for row in points]
    look: Any = {"color": START, "ecolor": START, "elinewidth": 1.2, "capsize": 2.5, "markersize": 4.5}
    scores = [row["score_strict"] for row in points]
    axes.errorbar(values, scores, halves, fmt="o-", linewidth=1.2, label="diffplan, 95% interval", zorder=3, **look)
    if min(values) > 0:
        axes.set_xscale("log", base=2)
        axes.margins(x=0.09)
    axes.xaxis.set_major_locator(FixedLocator(_apart(values)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: told[value]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label, fontsize=8.5, color=INK)
    axes.tick_params(labelsize=8, labelcolor=INK, color=GREY, length=3)
    axes.set_facecolor(FREE)
    axes.grid(axis="y", color="white", linewidth=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _apart(values: Sequence[float]) -> list[float]:
    """Those of ascending values whose labels do not run into each other's."""
    places = np.log2(values) if min(values) > 0 else np.asarray(values)
    kept = [0]
    for i in range(1, len(values)):
        if places[i] - places[kept[-1]] >= 0.09 * (places[-1] - places[0]) > 0:
            kept.append(i)
    return [values[i] for i in kept]


def _draw_references(axes: Axes, report: Row, task: str) -> None:
    """The bound and the waypoint controller as lines across a panel."""
    for method, colour, style in ((BOUND, GOAL, "-"), (CONTROLLER, VIA, (0, (4, 2)))):
        score = row_of(report, task, method).get("score_strict")
        if score is not None:
            axes.axhline(score, color=colour, linestyle=style, linewidth=1.8, label=method, zorder=2)  # type: ignore


def _share_heights(panels: Sequence[Axes]) -> None:
    """One scale of scores for the panels of a task."""
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
