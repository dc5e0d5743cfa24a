"""Table and picture of how cost grows, made from its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from diffplan.envs.colours import AGENT, FREE, GOAL, GREY, INK, START, VIA

from .maze_gallery import WIDTH, WORDS, new_figure
from .maze_plots import save_picture

PANELS = {
    "horizon": "tokens per plan",
    "candidates": "candidates per plan",
    "environments": "environments side by side",
    "data": "steps of data",
}
COLOURS = (START, VIA, AGENT, GOAL)
TALL = 300  # pixels of a row of panels


def growth_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first): what was measured at the smallest and the largest size, and how it grows."""
    rows = []
    for growth in report["growths"]:
        first, last = growth["rows"][0], growth["rows"][-1]
        ends = [f"{row['size']:,}: {_amount(growth['what'], row['median'])}" for row in (first, last)]
        rows.append(
            [growth["of"], growth["what"], *ends, f"{growth['slope']:.2f}", f"{growth['slope_of_larger_half']:.2f}"]
        )
    return [["of", "", "smallest", "largest", "slope", "of the larger half"], *rows]


def save_growth(report: dict[str, Any], folder: Path) -> Path:
    """Write growth.png into a folder."""
    path = folder / "growth.png"
    save_picture(growth_figure(report), path)
    return path


def growth_figure(report: dict[str, Any]) -> Figure:
    """A panel for each of the four sizes: times as much as at the smallest; both axes logarithmic."""
    figure = new_figure(WIDTH, 2 * TALL, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    for i, (of, label) in enumerate(PANELS.items()):
        axes = figure.add_subplot(2, 2, i + 1)
        growths = [g for g in report["growths"] if g["of"] == of]
        for colour, growth in zip(COLOURS, growths, strict=False):
            _draw(axes, growth, colour)
        sizes = [row["size"] for row in growths[0]["rows"]]
        linear = np.array(sizes) / sizes[0]
        axes.plot(sizes, linear, color=GREY, linestyle=(0, (4, 2)), linewidth=1.2, label="linear")
        dress(axes, sizes)
        axes.set_xlabel(label, fontsize=8.5, color=INK)
        if i % 2 == 0:
            axes.set_ylabel("times as much as at the smallest", fontsize=8.5, color=INK)
    return figure


def _draw(axes: Axes, growth: dict[str, Any], colour: str) -> None:
    """Medians with the range of all turns."""
    rows = growth["rows"]
    values = np.array([row["median"] for row in rows]) / rows[0]["median"]
    ends = np.array([(min(row["all"]), max(row["all"])) for row in rows]).T / rows[0]["median"]
    look: Any = {"color": colour, "elinewidth": 1.2, "capsize": 2.5, "markersize": 4.5, "linewidth": 1.2}
    label = f"{growth['what']}, slope {growth['slope']:.2f}"
    axes.errorbar([row["size"] for row in rows], values, np.abs(ends - values), fmt="o-", label=label, zorder=3, **look)


def dress(axes: Axes, sizes: list[int]) -> None:
    """Scales and words of a panel over sizes, both axes logarithmic."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8, labelcolor=INK, color=GREY, length=3)
    axes.set_facecolor(FREE)
    axes.grid(color="white", linewidth=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(loc="upper left", **WORDS)


def _short(value: float) -> str:
    """As few digits as tell it: 1000 as 1k, a million as 1M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit and value % (unit / 10) == 0:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _amount(what: str, value: float) -> str:
    if what.startswith("MiB"):
        return f"{value:.0f} MiB"
    return f"{1000 * value:.3g} ms"
