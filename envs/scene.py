"""One figure of a film: a page that is drawn once, and layers over it.

Shape letters: T steps, O observations, P positions, n points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from diffplan.planner.guides.marks import Mark, Spot

from .colours import AGENT, FREE, GOAL, INK, START, VIA, WALL
from .lettering import shorten, shrink
from .maze import BALL_RADIUS
from .outlines import corners, patch_of
from .shades import Array, Shades
from .tasks import Task
from .video import Picture

Layer = list[Any]  # one matplotlib artist per panel

DPI, PICTURE_SCALE = 100, 2
SIDE, TITLE, FOOT, EDGE, BAR = 440, 34, 30, 14, 58  # pixels: view, bands above and below, margins, colour bar


class Scene:
    """One figure: a page drawn once, and layers (one artist per panel) that are drawn over it for every shot.

    Args:
        task: its maze, or else what is `seen`, decides the limits.
        seen: (n, O) observations that the panels must show.
        seconds: the end of the time.
        title: a few words; cut short, with an ellipsis, where they do not fit.
        shades: what the trail's colour tells; None for the time.
        marks: what guides asked for, seen from above: discs and boxes in red, spots among the `landmarks`.
        goal: (P,), to be in view.
        scale: pixels per pixel of a frame.
    """

    def __init__(
        self,
        task: Task,
        seen: Array,
        seconds: float,
        *,
        title: str,
        shades: Shades | None = None,
        marks: Sequence[Mark] = (),
        goal: ArrayLike | None = None,
        scale: int = 1,
    ) -> None:
        self.task, self.marks = task, marks
        self.shades = shades or Shades(max(float(seconds), 1e-9))
        self.position = task.spec.position_indices
        self.maze = getattr(task, "maze", None)
        self.above = len(self.position) == 2
        self._drawn_over: list[Any] = []
        self._page: Any = None
        if self.above:
            marked: list[ArrayLike] = [seen[:, self.position], *map(corners, marks)]
            marked += [] if goal is None else [goal]
            self.panels = [self._view_from_above(np.concatenate([np.reshape(m, (-1, 2)) for m in marked]), scale)]
            for patch in filter(None, map(patch_of, marks)):
                self.panels[0].add_patch(patch)
        else:
            self.panels = self._views_over_time(seen, max(float(seconds), self.shades.top), goal, scale)
        headline = self._write(title, EDGE, self.height - TITLE / 2, fontsize=10.5, parse_math=False)
        shorten(headline, (self.width - 2 * EDGE) * scale)

    def _new_figure(self, width: float, height: float, scale: int) -> None:
        self.width, self.height = (int(np.ceil(v / 2)) * 2 for v in (width, height))
        inches = ((self.width + 1e-3) / DPI, (self.height + 1e-3) / DPI)  # Agg truncates to whole pixels
        self.figure = Figure(figsize=inches, dpi=DPI * scale, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at pixels of the figure."""
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.tick_params(length=0, labelsize=7.5, labelcolor=INK, pad=3)
        axes.set_facecolor(FREE)
        for side in axes.spines.values():
            side.set_visible(False)
        return axes

    def _write(self, words: str, x: float, y: float, **look: Any) -> Text:
        """Words at pixels of the figure, centred on a height."""
        return self.figure.text(x / self.width, y / self.height, words, color=INK, va="center", **look)

    def _view_from_above(self, marked: Array, scale: int) -> Axes:
        """One panel with equal aspect: the maze, or the box around all that is marked (n, 2)."""
        if self.maze is not None:
            left, right, bottom, top = self.maze.extent
            margin = -0.6 * self.maze.cell_metres * _is_walled_in(self.maze.walls)  # a rim of them is enough
        else:
            (left, bottom), (right, top) = marked.min(axis=0), marked.max(axis=0)
            margin = 0.08 * max(right - left, top - bottom, 1e-6)
        left, right, bottom, top = left - margin, right + margin, bottom - margin, top + margin
        wide, tall = max(right - left, (top - bottom) / 2), max(top - bottom, (right - left) / 2)
        pixels = self.pixels_per_unit = min(SIDE / tall, 1.4 * SIDE / wide)
        inset = (0, 0) if self.maze is not None else (22, 14)  # room for the numbers of the axes
        self._new_figure(wide * pixels + EDGE + BAR + inset[0], tall * pixels + TITLE + FOOT + inset[1], scale)
        axes = self._axes(EDGE + inset[0], FOOT + inset[1], wide * pixels, tall * pixels)
        axes.set(
            xlim=((left + right - wide) / 2, (left + right + wide) / 2),
            ylim=((bottom + top - tall) / 2, (bottom + top + tall) / 2),
            autoscale_on=False,
        )
        if self.maze is not None:
            axes.set(xticks=[], yticks=[])
            colours = ListedColormap([FREE, WALL])
            axes.imshow(
                self.maze.walls,
                extent=self.maze.extent,
                cmap=colours,
                vmin=0,
                vmax=1,
                interpolation="nearest",
                aspect="auto",
            )
        self._colour_bar(EDGE + inset[0] + wide * pixels + 14, FOOT + inset[1], tall * pixels)
        return axes

    def _colour_bar(self, left: float, bottom: float, height: float) -> None:
        """The shades with their unit; a limit is a line through them."""
        bar, shades = self._axes(left, bottom + 0.25 * height, 7, 0.5 * height), self.shades
        bar.imshow(np.linspace(1, 0, 256)[:, None], extent=(0, 1, 0, shades.top), cmap=shades.colours, aspect="auto")
        bar.yaxis.tick_right()
        ticks = np.asarray(MaxNLocator(4).tick_values(0, shades.top))
        ticks = ticks[(ticks >= 0) & (ticks <= shades.top)]
        bar.set(xticks=[], xlim=(0, 1), ylim=(0, shades.top), autoscale_on=False)
        bar.set_title(shades.unit, fontsize=8, color=INK, pad=4)
        if shades.limit is not None and shades.limit <= shades.top:
            ticks = ticks[np.abs(ticks - shades.limit) > 0.06 * shades.top]  # its own label needs the room
            bar.plot([-0.4, 1.4], [shades.limit] * 2, color=INK, linewidth=1.6, solid_capstyle="butt", clip_on=False)
            look: Any = {"fontsize": 7.5, "weight": "bold", "color": INK, "va": "center_baseline"}
            words = bar.text(1.7, shades.limit, f"≤{shades.limit:.3g}", **look)
            shrink(words, self.figure.bbox.width * (1 - 2 / self.width) - words.get_window_extent().x0)
        bar.set_yticks(ticks)

    def _views_over_time(self, seen: Array, end: float, goal: ArrayLike | None, scale: int) -> list[Axes]:
        """A panel per observation against time in seconds, three to a row; goals as golden lines."""
        names, wide, tall, gap = self.task.spec.observation_names, 190, 88, 42
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        self._new_figure(columns * (wide + gap) + EDGE + 12, rows * (tall + gap) + TITLE + FOOT, scale)
        self._write("time in s", self.width - EDGE, FOOT / 2, fontsize=8, ha="right")
        panels = []
        for i, name in enumerate(names):
            row, column = divmod(i, columns)
            left, bottom = EDGE + gap / 2 + column * (wide + gap), FOOT + gap / 2 + (rows - 1 - row) * (tall + gap)
            axes = self._axes(left, bottom, wide, tall)
            low, high = seen[:, i].min(), seen[:, i].max()
            margin = 0.12 * max(high - low, 1e-6)
            axes.set(xlim=(0, end), ylim=(low - margin, high + margin))
            axes.set_title(name, fontsize=8, color=INK, loc="left", pad=3)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            panels.append(axes)
        for column, value in zip(self.position, np.ravel(() if goal is None else goal), strict=False):
            panels[column].axhline(value, color=GOAL, linewidth=1.5)
        return panels

    def points(self, observations: Array, seconds: Array) -> list[Array]:
        """Observations (..., n, O) at times (n,) as points (..., n, 2), one array per panel."""
        if self.above:
            return [observations[..., self.position]]
        time = np.broadcast_to(seconds, observations.shape[:-1])
        return [np.stack([time, observations[..., i]], axis=-1) for i in range(len(self.panels))]

    def trail(self) -> Layer:
        """A layer for one path that takes its colour from the shades."""
        look: Any = {"cmap": self.shades.colours, "norm": self.shades.norm, "linewidths": 3.4 if self.above else 2.0}
        return self._layer(
            lambda axes: axes.add_collection(LineCollection([], capstyle="round", snap=False, **look), autolim=False)
        )

    def strokes(self, colour: str, *, width: float) -> Layer:
        """A layer for any number of plain paths."""
        return self._layer(
            lambda axes: axes.add_collection(
                LineCollection([], colors=colour, linewidths=width, capstyle="round"), autolim=False
            )
        )

    def cloud(self) -> Layer:
        """A layer for points that take their colour from the shades."""
        cmap, norm = self.shades.colours, self.shades.norm
        return self._layer(lambda axes: axes.scatter([], [], s=15, c=[], cmap=cmap, norm=norm, linewidths=0))

    def ball(self) -> Layer:
        """A layer for the agent, drawn at least large enough to be seen."""
        pixels = 2 * BALL_RADIUS * self.pixels_per_unit if self.maze is not None else 0.0
        return self._dots("o", max(9.0, pixels * 72 / DPI), AGENT)

    def label(self) -> Text:
        """Words below the view; `set_text` them."""
        text = self._write("", EDGE, FOOT / 2, fontsize=9.5, animated=True)
        self._drawn_over.append(text)
        return text

    def landmarks(self, start: ArrayLike | None, goal: ArrayLike | None) -> None:
        """A circle at the start, (P,) or (O,), a star at the goal (P,), diamonds at spots; seen from above only."""
        if not self.above:
            return
        here = np.ravel([] if start is None else np.asarray(start, dtype=float))
        here = here[self.position] if len(here) == len(self.task.spec.observation_names) else here
        spots = [(mark.x, mark.y) for mark in self.marks if type(mark) is Spot]
        for points, look in ((spots, ("D", 8.0, VIA)), (here, ("o", 11.0, START)), (goal, ("*", 19.0, GOAL))):
            if points is not None and np.size(points):
                dots = self._dots(*look)
                dots[0].set_data(*np.reshape(points, (-1, 2)).T)

    def _dots(self, marker: str, size: float, colour: str) -> Layer:
        edge, width = (INK, 0.9) if marker == "*" else ("white", 1.4)
        return self._layer(
            lambda axes: axes.plot(
                [], [], marker, ms=size, mfc=colour, mec=edge, mew=width, scalex=False, scaley=False, clip_on=False
            )[0]
        )

    def _layer(self, make: Callable[[Axes], Any]) -> Layer:
        layer = [make(axes) for axes in self.panels]
        for artist in layer:
            artist.set_animated(True)
        self._drawn_over += layer
        return layer

    def draw_trail(self, layer: Layer, observations: Array, seconds: Array) -> None:
        """One path, observations (n, O) at times (n,)."""
        values = self.shades.values(observations, seconds)
        for artist, points in zip(layer, self.points(observations, seconds), strict=True):
            artist.set_segments(np.stack([points[:-1], points[1:]], axis=1))
            artist.set_array((values[:-1] + values[1:]) / 2)

    def draw_strokes(self, layer: Layer, paths: Iterable[tuple[Array, Array]], *, alpha: float = 1.0) -> None:
        """Any number of paths, observations (n, O) and times (n,) each."""
        every = [self.points(*path) for path in paths]
        for i, artist in enumerate(layer):
            artist.set_segments([path[i] for path in every])
            artist.set_alpha(alpha)

    def draw_cloud(self, layer: Layer, observations: Array, seconds: Array) -> None:
        """Points, observations (K, n, O) at times (n,)."""
        for artist, points in zip(layer, self.points(observations, seconds), strict=True):
            artist.set_offsets(points.reshape(-1, 2))
            artist.set_array(np.tile(seconds, len(observations)))

    def draw_ball(self, layer: Layer, observation: Array, second: float) -> None:
        """The agent at one observation (O,)."""
        for artist, points in zip(layer, self.points(observation[None], np.array([second])), strict=True):
            artist.set_data(*points.T)

    def shot(self) -> Picture:
        """The page with all layers as they are now, (h, w, 3)."""
        if self._page is None:
            self.canvas.draw()
            self._page = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._page)
        for artist in self._drawn_over:
            artist.draw(self.canvas.get_renderer())
        return np.ascontiguousarray(np.asarray(self.canvas.buffer_rgba())[..., :3])

    @staticmethod
    def beside(picture: Picture, shot: Picture) -> Picture:
        """A simulator's picture (h, w, 3) to the left of a shot, as high as the view in it."""
        height = len(shot) - TITLE - FOOT
        width = max(2, round(picture.shape[1] * height / picture.shape[0] / 2) * 2)
        scaled = Image.fromarray(np.asarray(picture)).resize((width, height), Image.Resampling.LANCZOS)
        page = np.full((len(shot), width + EDGE, 3), 255, np.uint8)
        page[TITLE : TITLE + height, EDGE:] = scaled
        return np.concatenate([page, shot], axis=1)


def _is_walled_in(walls: NDArray[np.bool_]) -> bool:
    return bool(walls[[0, -1]].all() and walls[:, [0, -1]].all())
