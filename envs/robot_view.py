"""A robot's executed episode, drawn by MuJoCo: the robot now, its planned poses as ghosts, its torso's planned way.

`backend.use_backend` comes first: mujoco, imported here only to draw, reads its backend once.

Shape letters: T steps, O observations, Q generalised positions, n rows of a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from .colours import AHEAD, FREE, GREY, INK, START, VIA
from .decor import add_geom
from .lettering import shorten
from .render import HELD_FRAMES, drawn_steps, progress, returns_so_far
from .scene import DPI, EDGE, FOOT, TITLE
from .tasks import RobotTask
from .video import Picture

Array = NDArray[np.floating[Any]]

NEAREST, FARTHEST = 0.45, 0.15  # opacity of the first ghost and of the last
TRACE = 0.006  # its radius, per metre from the camera
ZOOM_OUT = 2.2  # at most, to have long plans in view
TILE = 1.0  # metres, of the floor


@dataclass(frozen=True)
class Outlook:
    """How the camera sees a robot; lengths in metres, the elevation in degrees.

    Attributes:
        size: of the robot, legs stretched.
        height: of the point above the floor that is looked at.
        distance: from that point, where plans are short.
        elevation: of the line of sight.
        depth: of ghosts behind a robot that moves in a plane, and of the trace before it, so that all are seen.
    """

    size: float
    height: float
    distance: float
    elevation: float
    depth: float = 0.0


OUTLOOKS = {
    "hopper": Outlook(1.0, 0.78, 2.6, -8, 0.12),
    "walker2d": Outlook(1.2, 0.78, 2.6, -8, 0.12),
    "halfcheetah": Outlook(2.2, 0.45, 2.5, -10, 0.12),
    "ant": Outlook(2.4, 0.35, 3.8, -28),
}


def robot_frames(
    task: RobotTask,
    states: ArrayLike,
    plans_at: Callable[[int], ArrayLike | None],
    *,
    rewards: ArrayLike | None = None,
    every: int | None = None,
    ghosts: int = 3,
    width: int = 480,
    height: int = 320,
    title: str = "",
) -> Iterator[Picture]:
    """The robot on an endless floor, seen from its side, with the future that is planned at each drawn step.

    Args:
        task: what was executed.
        states: (T + 1, O) observations.
        plans_at: observations (n, O) of the plan in force at a step, the present first, then one every `spec.stride`
            environment steps; None for nothing.
        rewards: (T,), summed in the label.
        every: steps from one frame to the next; about 60 frames by default.
        ghosts: planned poses, evenly spaced up to the plan's end.
        width, height: of a frame in pixels; odd ones grow by one.
        title: a few words; cut short, with an ellipsis, where they do not fit.

    Yields:
        (height, width, 3); the last frame is held.
    """
    states = np.asarray(states, dtype=float)
    poses, steps = task.poses(states), drawn_steps(len(states) - 1, every)
    ahead = [_ahead(task, plans_at(step), poses[step]) for step in steps]
    earned = [""] if rewards is None else returns_so_far(rewards)
    total = len(states) - 1 if rewards is None else len(earned) - 1  # a film may show less than there was
    page, tell = Page(width, height, title), progress(task, total, earned)
    with Stage(task, *page.room, ways=[way[-1] - way[0] for way in ahead if way is not None]) as stage:
        for step, way in zip(steps, ahead, strict=True):
            stage.show(poses[step])
            if way is not None:
                chosen = _spread(len(way), ghosts)
                for row, alpha in zip(chosen, np.linspace(NEAREST, FARTHEST, len(chosen)), strict=True):
                    stage.add_ghost(way[row], float(alpha))
                stage.add_trace(way)
            seconds = 0.0 if way is None else (len(way) - 1) * task.spec.token_seconds
            frame = page.shot(stage.shot(), tell(step), f"planned: {seconds:.2f} s" if seconds else "")
            yield frame
    yield from [frame] * HELD_FRAMES


class Stage:
    """MuJoCo's picture of a robot on a pale floor without end; the camera goes along.

    Args:
        task: names the robot.
        width, height: of the picture, in pixels.
        ways: (Q,) how far each plan goes; the camera makes room for most of them.
    """

    def __init__(self, task: RobotTask, width: int, height: int, *, ways: Sequence[Array] = ()) -> None:
        import mujoco

        env = task.environment()
        self.model = env.model
        env.close()
        _whiten(self.model)
        self.now, self.then = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self.torso = self.model.body("torso").id
        self.camera, self.option = mujoco.MjvCamera(), mujoco.MjvOption()
        gone = np.array([way[: task.hidden] for way in ways]) if len(ways) else np.zeros((1, task.hidden))
        self.lead = np.median(gone, axis=0) / 2  # between the present and the end of what is planned
        outlook = OUTLOOKS[task.robot]
        self.depth, self.hidden = outlook.depth, task.hidden
        wide = outlook.size + float(np.quantile(np.abs(gone[:, 0]), 0.9))
        fits = wide * height / width / 2 / np.tan(np.radians(self.model.vis.global_.fovy / 2))
        self.camera.distance = np.clip(fits, outlook.distance, ZOOM_OUT * outlook.distance)
        self.camera.azimuth, self.camera.elevation = 90, outlook.elevation
        self.camera.lookat[2] = outlook.height
        self._renderer = mujoco.Renderer(self.model, height, width)

    def show(self, pose: Array) -> None:
        """Begin a picture: the robot in a pose (Q,), and nothing else."""
        import mujoco

        self._move(self.now, pose)
        self.camera.lookat[: len(self.lead)] = pose[: len(self.lead)] + self.lead
        mujoco.mjv_updateCamera(self.model, self.now, self.camera, self._renderer.scene)  # the floor is laid around it
        self._renderer.update_scene(self.now, self.camera, self.option)
        self._add_shadow()

    def add_ghost(self, pose: Array, alpha: float) -> None:
        """A translucent copy in another pose (Q,)."""
        import mujoco

        scene = self._renderer.scene
        self._move(self.then, pose)
        before = scene.ngeom
        moving = mujoco.mjtCatBit.mjCAT_DYNAMIC
        mujoco.mjv_addGeoms(self.model, self.then, self.option, mujoco.MjvPerturb(), moving, scene)
        for geom in scene.geoms[before : scene.ngeom]:
            geom.matid, geom.rgba = -1, (*to_rgb(VIA), alpha)
            geom.pos[1] += self.depth

    def add_trace(self, poses: Array) -> None:
        """The torso's way through poses (n, Q)."""
        import mujoco

        points = [self._move(self.then, pose).xpos[self.torso].copy() for pose in poses]
        for begin, end in zip(points[:-1], points[1:], strict=True):
            geom = add_geom(self._renderer.scene, mujoco.mjtGeom.mjGEOM_CAPSULE, START)
            mujoco.mjv_connector(geom, geom.type, TRACE * self.camera.distance, begin, end)
            geom.pos[1] -= self.depth

    def shot(self) -> Picture:
        """What stands on the stage, (height, width, 3)."""
        return np.asarray(self._renderer.render())

    def _add_shadow(self) -> None:
        """What is below the robot darkens: its geoms, flattened. MuJoCo's own shadows leave streaks and are slow."""
        import mujoco

        scene, moving = self._renderer.scene, mujoco.mjtCatBit.mjCAT_DYNAMIC
        for geom in scene.geoms[: scene.ngeom]:
            if geom.category == moving:
                flat = add_geom(scene, geom.type, GREY, size=geom.size, place=(*geom.pos[:2], 0.01))
                flat.mat[:] = np.diag([1, 1, 1e-3]) @ geom.mat

    def _move(self, data: Any, pose: Array) -> Any:
        """Put the simulator's bodies and lights where a pose (Q,) has them, without its dynamics."""
        import mujoco

        data.qpos[:] = pose
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)
        return data

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()


