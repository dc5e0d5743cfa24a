"""Gymnasium's MuJoCo robots that run: Hopper, HalfCheetah, Walker2d and Ant, version 5, with D4RL's kinds of data.

Nothing is pinned but the present; what to want is the return, so these tasks are led by a guide.

Shape letters: T steps, O observations, Q generalised positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.spec import TrajectorySpec

from .task import Array, Collecting, Task

Quality = Literal["medium", "medium-replay", "medium-expert"]


@dataclass(frozen=True)
class RobotTask(Task):
    """A robot that is rewarded for running, and whose episodes end when it falls.

    Args:
        robot: "hopper", "halfcheetah", "walker2d" or "ant".
        quality: of its data: "medium", "medium-replay" or "medium-expert".
        levels: mean return at which a behaviour policy is called "medium" and "expert".
        score_range: (min, max) return of the D4RL score; None where none is published.
        fall_penalty: what a fall costs in the returns that are learned.
        hidden: root coordinates that the observation leaves out; their rates are observed as vx, or vx and vy.
    """

    robot: str = "hopper"
    quality: Quality = "medium"
    levels: dict[str, float] = field(default_factory=dict)
    score_range: tuple[float, float] | None = None
    fall_penalty: float = 100.0
    hidden: int = 1

    def collect(self, *, steps: int, seed: int, **options: Any) -> Iterator[int | Collecting]:
        """Train and record a behaviour policy; `algorithm` "sac" or "ppo" (see `envs.robot_data`)."""
        from ..robot_data import collect_robot

        yield from collect_robot(self, steps=steps, seed=seed, **options)

    def rewards(self, episodes: Episodes) -> NDArray[np.float32] | None:
        """The recorded ones, a fall costing `fall_penalty` more (Janner et al. 2022, their locomotion settings)."""
        if episodes.rewards is None or episodes.terminated is None:
            return episodes.rewards
        paid = episodes.rewards.copy()
        paid[episodes.offsets[1:][episodes.terminated] - 2] -= self.fall_penalty  # the last action of an episode
        return paid

    def poses(self, states: ArrayLike, *, root: ArrayLike | None = None) -> Array:
        """Generalised positions (T, Q) of observations (T, O): what is hidden is the integral of its rate.

        Args:
            states: one environment step apart.
            root: (hidden,) coordinates of the first; the origin if left out.
        """
        known = np.asarray(states, dtype=float)
        rates = known[:, [self.spec.observation_names.index(n) for n in ("vx", "vy")[: self.hidden]]]
        steps = self.spec.dt_seconds * (rates[1:] + rates[:-1]) / 2
        begin = np.zeros(self.hidden) if root is None else np.asarray(root, dtype=float)
        gone = begin + np.concatenate([np.zeros((1, self.hidden)), np.cumsum(steps, axis=0)])
        return np.concatenate([gone, known[:, : self.joints]], axis=1)

    @property
    def joints(self) -> int:
        """How many observations are generalised positions; they come first."""
        return self.spec.observation_names.index("vx")


CHOOSING = {"steps": 2, "warm_steps": 2, "candidates": 64, "guidance": "candidates"}


def _paper(horizon: int, multipliers: tuple[int, ...]) -> dict[str, Any]:
    """Diffuser's own settings for locomotion (Janner et al. 2022, appendix C, and their published code)."""
    return {
        "horizon": horizon,
        "noise_levels": 20,
        "multipliers": multipliers,
        "octaves": 0,
        "sampling": {
            "sampler": "ddpm",
            "steps": 20,
            "warm_steps": 20,
            "temperature": 1.0,
            "candidates": 64,
            "select": "preferred",
            "incumbent": False,
            "smoothing": 0.0,
            "guidance": "both",
        },
    }


