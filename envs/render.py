"""Pictures and films of plans and rollouts, and the files they are kept in.

A task with a maze, or with two positions, is seen from above; of any other every observation is drawn against time.
Pictures are uint8 (height, width, 3); height and width are even, as video needs.

Shape letters: K candidates, H tokens, T steps, O observations, P positions, D columns of a token, n points.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imageio
import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from diffplan.planner.plan import Plan

from .maze import BALL_RADIUS
from .tasks import Task

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
Points = Sequence[Sequence[float]]
Layer = list[Any]  # one matplotlib artist per panel

WALL, FREE, INK, GREY, AHEAD = "#37424f", "#f5f6f8", "#2b333d", "#aab3bf", "#c3cad3"
GOAL, START, AGENT, AVOID, VIA = "#f5b700", "#46327e", "#e4572e", "#d62839", "#2a9d8f"
TIME_COLOURS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, 256)))

DPI, PICTURE_SCALE = 100, 2
SIDE, TITLE, FOOT, EDGE, BAR = 440, 34, 30, 14, 58  # pixels: view, bands above and below, margins, colour bar
HELD_FRAMES = 10  # repeats of a film's last frame


def plan_picture(
    task: Task, plan: Plan, *, start: ArrayLike | None, goal: ArrayLike | None,
    discs: Points = (), vias: Points = (), title: str = "",
) -> Picture:
    """The chosen plan until it arrives, coloured by time in seconds, over its rival candidates.

    Args:
        task: what was planned.
        plan: candidate 0 is the chosen one.
        start: (P,) position or (O,) observation.
        goal: (P,) position.
        discs: (x, y, radius) each, in position units: places that the plan was asked to avoid.
        vias: (x, y) each, in position units: places that it was asked to pass.
        title: a few words.

    Returns:
        (h, w, 3), twice the size of a frame.
    """
    scene, observations, seconds = _plan_scene(task, plan, discs, vias, goal, title, scale=PICTURE_SCALE)
    scene.draw_trail(scene.trail(), observations, seconds)
    scene.marks(start, goal, vias)
    return scene.shot()


def plan_frames(
    task: Task, plan: Plan, *, start: ArrayLike | None, goal: ArrayLike | None,
    discs: Points = (), vias: Points = (), title: str = "", count: int = 40,
) -> Iterator[Picture]:
    """`plan_picture` as a film of `count` frames (h, w, 3) in which a dot runs along the plan; the last one is held."""
    scene, observations, seconds = _plan_scene(task, plan, discs, vias, goal, title)
    scene.draw_strokes(scene.strokes(AHEAD, width=2.2), [(observations, seconds)])
    trail, label = scene.trail(), scene.label()
    scene.marks(start, goal, vias)
    ball = scene.ball()
    for last in np.linspace(0, len(seconds) - 1, count).round().astype(int):
        scene.draw_trail(trail, observations[: last + 1], seconds[: last + 1])
        scene.draw_ball(ball, observations[last], seconds[last])
        label.set_text(f"{seconds[last]:.2f} s")
        frame = scene.shot()
        yield frame
    yield from [frame] * HELD_FRAMES


def film_frames(
    task: Task, film: Sequence[ArrayLike], *, start: ArrayLike | None, goal: ArrayLike | None,
    discs: Points = (), vias: Points = (), title: str = "", between: int = 3,
) -> Iterator[Picture]:
    """Noise becoming a plan: every token of every candidate, coloured by its time in seconds.

    Args:
        task: what was planned.
        film: n + 1 arrays (K, H, D) in environment units, from noise to plan.
        start, goal, discs, vias, title: as in `plan_picture`.
        between: frames blended in from each step to the next, so that the eye can follow; the label counts true steps.

    Yields:
        (h, w, 3); the last frame is held.
    """
    if not len(film):
        raise ValueError("film is empty: give at least one array (K, H, D)")
    spec, final = task.spec, np.asarray(film[-1], dtype=float)
    steps = [np.asarray(f, dtype=float)[..., spec.observations] for f in film]
    seconds = np.arange(final.shape[1]) * spec.token_seconds
    under_way = np.flatnonzero((final[..., spec.arrived] < 0).any(axis=0))  # the tokens before the last arrival
    end = seconds[min(under_way[-1] + 1, len(seconds) - 1)] if len(under_way) else seconds[-1]
    seen = steps[-1].reshape(-1, steps[-1].shape[-1])
    scene = _Scene(task, seen, end, title=title, discs=discs, goal=goal, vias=vias)
    strokes, cloud, label = scene.strokes(GREY, width=0.8), scene.cloud(), scene.label()
    scene.marks(start, goal, vias)
    for i, step in enumerate(steps):
        before = steps[max(i - 1, 0)]
        for u in np.linspace(0, 1, between + 2)[1:] if i else (1.0,):
            now = (1 - u) * before + u * step
            formed = (i - 1 + u) / (len(steps) - 1) if len(steps) > 1 else 1.0  # lines through noise are a thicket: they come as it clears
            scene.draw_strokes(strokes, [(candidate, seconds) for candidate in now], alpha=formed**3)
            scene.draw_cloud(cloud, now, seconds)
            label.set_text(f"denoising step {i}/{len(steps) - 1}")
            frame = scene.shot()
            yield frame
    yield from [frame] * HELD_FRAMES


def drawn_steps(steps: int, every: int | None = None) -> list[int]:
    """Steps of a rollout of `steps` steps that `rollout_frames` draws: every so many, the first and the last; about 60 by default."""
    every = every or max(1, -(-steps // 60))
    return sorted({*range(0, steps + 1, every), steps})


def rollout_frames(
    task: Task, states: ArrayLike, plans_at: Callable[[int], ArrayLike | None], *, goal: ArrayLike | None,
    frames: Iterable[Picture] | None = None, every: int | None = None, rewards: ArrayLike | None = None,
    discs: Points = (), title: str = "",
) -> Iterator[Picture]:
    """An executed episode: the way so far coloured by time in seconds, the plan in force, the agent as a ball.

    Args:
        task: what was executed.
        states: (T + 1, O) observations.
        plans_at: positions (n, 2) of the plan in force at a step, None for nothing; only drawn seen from above.
        goal: (P,) position.
        frames: pictures (h, w, 3) of the simulator to stand beside the view, one for each of `drawn_steps(T, every)`.
        every: steps from one frame to the next; about 60 frames by default.
        rewards: (T,), summed in the label; without them it counts the steps at the goal.
        discs, title: as in `plan_picture`.

    Raises:
        ValueError: there are fewer simulator pictures than drawn steps.
    """
    states = np.asarray(states, dtype=float)
    seconds = np.arange(len(states)) * task.spec.dt_seconds
    scene = _Scene(task, states, seconds[-1], title=title, discs=discs, goal=goal)
    ahead, trail, label = scene.strokes(GREY, width=2.0), scene.trail(), scene.label()
    scene.marks(states[0], goal)
    ball = scene.ball()
    tell = _progress(task, states, goal, rewards)
    steps, beside = drawn_steps(len(states) - 1, every), None if frames is None else iter(frames)
    for step in steps:
        if scene.above:
            plan = plans_at(step)
            ahead[0].set_segments([] if plan is None else [np.asarray(plan, dtype=float)])
        scene.draw_trail(trail, states[: step + 1], seconds[: step + 1])
        scene.draw_ball(ball, states[step], seconds[step])
        label.set_text(tell(step))
        frame = scene.shot()
        if beside is not None:
            picture = next(beside, None)
            if picture is None:
                raise ValueError(f"frames ended before step {step}; give one for each of the {len(steps)} drawn_steps")
            frame = scene.beside(picture, frame)
        yield frame
    yield from [frame] * HELD_FRAMES


def check_output(path: str | os.PathLike[str], allowed: Sequence[str] = (".png", ".gif", ".mp4", ".json")) -> Path:
    """The path, if a file of an allowed kind can be written there.

    Raises:
        ValueError: unknown suffix, a folder, or a parent folder that is missing or cannot be written.
    """
    out = Path(path)
    if out.is_dir():
        raise ValueError(f"output {out} is a folder; name a file in it, such as {out / ('plan' + allowed[0])}")
    if out.suffix.lower() not in allowed:
        raise ValueError(f"output {out} ends in {out.suffix or 'nothing'!r}; use one of {', '.join(allowed)}")
    if not out.parent.is_dir():
        raise ValueError(f"output {out}: there is no folder {out.parent}; make it first: mkdir -p {out.parent}")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise ValueError(f"output {out}: the folder {out.parent} cannot be written; choose another")
    return out


def save_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture (h, w, 3) as .png, in one piece."""
    out = check_output(path, (".png",))
    _write(out, lambda scratch: Image.fromarray(picture).save(scratch, optimize=True))