class Page:
    """A white page: a title above a picture and words below it, as other films have them.

    Args:
        width, height: in pixels of a frame.
        title: a few words; cut short, with an ellipsis, where they do not fit.
        scale: pixels per pixel of a frame.

    Attributes:
        room: (width, height) of the picture, in pixels.
    """

    def __init__(self, width: int, height: int, title: str, *, scale: int = 1) -> None:
        width, height = width + width % 2, height + height % 2
        self.scale, self.room = scale, (scale * (width - 2 * EDGE), scale * (height - TITLE - FOOT))
        inches = (width + 1e-3) / DPI, (height + 1e-3) / DPI  # Agg truncates to whole pixels
        self.figure = Figure(figsize=inches, dpi=DPI * scale, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        left, right = EDGE / width, 1 - EDGE / width
        look: Any = {"color": INK, "va": "center", "parse_math": False}
        headline = self.figure.text(left, 1 - TITLE / 2 / height, title, fontsize=10.5, **look)
        shorten(headline, scale * (width - 2 * EDGE))
        self.below = self.figure.text(left, FOOT / 2 / height, "", fontsize=9.5, **look)
        self.aside = self.figure.text(right, FOOT / 2 / height, "", fontsize=9.5, ha="right", **look | {"color": VIA})

    def shot(self, picture: Picture, below: str, aside: str) -> Picture:
        """The page (height, width, 3) around a picture that fills its room."""
        self.below.set_text(below)
        self.aside.set_text(aside)
        self.canvas.draw()
        page = np.array(np.asarray(self.canvas.buffer_rgba())[..., :3])
        top, left = self.scale * TITLE, self.scale * EDGE
        page[top : top + self.room[1], left : left + self.room[0]] = picture
        return page


def _ahead(task: RobotTask, plan: ArrayLike | None, pose: Array) -> Array | None:
    """Planned poses (n, Q) from observations (n, O); the root's hidden coordinates go on from the present pose (Q,)."""
    if plan is None:
        return None
    whole = replace(task.spec, dt_seconds=task.spec.token_seconds, stride=1)  # rows are tokens apart
    return replace(task, spec=whole).poses(plan, root=pose[: task.hidden])


def _spread(rows: int, count: int) -> list[int]:
    """At most `count` of a plan's rows, evenly spaced after the first, the last among them."""
    return sorted({round(i * (rows - 1) / count) for i in range(1, count + 1)} - {0})


def _whiten(model: Any) -> None:
    """Pale sky and floor without end or mirror, so that what stands on it is seen; a fast robot leaves a finite one."""
    import mujoco

    light, tile = 255 * np.array(to_rgb(FREE)), 255 * (np.array(to_rgb(FREE)) + to_rgb(AHEAD)) / 2
    for i, kind in enumerate(model.tex_type):
        if kind != mujoco.mjtTexture.mjTEXTURE_CUBE:  # which the robot wears
            part = slice(model.tex_adr[i], model.tex_adr[i] + 3 * model.tex_height[i] * model.tex_width[i])
            dark = model.tex_data[part].reshape(-1, 3).mean(axis=1, keepdims=True) < 100
            tiled = dark & (kind == mujoco.mjtTexture.mjTEXTURE_2D)
            model.tex_data[part] = np.round(np.where(tiled, tile, light)).astype(np.uint8).ravel()
    floor = model.geom("floor").id
    model.geom_size[floor, :2], model.geom_rgba[floor] = 0, 1
    material = model.geom_matid[floor]
    model.mat_texuniform[material], model.mat_texrepeat[material] = True, 1 / TILE
    model.mat_reflectance[material] = model.mat_specular[material] = 0
    model.light_castshadow[:] = False
    model.light_diffuse[:], model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.4, 0.5, 0.25
