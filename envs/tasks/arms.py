"""The Fetch arm of Gymnasium-Robotics: reach, push, pick and place, slide.

An action moves the gripper by up to 5 cm along each axis and opens or shuts its fingers; a goal is a place of the
gripper (reach) or of the object (the others). Episodes last 50 steps of 40 ms, and count as a success if the goal is
held at their end.

Shape letters: O observations, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.spec import TrajectorySpec

from ..quiet import quiet_imports
from .task import Array, Collecting, Task, numbers

DT = 0.04  # seconds of a step
FALLEN = 0.35  # metres: below the table's top, which is at 0.4
WITHIN = 0.05  # metres from the goal that count as there
GRIP, GRIP_V = ("grip_x", "grip_y", "grip_z"), ("grip_vx", "grip_vy", "grip_vz")
FINGERS = ("finger_left", "finger_right")
OBJECT, OBJECT_V = ("object_x", "object_y", "object_z"), ("object_vx", "object_vy", "object_vz")
YAW = ("object_cos", "object_sin")


@dataclass(frozen=True)
class ArmTask(Task):
    """The Fetch arm.

    Args:
        skill: "reach", "push", "pick-and-place" or "slide".
        reachable: ((low, high) per axis) in metres: where goals may be.
        start_box: ((low, high) per axis) in metres: where an object may be placed; () without an object.
        goals_per_episode: of the data; an episode goes on to another goal once it has held one.
        data_steps: of an episode of the data, at most.
    """

    skill: str = "reach"
    reachable: tuple[tuple[float, float], ...] = ()
    start_box: tuple[tuple[float, float], ...] = ()
    goals_per_episode: int = 3
    data_steps: int = 100

    @property
    def has_object(self) -> bool:
        return self.skill != "reach"

    def environment(self, *, render_mode: str | None = None) -> Any:
        with quiet_imports():
            import gymnasium
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
        return super().environment(render_mode=render_mode)

    def observed(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Columns of the spec (..., O) from the environment's (..., 10 or 25).

        Velocities in metres per second and of the object itself, where the environment has metres per step and those
        of an object relative to the gripper; the object's yaw by cosine and sine, which do not jump.
        """
        if not self.has_object:
            return np.concatenate([raw[..., 0:3], raw[..., 5:8] / DT], axis=-1)
        grip_v, yaw = raw[..., 20:23], raw[..., 13:14]
        parts = (
            raw[..., 0:3],
            grip_v / DT,
            raw[..., 9:11],
            raw[..., 3:6],
            (raw[..., 14:17] + grip_v) / DT,
            np.cos(yaw),
            np.sin(yaw),
        )
        return np.concatenate(parts, axis=-1)

    def reset(
        self, env: Any, rng: np.random.Generator, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Begin an episode; `start` places the object (its height is the table's), `goal` is where it is to go."""
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        if goal is not None:
            env.goal = np.array(goal, dtype=float)
        if start is not None:
            if not self.has_object:
                raise ValueError(f"task {self.name} begins with the arm at rest; leave --start out")
            place_object(env, np.asarray(start, dtype=float)[:2])
            observation = env._get_obs()
        return self.flatten(observation), np.array(env.goal, dtype=float)

    def reward(self, observation: Array, goal: Array, reward: float) -> float:
        """1 for every step at the goal, as in the mazes; the environment's own is 0 there and -1 elsewhere."""
        return float(self.reached(observation, goal))

    def lost(self, observation: Array) -> str:
        """The object lies beside the table: out of the arm's reach for good."""
        height = float(observation[self.spec.position_indices[2]])
        return f"the object fell off the table (height {height:.2f} m)" if self.has_object and height < FALLEN else ""

    def rewards(self, episodes: Episodes) -> None:
        """None: the data was rewarded for goals that its observations do not name."""

    def reached(self, observations: ArrayLike, goal: ArrayLike) -> NDArray[np.bool_]:
        """Whether observations (..., O) are at the goal (3,): within 5 cm, as in the environment."""
        gap = np.asarray(observations)[..., self.spec.position_indices] - np.asarray(goal)
        return np.linalg.norm(gap, axis=-1) < WITHIN

    def check_point(self, values: Sequence[float], what: str) -> None:
        """Refuse a goal out of the arm's reach, or an object beside the table.

        Raises:
            ValueError: with the limits.
        """
        super().check_point(values, what)
        limits = self.start_box if what == "start" and self.start_box else self.reachable
        for axis, value, (low, high) in zip("xyz", values, limits, strict=False):
            if not low <= value <= high:
                why = "beside where objects lie" if limits is self.start_box else "out of reach"
                raise ValueError(
                    f"{what} {numbers(values)} lies {why}: {axis} is {value:g} m and must lie between "
                    f"{low:g} and {high:g}"
                )

    def collect(self, *, steps: int, seed: int, **options: Any) -> Iterator[int | Collecting]:
        """Record the scripted expert, with noise and slips, on all cores (see `envs.arm_data`)."""
        from ..arm_data import collect_arm

        yield from collect_arm(self, steps=steps, seed=seed)


def place_object(env: Any, place: Array) -> None:
    """Put a Fetch environment's object at rest at (2,), as high as it is, or at (3,)."""
    joint = env._utils.get_joint_qpos(env.model, env.data, "object0:joint").copy()
    joint[: len(place)] = place
    env._utils.set_joint_qpos(env.model, env.data, "object0:joint", joint)
    env._utils.set_joint_qvel(env.model, env.data, "object0:joint", np.zeros(6))
    env._mujoco.mj_forward(env.model, env.data)


def _spec(skill: str, stride: int) -> TrajectorySpec:
    actions = ("move_x", "move_y", "move_z", "fingers")
    if skill == "reach":
        return TrajectorySpec(actions, GRIP + GRIP_V, position=GRIP, velocity=GRIP_V, dt_seconds=DT, stride=stride)
    return TrajectorySpec(
        actions,
        GRIP + GRIP_V + FINGERS + OBJECT + OBJECT_V + YAW,
        position=OBJECT,
        velocity=OBJECT_V,
        dt_seconds=DT,
        stride=stride,
        rates=GRIP_V,
        held=("fingers",),
        bodies=(GRIP,),
    )


FIRST_ACTIONS = {"action_weight": 1.0, "first_action_weight": 20.0, "token_discount": 0.9}
"""Of training: what is executed is the first action; the rest of a plan is there to make it the right one."""
UNSMOOTHED = {"incumbent": False, "warm_steps": 8, "smoothing": 0.0}
"""Of sampling: a guide's moves are not spread over time, or a block would give way before anything touches it."""

TABLE_TOP = (0.415, 0.435)  # metres: heights of an object that lies on the table
SKILLS: dict[str, dict[str, Any]] = {
    "reach": {
        "make": "FetchReach-v4",
        "reachable": ((1.15, 1.5), (0.55, 0.95), (0.35, 0.75)),
        "horizon": 24,
        "minutes": 3.0,
        "collect_steps": 100_000,
    },
    "push": {
        "make": "FetchPush-v4",
        "reachable": ((1.15, 1.55), (0.55, 0.95), TABLE_TOP),
        "start_box": ((1.15, 1.55), (0.55, 0.95), TABLE_TOP),
        "horizon": 24,
        "stride": 2,
    },
    "pick-and-place": {
        "make": "FetchPickAndPlace-v4",
        "reachable": ((1.15, 1.55), (0.55, 0.95), (0.415, 0.9)),
        "start_box": ((1.15, 1.55), (0.55, 0.95), TABLE_TOP),
        "horizon": 24,
        "stride": 2,
    },
    "slide": {
        "make": "FetchSlide-v4",
        "reachable": ((1.0, 1.75), (0.4, 1.1), TABLE_TOP),
        "start_box": ((0.9, 1.15), (0.6, 0.9), TABLE_TOP),
        "horizon": 24,
        "stride": 2,
        "minutes": 60.0,
        "collect_steps": 600_000,
        "collect_minutes": 8.0,
        "follow_states": False,  # a strike is its actions: between states it is smeared
        "goals_per_episode": 1,
        "data_steps": 60,
    },
}


def arm_tasks() -> dict[str, Task]:
    """Each skill of the arm."""
    settings: dict[str, Any] = {
        "episode_steps": 50,
        "held_at_end": True,
        "stays_within": WITHIN / 2,
        "replan_every": 2,
        "tolerance": -1.0,
        "passed_within": 0.03,
        "avoid_clearance": 0.02,
        "action_limit": 1.0,
        "follow_states": True,
        "collect_steps": 300_000,
        "collect_minutes": 3.0,
        "minutes": 20.0,
        "normalizer": "gaussian",  # a few blocks fall off the table: limits would follow them
        "octaves": 1,
        "anchored": True,
        "training": FIRST_ACTIONS,
        "sampling": UNSMOOTHED,
    }
    return {
        f"fetch-{skill}": ArmTask(
            name=f"fetch-{skill}",
            dataset=f"diffplan/fetch/{skill}-v0",
            spec=_spec(skill, known.get("stride", 1)),
            skill=skill,
            **(settings | {k: v for k, v in known.items() if k != "stride"}),
        )
        for skill, known in SKILLS.items()
    }
