"""Postures of the Fetch arm where only its gripper, its fingers and the object are known: nothing else is observed.

Shape letters: O observations, Q generalised positions, n rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tasks import ArmTask
from .tasks.arms import FINGERS, GRIP, OBJECT, YAW

Array = NDArray[np.floating[Any]]

CLOSE, ROUNDS, STEPS = 5e-4, 40, 10  # metres that will do; how often it is tried; of the simulator each time
PULL = 0.05  # metres from the gripper to the point that pulls it: what an action moves it by at most


class Postures:
    """Finds poses of the simulator from observations.

    Args:
        task: names what is observed.
        model: of the simulator.
        first: (Q,) in which the arm begins an episode.
    """

    def __init__(self, task: ArmTask, model: Any, first: Array) -> None:
        import mujoco

        self.task, self.model, self.first, self.data = task, model, first, mujoco.MjData(model)
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        self._move(first)
        self.hand, self.grip = self.data.body("robot0:gripper_link"), self.data.site("robot0:grip")
        self.data.mocap_quat[0] = self.hand.xquat

    def poses(self, observations: ArrayLike) -> Array:
        """(n, Q): the gripper, its fingers and the object where observations (n, O) have them, one after the other.

        The arm's joints are in no observation. From where it begins an episode the gripper is pulled from place to
        place as an action pulls it, through whatever is there; far beyond its reach the arm stretches.
        """
        names, made = self.task.spec.observation_names, []
        self._move(self.first)
        self.data.mocap_pos[0] = self.hand.xpos
        for row in np.asarray(observations, dtype=float):
            seen = dict(zip(names, row, strict=True))
            self._pull(np.array([seen[n] for n in GRIP]))
            made.append(np.array(self.data.qpos))
            self._place(made[-1], seen)
        return np.array(made)

    def _pull(self, place: Array) -> None:
        """Bring the gripper to a place (3,), or as near as the arm comes."""
        import mujoco

        for _ in range(ROUNDS):
            gap = place - self.grip.xpos
            if np.linalg.norm(gap) < CLOSE:
                break
            lead = self.data.mocap_pos[0] - self.hand.xpos + gap
            self.data.mocap_pos[0] = self.hand.xpos + lead * min(1.0, PULL / max(float(np.linalg.norm(lead)), 1e-9))
            mujoco.mj_step(self.model, self.data, nstep=STEPS)
            mujoco.mj_kinematics(self.model, self.data)
        self._move(self.data.qpos)

    def _place(self, pose: Array, seen: dict[str, float]) -> None:
        """Put the fingers and the object of a pose (Q,) where they are seen; unseen fingers stay as they began."""
        fingers = [self.model.joint(f"robot0:{side}_gripper_finger_joint").qposadr[0] for side in "rl"]
        pose[fingers] = [seen[n] for n in FINGERS] if self.task.has_object else self.first[fingers]
        if not self.task.has_object:
            return
        free = self.model.joint("object0:joint").qposadr[0]
        half = np.arctan2(seen[YAW[1]], seen[YAW[0]]) / 2
        pose[free : free + 7] = [*(seen[n] for n in OBJECT), np.cos(half), 0, 0, np.sin(half)]

    def _move(self, pose: Array) -> None:
        """Put the bodies where a pose (Q,) has them, at rest."""
        import mujoco

        self.data.qpos[:], self.data.qvel[:] = pose, 0
        mujoco.mj_forward(self.model, self.data)
