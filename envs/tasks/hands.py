"""Adroit's hand (door, pen, hammer, relocate) and Franka's kitchen, with D4RL's data from the Minari hub.

The data was recorded by people and by policies that are not at hand here, so nothing but the hub (or a Minari dataset
of the user's own) can give it. There is no goal to pin: these tasks are led by the return, as running robots are.
Lengths are metres, angles radians, rates per second.

Adroit's rewards are those of the installed gymnasium-robotics, which in door, hammer and relocate pays a tenth of the
palm's distance where D4RL's code takes it: of the score that is about a point at most.

Shape letters: S recorded states, T steps, N episodes, O observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.spec import TrajectorySpec

from ..quiet import quiet_imports
from .robots import PLANNING, SAMPLING
from .task import Array, Task


@dataclass(frozen=True)
class HandTask(Task):
    """A hand with something to do, scored as D4RL does.

    Args:
        score_range: (random policy's, expert's) return, the ends of the D4RL score.
        success_reward: a step that earns more is one at which the environment reports success.
    """

    score_range: tuple[float, float] = (0.0, 1.0)
    success_reward: float = 0.0

    def environment(self, *, render_mode: str | None = None) -> Any:
        return self._made(render_mode=render_mode)

    def _made(self, **options: Any) -> Any:
        with quiet_imports():
            import gymnasium
            import gymnasium_robotics

            gymnasium.register_envs(gymnasium_robotics)
            return gymnasium.make(str(self.make), **options).unwrapped

    def achieved(self, rewards: ArrayLike) -> NDArray[np.bool_]:
        """At which steps (T,) of an episode the environment reports success: only there it pays its last bonus."""
        return np.asarray(rewards, dtype=float) > self.success_reward


@dataclass(frozen=True)
class KitchenTask(HandTask):
    """Four things to do in a kitchen, in any order; each pays 1 when it is done for the first time.

    Args:
        subtasks: their names in the environment.
    """

    subtasks: tuple[str, ...] = ()

    def environment(self, *, render_mode: str | None = None) -> Any:
        return self._made(render_mode=render_mode, tasks_to_complete=list(self.subtasks))

    def reset(
        self, env: Any, rng: np.random.Generator, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Begin an episode; the environment's goal is a dictionary of subtasks that is always the same, so no goal."""
        return super().reset(env, rng, start=start, goal=())

    def rewards(self, episodes: Episodes) -> NDArray[np.float32]:
        """How many subtasks are done so far, at every step (S,): the sooner they are, the more is earned.

        Counted from the observations, because datasets differ: the hub's were recorded by environments that pay for
        what is done at every step, the environment's own default pays once.
        """
        done = self.done(episodes.observations)
        counts = np.zeros(len(done), dtype=np.float32)
        for begin, end in zip(episodes.offsets[:-1], episodes.offsets[1:], strict=True):
            counts[begin : end - 1] = np.maximum.accumulate(done[begin + 1 : end], axis=0).sum(axis=1)
        return counts

    def failures(self, terminated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """None of (N,): an episode that ends before its time has done everything, which goes on to count."""
        return np.zeros_like(terminated)

    def done(self, observations: ArrayLike) -> NDArray[np.bool_]:
        """Which subtasks are done in observations (..., O), by the environment's own threshold."""
        with quiet_imports():
            from gymnasium_robotics.envs.franka_kitchen import kitchen_env as kitchen
        states = np.asarray(observations, dtype=float)
        gaps = [
            states[..., kitchen.OBS_ELEMENT_INDICES[name] + ROBOT_JOINTS] - kitchen.OBS_ELEMENT_GOALS[name]
            for name in self.subtasks
        ]
        return np.stack([np.linalg.norm(gap, axis=-1) < kitchen.BONUS_THRESH for gap in gaps], axis=-1)

    def achieved(self, rewards: ArrayLike) -> NDArray[np.bool_]:
        """At which steps (T,) all subtasks had been done."""
        return np.cumsum(np.asarray(rewards, dtype=float)) > len(self.subtasks) - 0.5


def _axes(*names: str, axes: str = "x y z") -> tuple[str, ...]:
    return tuple(f"{name}_{axis}" for name in names for axis in axes.split())


TWIST = "vx vy vz wx wy wz"
WRIST = ("WRJ1", "WRJ0")  # the ShadowHand's own names of joints, here and below
FINGERS = (
    *("FFJ3", "FFJ2", "FFJ1", "FFJ0"),
    *("MFJ3", "MFJ2", "MFJ1", "MFJ0"),
    *("RFJ3", "RFJ2", "RFJ1", "RFJ0"),
    *("LFJ4", "LFJ3", "LFJ2", "LFJ1", "LFJ0"),
    *("THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
)
HAND = WRIST + FINGERS
DOOR_ARM, HAMMER_ARM = ("ARTz", "ARRx", "ARRy", "ARRz"), ("ARRx", "ARRy")
RELOCATE_ARM = ("ARTx", "ARTy", "ARTz", "ARRx", "ARRy", "ARRz")

# Guides weigh returns in reward units, and these differ: an expert earns about 20 (door), 60 (pen), 100 (hammer), 30
# (relocate) or up to 4 (kitchen) a step. The weights ask as much of each as running robots' 0.1 asks of them.
HANDS: dict[str, dict[str, Any]] = {
    "door": {
        "actions": DOOR_ARM + HAND,
        "observations": (
            *(DOOR_ARM + HAND)[1:],  # how far the arm is out is not observed
            *("latch", "door_hinge"),
            *_axes("palm", "handle", "handle_to_palm"),
            "door_open",
        ),
        "range": (-56.512833, 2880.5693847087),
        "success_reward": 15.0,
        "guides": ("return@0.02",),
    },
    "pen": {
        "actions": HAND,
        "observations": (
            *HAND,
            *_axes("pen"),
            *_axes("pen", axes=TWIST),
            *_axes("pen", "target", axes="dx dy dz"),  # which way they point
            *_axes("target_to_pen"),
            *_axes("target_to_pen", axes="dx dy dz"),
        ),
        "range": (96.262799, 3076.8331017826877),
        "success_reward": 40.0,
        "guides": ("return@0.005",),
        "episode_steps": 100,
    },
    "hammer": {
        "actions": HAMMER_ARM + HAND,
        "observations": (
            *HAMMER_ARM,
            *HAND,
            "nail",
            *_axes("hammer", axes=TWIST),
            *_axes("palm", "hammer"),
            *_axes("hammer", axes="roll pitch yaw"),
            *_axes("nail"),
            "nail_force",
        ),
        "range": (-274.856578, 12794.134825156867),
        "success_reward": 50.0,
        "guides": ("return@0.003",),
    },
    "relocate": {
        "actions": RELOCATE_ARM + HAND,
        "observations": (*RELOCATE_ARM, *HAND, *_axes("ball_to_palm", "target_to_palm", "target_to_ball")),
        "range": (-6.425911, 4233.877797728884),
        "success_reward": 5.0,
        "guides": ("return@0.01",),
    },
}
KINDS = ("human", "cloned", "expert")

ROBOT_JOINTS = 9  # of the kitchen's arm: its positions and its rates stand before everything else
ARM = tuple(f"joint{i}" for i in range(1, 8)) + ("finger1", "finger2")
KNOBS = ("knob1", "bottom_right", "knob2", "bottom_left", "knob3", "top_right", "knob4", "top_left")  # and burners
FURNITURE = (*KNOBS, "light_switch", "light", "slide_cabinet", "left_hinge", "right_hinge", "microwave")
KITCHENS = {  # which four, as D4RL has them
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
    "partial": ("microwave", "kettle", "light switch", "slide cabinet"),
}

# Settings have not been tuned: the hub's data was not at hand.
SETTINGS: dict[str, Any] = PLANNING | {
    "hub_only": True,
    "collect_minutes": 0.0,
    "horizon": 32,
    "replan_every": 4,
    "sampling": SAMPLING,
    "presets": {},
}


def hand_tasks() -> dict[str, Task]:
    """Each hand, and the kitchen, with each kind of data."""
    made: list[Task] = [_hand(name, kind) for name in HANDS for kind in KINDS]
    made += [_kitchen(kind) for kind in KITCHENS]
    return {task.name: task for task in made}


def _hand(name: str, kind: str) -> HandTask:
    known = HANDS[name]
    return HandTask(
        **SETTINGS | {"guides": known["guides"], "episode_steps": known.get("episode_steps", 200)},
        **_data(name, kind),
        make=f"AdroitHand{name.capitalize()}-v1",
        spec=TrajectorySpec(known["actions"], known["observations"], dt_seconds=0.01),
        score_range=known["range"],
        success_reward=known["success_reward"],
    )


def _kitchen(kind: str) -> KitchenTask:
    things = (*FURNITURE, *_axes("kettle", axes="x y z qw qx qy qz"))
    rates = (*(f"w_{name}" for name in FURNITURE), *_axes("kettle", axes=TWIST))
    names = (*ARM, *(f"w_{name}" for name in ARM), *things, *rates)
    return KitchenTask(
        **SETTINGS | {"guides": ("return@0.1",), "episode_steps": 280},
        **_data("kitchen", kind),
        make="FrankaKitchen-v1",
        spec=TrajectorySpec(tuple(f"w_{name}" for name in ARM), names, dt_seconds=0.08),
        score_range=(0.0, 4.0),
        subtasks=KITCHENS[kind],
    )


def _data(family: str, kind: str) -> dict[str, Any]:
    """Names of a task and of its data, which is the hub's."""
    dataset = f"D4RL/{family}/{kind}-v2"
    return {"name": f"{family}-{kind}", "dataset": dataset, "hub": (dataset,)}