ROBOTS: dict[str, dict[str, Any]] = {
    "hopper": {
        "joints": "z torso thigh leg foot",
        "rates": "vx vz w_torso w_thigh w_leg w_foot",
        "actions": "thigh leg foot",
        "dt": 0.008,
        "range": (-20.27, 3234.3),
        "levels": {"medium": 1000.0, "expert": 3000.0},
    },
    "halfcheetah": {
        "joints": "z torso bthigh bshin bfoot fthigh fshin ffoot",
        "rates": "vx vz w_torso w_bthigh w_bshin w_bfoot w_fthigh w_fshin w_ffoot",
        "actions": "bthigh bshin bfoot fthigh fshin ffoot",
        "dt": 0.05,
        "range": (-280.18, 12135.0),
        # warm plans run ahead of a body this quick; where data is mixed, choosing is not enough
        "sampling": {
            "medium": CHOOSING,
            "medium-replay": {"steps": 4, "warm_steps": 4},
            "medium-expert": CHOOSING,
        },
        "planning": {
            "horizon": 8,
            "discount": 0.9,
            "guides": ("return@1",),
            "presets": {"paper": _paper(4, (1, 4, 8))},
        },
        "levels": {"medium": 4000.0, "expert": 9000.0},
    },
    "walker2d": {
        "joints": "z torso thigh leg foot thigh_left leg_left foot_left",
        "rates": "vx vz w_torso w_thigh w_leg w_foot w_thigh_left w_leg_left w_foot_left",
        "actions": "thigh leg foot thigh_left leg_left foot_left",
        "dt": 0.008,
        "range": (1.63, 4592.3),
        "sampling": {quality: {"steps": 4} for quality in get_args(Quality)},
        "planning": {"minutes": 30.0},
        "levels": {"medium": 1500.0, "expert": 4000.0},
    },
    "ant": {
        "joints": "z qw qx qy qz hip1 ankle1 hip2 ankle2 hip3 ankle3 hip4 ankle4",
        "rates": "vx vy vz wx wy wz w_hip1 w_ankle1 w_hip2 w_ankle2 w_hip3 w_ankle3 w_hip4 w_ankle4",
        "actions": "hip4 ankle4 hip1 ankle1 hip2 ankle2 hip3 ankle3",
        "forces": 78,
        "dt": 0.05,
        "range": (-325.6, 3879.7),
        "levels": {"medium": 1300.0, "expert": 3500.0},
    },
}
SAMPLING: dict[str, Any] = {
    "candidates": 16,
    "steps": 8,
    "warm_steps": 2,
    "temperature": 0.7,
    "select": "preferred",
    "incumbent": False,
    "smoothing": 0.0,
}
# What planning at every step asks for: few denoising steps, warm, and the return deciding. Sixteen candidates at least:
# smaller batches take other matrix kernels, and an episode would not be the same to the bit alone and beside others.
PLANNING: dict[str, Any] = {
    "horizon": 16,
    "replan_every": 1,
    "minutes": 8.0,
    "collect_minutes": 30.0,
    "collect_steps": 500_000,
    "action_limit": 1.0,
    "normalizer": "gaussian",
    "octaves": 1,
    "multipliers": (1, 2),
    "training": {"action_weight": 1.0, "first_action_weight": 10.0, "batch_size": 128},
    "guides": ("return@0.1",),
    "presets": {"paper": _paper(32, (1, 2, 4, 8))},
}
TITLES = {"hopper": "Hopper", "halfcheetah": "HalfCheetah", "walker2d": "Walker2d", "ant": "Ant"}


def _hub(robot: str, quality: Quality) -> tuple[str, ...]:
    """Minari's own datasets of these robots; it has no replay buffers."""
    kinds = {"medium": ("medium",), "medium-replay": (), "medium-expert": ("medium", "expert")}[quality]
    return tuple(f"mujoco/{robot}/{kind}-v0" for kind in kinds)


def robot_tasks() -> dict[str, Task]:
    """Each robot with each kind of data."""
    made: dict[str, Task] = {}
    for robot, known in ROBOTS.items():
        forces = tuple(f"force{i}" for i in range(known.get("forces", 0)))
        names = (*known["joints"].split(), *known["rates"].split(), *forces)
        spec = TrajectorySpec(tuple(known["actions"].split()), names, dt_seconds=known["dt"])
        for quality in get_args(Quality):
            name = f"{robot}-{quality}"
            made[name] = RobotTask(
                name=name,
                make=f"{TITLES[robot]}-v5",
                dataset=f"diffplan/{robot}/{quality}-v0",
                hub=_hub(robot, quality),
                spec=spec,
                **PLANNING | known.get("planning", {}),
                sampling=SAMPLING | known.get("sampling", {}).get(quality, {}),
                robot=robot,
                quality=quality,
                levels=known["levels"],
                score_range=known["range"],
                hidden=2 if robot == "ant" else 1,
            )
    return made