def save_video(path: str | os.PathLike[str], frames: Iterable[Picture], *, fps: float) -> None:
    """Write frames (h, w, 3) as .gif (looping) or .mp4, in one piece; `fps` is frames per second.

    A GIF holds a frame that repeats once, for longer, and times frames in hundredths of a second.

    Raises:
        ValueError: no frames, an fps that is not positive, or an output that `check_output` refuses.
    """
    out = check_output(path, (".gif", ".mp4"))
    if not fps > 0:
        raise ValueError(f"fps={fps} must be positive")
    write = _write_gif if out.suffix.lower() == ".gif" else _write_mp4
    _write(out, lambda scratch: write(scratch, frames, fps))


class _Scene:
    """One figure: a page drawn once, and layers (one artist per panel) that are drawn over it for every shot.

    Args:
        task: its maze, or else what is `seen`, decides the limits.
        seen: (n, O) observations that the panels must show.
        seconds: the end of the time colours.
    """

    def __init__(
        self, task: Task, seen: Array, seconds: float, *, title: str, discs: Points = (),
        goal: ArrayLike | None = None, vias: Points = (), scale: int = 1,
    ) -> None:
        self.task, self.norm = task, Normalize(0, max(float(seconds), 1e-9))
        self.position = [task.spec.observation_names.index(n) for n in task.spec.position]
        self.maze = getattr(task, "maze", None)
        self.above = len(self.position) == 2
        self._drawn_over: list[Any] = []
        self._page: Any = None
        if self.above:
            marked = [seen[:, self.position], *vias, *([x + s * r, y + s * r] for x, y, r in discs for s in (-1, 1))]
            marked += [] if goal is None else [goal]
            self.panels = [self._view_from_above(np.concatenate([np.reshape(m, (-1, 2)) for m in marked]), scale)]
            for x, y, radius in discs:
                disc = Circle((x, y), radius, facecolor=AVOID + "38", edgecolor=AVOID, linewidth=1.2)
                self.panels[0].add_patch(disc)
        else:
            self.panels = self._views_over_time(seen, goal, scale)
        self.figure.text(EDGE / self.width, 1 - TITLE / 2 / self.height, title, color=INK, fontsize=10.5, va="center")

    def _new_figure(self, width: float, height: float, scale: int) -> None:
        self.width, self.height = (int(np.ceil(v / 2)) * 2 for v in (width, height))
        inches = ((self.width + 1e-3) / DPI, (self.height + 1e-3) / DPI)  # Agg truncates: stay above the whole pixel
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

    def _view_from_above(self, marked: Array, scale: int) -> Axes:
        """One panel with equal aspect: the maze, or the box around all that is marked (n, 2)."""
        if self.maze is not None:
            left, right, bottom, top = self.maze.extent
            margin = -0.6 * self.maze.cell_metres * _is_walled_in(self.maze.walls)  # of the outer walls a rim is enough
        else:
            (left, bottom), (right, top) = marked.min(axis=0), marked.max(axis=0)
            margin = 0.08 * max(right - left, top - bottom, 1e-6)
        left, right, bottom, top = left - margin, right + margin, bottom - margin, top + margin
        wide, tall = max(right - left, (top - bottom) / 2), max(top - bottom, (right - left) / 2)
        pixels = self.pixels_per_unit = min(SIDE / tall, 1.4 * SIDE / wide)
        inset = (0, 0) if self.maze is not None else (22, 14)  # room for the numbers of the axes
        self._new_figure(wide * pixels + EDGE + BAR + inset[0], tall * pixels + TITLE + FOOT + inset[1], scale)
        axes = self._axes(EDGE + inset[0], FOOT + inset[1], wide * pixels, tall * pixels)
        axes.set(xlim=((left + right - wide) / 2, (left + right + wide) / 2),
                 ylim=((bottom + top - tall) / 2, (bottom + top + tall) / 2), autoscale_on=False)
        if self.maze is not None:
            axes.set(xticks=[], yticks=[])
            axes.imshow(self.maze.walls, extent=self.maze.extent, cmap=ListedColormap([FREE, WALL]), vmin=0, vmax=1,
                        interpolation="nearest", aspect="auto")
        self._colour_bar(EDGE + inset[0] + wide * pixels + 14, FOOT + inset[1], tall * pixels)
        return axes

    def _colour_bar(self, left: float, bottom: float, height: float) -> None:
        bar = self._axes(left, bottom + 0.25 * height, 7, 0.5 * height)
        bar.imshow(np.linspace(1, 0, 256)[:, None], extent=(0, 1, 0, self.norm.vmax), cmap=TIME_COLOURS, aspect="auto")
        bar.yaxis.tick_right()
        bar.yaxis.set_major_locator(MaxNLocator(4))
        bar.set(xticks=[], ylim=(0, self.norm.vmax))
        bar.set_title("s", fontsize=8, color=INK, pad=4)

    def _views_over_time(self, seen: Array, goal: ArrayLike | None, scale: int) -> list[Axes]:
        """A panel per observation against time in seconds, three to a row; goals as golden lines."""
        names, wide, tall, gap = self.task.spec.observation_names, 190, 88, 42
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        self._new_figure(columns * (wide + gap) + EDGE + 12, rows * (tall + gap) + TITLE + FOOT, scale)
        self.figure.text(1 - EDGE / self.width, FOOT / 2 / self.height, "time in s", color=INK, fontsize=8, ha="right")
        panels = []
        for i, name in enumerate(names):
            row, column = divmod(i, columns)
            axes = self._axes(EDGE + gap / 2 + column * (wide + gap), FOOT + gap / 2 + (rows - 1 - row) * (tall + gap), wide, tall)
            low, high = seen[:, i].min(), seen[:, i].max()
            margin = 0.12 * max(high - low, 1e-6)
            axes.set(xlim=(0, self.norm.vmax), ylim=(low - margin, high + margin))
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
        """A layer for one path that takes its colour from time."""
        width = 3.4 if self.above else 2.0
        look = {"cmap": TIME_COLOURS, "norm": self.norm, "linewidths": width, "capstyle": "round", "snap": False}
        return self._layer(lambda axes: axes.add_collection(LineCollection([], **look), autolim=False))

    def strokes(self, colour: str, *, width: float) -> Layer:
        """A layer for any number of plain paths."""
        look = {"colors": colour, "linewidths": width, "capstyle": "round"}
        return self._layer(lambda axes: axes.add_collection(LineCollection([], **look), autolim=False))

    def cloud(self) -> Layer:
        """A layer for points that take their colour from time."""
        look = {"cmap": TIME_COLOURS, "norm": self.norm, "linewidths": 0}
        return self._layer(lambda axes: axes.scatter([], [], s=15, c=[], **look))

    def ball(self) -> Layer:
        """A layer for the agent, drawn at least large enough to be seen."""
        pixels = 2 * BALL_RADIUS * self.pixels_per_unit if self.maze is not None else 0.0
        return self._dots("o", max(9.0, pixels * 72 / DPI), AGENT)

    def label(self) -> Artist:
        """Words below the view; `set_text` them."""
        where = (EDGE / self.width, FOOT / 2 / self.height)
        text = self.figure.text(*where, "", color=INK, fontsize=9.5, va="center", animated=True)
        self._drawn_over.append(text)
        return text

    def marks(self, start: ArrayLike | None, goal: ArrayLike | None, vias: Points = ()) -> None:
        """A circle at the start, (P,) or (O,), a star at the goal (P,), diamonds at the vias; seen from above only."""
        if not self.above:
            return
        here = np.ravel([] if start is None else np.asarray(start, dtype=float))
        here = here[self.position] if len(here) == len(self.task.spec.observation_names) else here
        for points, look in ((vias, ("D", 8.0, VIA)), (here, ("o", 11.0, START)), (goal, ("*", 19.0, GOAL))):
            if points is not None and np.size(points):
                dots = self._dots(*look)
                dots[0].set_data(*np.reshape(points, (-1, 2)).T)

    def _dots(self, marker: str, size: float, colour: str) -> Layer:
        look = {"ms": size, "mfc": colour, "mec": INK if marker == "*" else "white", "mew": 0.9 if marker == "*" else 1.4}
        return self._layer(lambda axes: axes.plot([], [], marker, scalex=False, scaley=False, clip_on=False, **look)[0])

    def _layer(self, make: Callable[[Axes], Any]) -> Layer:
        layer = [make(axes) for axes in self.panels]
        for artist in layer:
            artist.set_animated(True)
        self._drawn_over += layer
        return layer

    def draw_trail(self, layer: Layer, observations: Array, seconds: Array) -> None:
        """One path, observations (n, O) at times (n,)."""
        for artist, points in zip(layer, self.points(observations, seconds), strict=True):
            artist.set_segments(np.stack([points[:-1], points[1:]], axis=1))
            artist.set_array((seconds[:-1] + seconds[1:]) / 2)

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


