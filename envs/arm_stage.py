"""MuJoCo's picture of the Fetch arm at its table, and the arm's posture where only its gripper is known.

`backend.use_backend` comes first: mujoco, imported here only to draw, reads its backend once.

Shape letters: O observations, Q generalised positions, n rows, J joints of the arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.guides.marks import Ball, Block, Box, Disc, Mark, Spot

from .colours import AGENT, AHEAD, AVOID, FREE, GOAL, GREY, VIA, WALL, rgba
from .decor import add_ball, add_box, add_column, add_thread, add_way
from .tasks import ArmTask
from .tasks.arms import FINGERS, GRIP, OBJECT, WITHIN, YAW
from .video import Picture

Array = NDArray[np.floating[Any]]

JOINTS = ("shoulder_pan", "shoulder_lift", "upperarm_roll", "elbow_flex", "forearm_roll", "wrist_flex", "wrist_roll")
CLOSE, ROUNDS, DAMPING = 2e-4, 40, 1e-4  # metres and radians that will do; how often it is tried; of the steps
LARGEST_STEP = 0.05  # metres that the gripper is led in a round
TABLE_TOP, COLUMN = 0.4, 0.5  # metres: height of the table, and of a column on it that has no end
SPOT = 0.014  # metres, radius of a place to pass by


@dataclass(frozen=True)
class Outlook:
    """Where a skill is seen from: at a point (3,), from a distance in metres; angles in degrees."""

    point: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


OUTLOOKS = {
    "reach": Outlook((1.26, 0.75, 0.55), 1.55, 138, -20),
    "push": Outlook((1.28, 0.75, 0.47), 1.35, 138, -28),
    "pick-and-place": Outlook((1.26, 0.75, 0.56), 1.6, 138, -22),
    "slide": Outlook((1.32, 0.75, 0.42), 1.9, 138, -30),
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
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = width, height
        self.option, self.camera = mujoco.MjvOption(), _camera(OUTLOOKS[task.skill])
        self.option.sitegroup[:] = 0  # the environment's own goal among them
        self._renderer = mujoco.Renderer(self.model, height, width)

    @property
    def scene(self) -> Any:
        """What `decor` is added to."""
        return self._renderer.scene

    def poses(self, observations: ArrayLike) -> Array:
        """(n, Q): the gripper, its fingers and the object where observations (n, O) have them, one after the other.

        The arm's joints are in no observation: from where it begins an episode it follows the gripper, held upright,
        by damped least squares. The simulator's own postures differ by hundredths of a radian where nothing is in
        the way.
        """
        names, pose, made = self.task.spec.observation_names, self.first.copy(), []
        for row in np.asarray(observations, dtype=float):
            seen = dict(zip(names, row, strict=True))
            self._place(pose, seen)
            made.append(self._reached(pose, np.array([seen[n] for n in GRIP])))
            pose = made[-1].copy()
        return np.array(made)

    def _place(self, pose: Array, seen: dict[str, float]) -> None:
        """Put the fingers and the object of a pose (Q,) where they are seen."""
        if not self.task.has_object:
            return
        fingers = [self.model.joint(f"robot0:{side}_gripper_finger_joint").qposadr[0] for side in "rl"]
        pose[fingers] = [seen[n] for n in FINGERS]
        free = self.model.joint("object0:joint").qposadr[0]
        half = np.arctan2(seen[YAW[1]], seen[YAW[0]]) / 2
        pose[free : free + 7] = [*(seen[n] for n in OBJECT), np.cos(half), 0, 0, np.sin(half)]

    def _reached(self, pose: Array, grip: Array) -> Array:
        """A pose (Q,) with its gripper led to a place (3,), or as near as the arm comes."""
        import mujoco

        joints = [self.model.joint(f"robot0:{name}_joint") for name in JOINTS]
        angles, columns = [j.qposadr[0] for j in joints], [j.dofadr[0] for j in joints]
        site, upright = self.model.site("robot0:grip").id, self._gripper(self.first)
        self._move(pose)
        for _ in range(ROUNDS):
            error = _error(self.data.site_xpos[site], grip, self.data.site_xmat[site].reshape(3, 3), upright)
            if np.abs(error).max() < CLOSE:
                break
            slopes = np.zeros((6, self.model.nv))
            mujoco.mj_jacSite(self.model, self.data, slopes[:3], slopes[3:], site)
            arm = slopes[:, columns]  # (6, J)
            self.data.qpos[angles] += arm.T @ np.linalg.solve(arm @ arm.T + DAMPING * np.eye(6), error)
            self._move(self.data.qpos)
        return np.array(self.data.qpos)

    def _gripper(self, pose: Array) -> Array:
        """(3, 3) orientation of the gripper in a pose (Q,)."""
        kept = np.array(pose)
        self._move(kept)
        return np.array(self.data.site("robot0:grip").xmat).reshape(3, 3)

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

    def add_goal(self, goal: ArrayLike) -> None:
        """A translucent ball around a goal (3,): what counts as there."""
        add_ball(self.scene, goal, WITHIN, GOAL, alpha=0.45)

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
                case Spot(x, y, z):
                    self._add_spot(x, y, z)

    def _add_spot(self, x: float, y: float, z: float | None) -> None:
        if z is None:  # at any height
            pole = np.array([(x, y, TABLE_TOP), (x, y, TABLE_TOP + COLUMN)])
            add_way(self.scene, pole, VIA, radius=SPOT / 3)
        else:
            add_ball(self.scene, (x, y, z), SPOT, VIA)

    def add_way(self, points: Array, colour: str, *, radius: float, alpha: float = 1.0) -> None:
        """A rod through places (n, 3), and its shadow on the table."""
        add_way(self.scene, points, colour, radius=radius, alpha=alpha)

    def add_threads(self, paths: Sequence[Array]) -> None:
        """Thin grey lines through places (n, 3) each."""
        for path in paths:
            add_thread(self.scene, path, GREY, pixels=1.5)

    def shot(self) -> Picture:
        """What stands on the stage, (height, width, 3)."""
        return np.asarray(self._renderer.render())

    def __enter__(self) -> ArmStage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renderer.close()


def _error(here: Array, there: Array, turned: Array, upright: Array) -> Array:
    """(6,): the way to a place (3,), not too far at once, and the rotation vector from one orientation to another."""
    gap = there - here
    off = upright @ turned.T
    spin = np.array([off[2, 1] - off[1, 2], off[0, 2] - off[2, 0], off[1, 0] - off[0, 1]]) / 2
    return np.concatenate([gap * min(1.0, LARGEST_STEP / max(float(np.linalg.norm(gap)), 1e-9)), spin])


def _camera(outlook: Outlook) -> Any:
    import mujoco

    camera = mujoco.MjvCamera()
    camera.lookat[:] = outlook.point
    camera.distance, camera.azimuth, camera.elevation = outlook.distance, outlook.azimuth, outlook.elevation
    return camera


def _dress(model: Any) -> None:
    """Pale surroundings and a grey arm, so that what is drawn over them is seen; the object has the agent's colour."""
    for name, colour in {"floor_mat": FREE, "table_mat": AHEAD, "block_mat": AGENT, "puck_mat": AGENT}.items():
        model.material(name).rgba[:] = rgba(colour)
    model.tex_data[: model.tex_height[0] * model.tex_width[0] * 3] = 255  # the sky
    for i in range(model.ngeom):
        if model.geom_rgba[i, 2] > model.geom_rgba[i, 0] + 0.3:  # blue
            model.geom_rgba[i] = rgba(WALL)
    mocap = model.body("robot0:mocap").id
    model.geom_rgba[model.geom_bodyid == mocap, 3] = 0
