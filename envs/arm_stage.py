"""MuJoCo's picture of the Fetch arm at its table.

`backend.use_backend` comes first: mujoco, imported here only to draw, reads its backend once.

Shape letters: Q generalised positions, n points of a way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.guides.marks import Ball, Block, Box, Disc, Mark, Region, Spot

from .arm_postures import Postures
from .colours import AGENT, AHEAD, AVOID, FREE, GOAL, GREY, VIA, rgba
from .decor import add_ball, add_box, add_column, add_geom, add_way
from .tasks import ArmTask
from .tasks.arms import WITHIN
from .video import Picture

Array = NDArray[np.floating[Any]]

TABLE_TOP, COLUMN = 0.4, 0.5  # metres: height of the table, and of a column on it that has no end
SHADE = "#9ba5b2"
COLOURS = {
    "table0": "#dfe4ea",
    "object0": AGENT,
    "robot0:l_gripper_finger_link": VIA,
    "robot0:r_gripper_finger_link": VIA,
}
FINE = 2  # pixels drawn per pixel shown, along either axis: smooth edges
SLICES, STACKS = 20, 10  # of round shapes: most of the time is spent on them
THROUGH = 0.25  # of what the arm hides that is seen through it
SPOT, THREAD = 0.014, 0.0012  # metres, radii of a place to pass by and of thin rods


@dataclass(frozen=True)
class Outlook:
    """Where a skill is seen from: at a point (3,), from a distance in metres; angles in degrees."""

    point: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


OUTLOOKS = {
    "reach": Outlook((1.32, 0.75, 0.56), 1.1, 122, -22),
    "push": Outlook((1.34, 0.75, 0.46), 0.95, 122, -30),
    "pick-and-place": Outlook((1.34, 0.75, 0.62), 1.15, 122, -24),
    "slide": Outlook((1.36, 0.75, 0.42), 1.45, 118, -34),
}


class ArmStage:
    """The arm at its table, seen by one camera that stays where it is.

    Args:
        task: names the skill.
        width, height: of the picture, in pixels.
    """

    def __init__(self, task: ArmTask, width: int, height: int) -> None:
        import mujoco

        env = task.environment()
        env.reset(seed=0)  # the arm begins every episode alike
        self.task, self.model, self.first = task, env.model, np.array(env.data.qpos)
        env.close()
        _dress(self.model)
        self.data = mujoco.MjData(self.model)
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = FINE * width, FINE * height
        self.option, self.camera = mujoco.MjvOption(), _camera(OUTLOOKS[task.skill])
        self.option.sitegroup[:] = 0  # the environment's own goal among them
        self.postures = Postures(task, self.model, self.first)
        self._know_bodies()
        self._renderer = mujoco.Renderer(self.model, FINE * height, FINE * width)

    def _know_bodies(self) -> None:
        """Which bodies are the robot, and which have a shadow."""
        hand = ("gripper_link", "r_gripper_finger_link", "l_gripper_finger_link")
        shading = [f"robot0:{name}" for name in hand] + ["object0"] * self.task.has_object
        bodies = [self.model.body(i).name for i in range(self.model.nbody)]
        self._robot = [i for i, name in enumerate(bodies) if name.startswith("robot0:")]
        self._shading = [self.model.body(name).id for name in shading]

    @property
    def scene(self) -> Any:
        """What `decor` is added to."""
        return self._renderer.scene

    def _move(self, pose: Array) -> None:
        """Put the bodies and lights where a pose (Q,) has them, without dynamics."""
        import mujoco

        self.data.qpos[:] = pose
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    def show(self, pose: Array) -> None:
        """Begin a picture: the arm and the object in a pose (Q,), and nothing else."""
        self._move(pose)
        self._renderer.update_scene(self.data, self.camera, self.option)
        self._add_shadow()

    def _add_shadow(self) -> None:
        """Below the hand and the object the table darkens: how high they are is seen there."""
        for geom in self._geoms(self._shading):
            place = (*geom.pos[:2], TABLE_TOP + 1e-3)
            flat = add_geom(self.scene, geom.type, SHADE, size=geom.size, place=place)
            flat.mat[:], flat.dataid = np.diag([1, 1, 1e-3]) @ geom.mat, geom.dataid

    def add_goal(self, goal: ArrayLike) -> None:
        """A translucent ball around a goal (3,): what counts as there."""
        add_ball(self.scene, goal, WITHIN, GOAL, alpha=0.4)

    def add_marks(self, marks: Sequence[Mark]) -> None:
        """Places to keep out of, translucent, and places to pass by."""
        for mark in marks:
            match mark:
                case Ball():
                    add_ball(self.scene, mark.center, mark.radius, AVOID, alpha=0.4)
                case Block():
                    add_box(self.scene, mark.center, mark.sides, AVOID, alpha=0.4)
                case Disc(x, y, radius):
                    add_column(self.scene, (x, y, TABLE_TOP + COLUMN / 2), radius, COLUMN, AVOID, alpha=0.3)
                case Box(x, y, width, depth):
                    middle = (x, y, TABLE_TOP + COLUMN / 2)
                    add_box(self.scene, middle, (width, depth, COLUMN), AVOID, alpha=0.3)
                case Region(x, y, float(z), radius):
                    add_ball(self.scene, (x, y, z), radius, VIA, alpha=0.3)
                case Region(x, y, _, radius):
                    add_column(self.scene, (x, y, TABLE_TOP + COLUMN / 2), radius, COLUMN, VIA, alpha=0.2)
                case Spot(x, y, z):
                    self._add_spot(x, y, z)

    def _add_spot(self, x: float, y: float, z: float | None) -> None:
        if z is None:  # at any height
            pole = np.array([(x, y, TABLE_TOP), (x, y, TABLE_TOP + COLUMN)])
            add_way(self.scene, pole, VIA, radius=SPOT / 3)
        else:
            add_ball(self.scene, (x, y, z), SPOT, VIA)

    def add_way(self, points: Array, colour: str, *, radius: float) -> None:
        """A rod through places (n, 3), and its shadow on the table."""
        add_way(self.scene, points, colour, radius=radius)
        on_table = np.array(points) * [1, 1, 0] + [0, 0, TABLE_TOP + 1e-3]
        add_way(self.scene, on_table, SHADE, radius=radius / 2)

    def add_thread(self, points: Array, colour: str) -> None:
        """A thin rod through places (n, 3), without a shadow."""
        add_way(self.scene, points, colour, radius=THREAD, leg=0.015)

    def shot(self) -> Picture:
        """What stands on the stage, (height, width, 3); the arm hides nothing altogether."""
        whole = self._renderer.render().astype(np.float32)
        for geom in self._geoms(self._robot):
            geom.rgba[3] = 0
        fine = (1 - THROUGH) * whole + THROUGH * self._renderer.render()
        tall, wide = fine.shape[0] // FINE, fine.shape[1] // FINE
        return np.round(fine.reshape(tall, FINE, wide, FINE, 3).mean(axis=(1, 3))).astype(np.uint8)

    def _geoms(self, bodies: Sequence[int]) -> list[Any]:
        """Those of the scene that belong to bodies of the simulator."""
        import mujoco

        scene = self.scene
        own = [g for g in scene.geoms[: scene.ngeom] if g.objtype == mujoco.mjtObj.mjOBJ_GEOM]
        return [g for g in own if self.model.geom_bodyid[g.objid] in bodies]

    def __enter__(self) -> ArmStage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()


def _camera(outlook: Outlook) -> Any:
    import mujoco

    camera = mujoco.MjvCamera()
    camera.lookat[:] = outlook.point
    camera.distance, camera.azimuth, camera.elevation = outlook.distance, outlook.azimuth, outlook.elevation
    return camera


def _dress(model: Any) -> None:
    """No surroundings and a pale arm, so that what is drawn over them is seen; fingers and object have colours."""
    for i in range(model.ngeom):
        model.geom_rgba[i] = rgba(_colour_of(model.body(model.geom_bodyid[i]).name, model.geom_rgba[i]))
    hidden = (model.geom_bodyid == 0) | (model.geom_bodyid == model.body("robot0:mocap").id)  # floor, a cross of beams
    model.geom_matid[hidden], model.geom_rgba[hidden, 3] = -1, 0
    sky = 3 * model.tex_height[0] * model.tex_width[0]
    model.tex_data[:sky] = np.tile(np.round(255 * np.array(rgba(FREE)[:3])), sky // 3)
    model.vis.quality.numslices, model.vis.quality.numstacks = SLICES, STACKS
    model.mat_specular[:], model.light_castshadow[:] = 0.1, False
    model.light_ambient[:], model.light_diffuse[:], model.light_specular[:] = 0.0, 0.4, 0.1
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:], model.vis.headlight.specular[:] = 0.5, 0.25, 0.05


def _colour_of(body: str, own: Array) -> str:
    """Of a part of a body that was of the colour `own` (4,)."""
    red, _, blue, _ = own
    if body in COLOURS:
        return COLOURS[body]
    if blue > red + 0.3:
        return GREY
    return AHEAD if blue < 0.5 else "white"