def _plan_scene(
    task: Task, plan: Plan, discs: Points, vias: Points, goal: ArrayLike | None, title: str, *, scale: int = 1
) -> tuple[_Scene, Array, Array]:
    """A scene with all candidates in grey, and the chosen plan: observations (n, O) at times (n,) in seconds."""
    paths = [_path(plan, k) for k in range(len(plan.trajectories))]
    seen = np.concatenate([path for path, _ in paths])
    scene = _Scene(task, seen, paths[0][1][-1], title=title, discs=discs, goal=goal, vias=vias, scale=scale)
    scene.draw_strokes(scene.strokes(GREY, width=0.8), paths[1:])
    return scene, *paths[0]


def _path(plan: Plan, candidate: int) -> tuple[Array, Array]:
    """A candidate at every environment step until it arrives: observations (n, O), times (n,) in seconds."""
    spec = plan.spec
    steps = np.arange(max(1, int(plan.arrivals[candidate]) * spec.stride) + 1)
    asked = plan.reference(steps, candidate)
    observations = np.array(asked.observation, dtype=float)
    observations[:, [spec.observation_names.index(n) for n in spec.position]] = asked.position  # smooth between tokens
    return observations, steps * spec.dt_seconds


def _progress(task: Task, states: Array, goal: ArrayLike | None, rewards: ArrayLike | None) -> Callable[[int], str]:
    """What to say below a rollout at a step: how far it is, and its return or the steps spent at the goal."""
    total, dt = len(states) - 1, task.spec.dt_seconds
    if rewards is not None:
        summed = np.concatenate([[0.0], np.cumsum(np.asarray(rewards, dtype=float))])
        return lambda step: f"step {step}/{total}   {step * dt:.2f} s   return {summed[min(step, len(summed) - 1)]:.5g}"
    if goal is None or not np.size(goal):
        return lambda step: f"step {step}/{total}   {step * dt:.2f} s"
    held = np.concatenate([[0], np.cumsum(task.reached(states[1:], np.asarray(goal, dtype=float)))])
    return lambda step: f"step {step}/{total}   {step * dt:.2f} s   at the goal for {held[step]} steps"


def _write(out: Path, write: Callable[[Path], None]) -> None:
    """Write a scratch file beside `out` and move it into place, so that nothing is ever half written."""
    scratch = out.with_name(f".{out.stem}-{os.getpid()}{out.suffix}")
    try:
        write(scratch)
        os.replace(scratch, out)
    finally:
        scratch.unlink(missing_ok=True)


def _write_gif(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """All frames share one palette, made from some of them: small, and colours do not flicker."""
    pictures = [Image.fromarray(np.asarray(f)) for f in frames]
    if not pictures:
        raise ValueError(f"no frames to write to {path.suffix}")
    some = [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, 6).astype(int))]
    ours = [round(255 * v) for colour in ("white", WALL, FREE, INK, GREY, GOAL, START, AGENT, VIA) for v in to_rgb(colour)]
    found = Image.fromarray(np.concatenate([np.asarray(p) for p in some])).quantize(255 - len(ours) // 3, kmeans=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(ours + (found.getpalette() or []))
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    look = {"duration": max(20, round(100 / fps) * 10), "loop": 0, "optimize": False}
    reduced[0].save(path, format="GIF", save_all=True, append_images=reduced[1:], **look)


def _write_mp4(path: Path, frames: Iterable[Picture], fps: float) -> None:
    """H.264 that every browser plays: even sizes, yuv420p."""
    options = {"codec": "libx264", "pixelformat": "yuv420p", "quality": 8, "macro_block_size": 2}
    count = 0
    with imageio.get_writer(path, format="FFMPEG", fps=fps, ffmpeg_log_level="error", **options) as writer:
        for count, frame in enumerate(frames, start=1):
            writer.append_data(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2])
    if not count:
        raise ValueError(f"no frames to write to {path.suffix}")
