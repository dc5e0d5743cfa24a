"""Scripted experts for the Fetch arm: they look at where things are, so what went wrong is done again.

Each is a function of the observation alone (of the phase nothing is remembered): an object that slipped is grasped
again, one that was pushed aside is pushed from its new far side.

Shape letters: O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GAIN = 12.0  # action per metre: one makes the gripper go about 32 mm in a step
OPEN, SHUT = 1.0, -1.0
GRASPED = 0.0265  # metres: fingers closer than this hold the block, which is 50 mm wide
HOVER, LIFT = 0.06, 0.05  # metres above the block before it is grasped; above the table while it is carried
TABLE = 0.425  # metres, height of a block's middle on the table


@dataclass(frozen=True)
class Seen:
    """An observation of the arm (see `tasks.arms`), by parts."""

    grip: Array
    fingers: float
    object: Array
    object_velocity: Array

    @classmethod
    def of(cls, observation: Array) -> Seen:
        return cls(observation[0:3], float(observation[6:8].mean()), observation[8:11], observation[11:14])


def reach(observation: Array, goal: Array) -> Array:
    """Straight to the goal."""
    return action(GAIN * (goal - observation[:3]), 0.0)


def pick_and_place(observation: Array, goal: Array) -> Array:
    """Over the block, down, grasp, lift, carry: whichever of these is next."""
    seen = Seen.of(observation)
    off = seen.object - seen.grip
    aside, over = float(np.hypot(*off[:2])), float(-off[2])
    if aside < 0.02 and abs(over) < 0.02:  # the block is between the fingers
        if seen.fingers > GRASPED:
            return action(GAIN * off, SHUT)
        return action(GAIN * (_carried_to(seen.object, goal) - seen.object), SHUT)
    if aside < 0.01 or (aside < 0.03 and over < HOVER / 2):
        return action(GAIN * off, OPEN)
    above = seen.object + (0, 0, HOVER)
    if over < HOVER / 2:  # rise before crossing, or the block would be swept along
        above = np.append(seen.grip[:2] + np.clip(off[:2], -0.01, 0.01) * (over > 0), above[2])
    return action(GAIN * (above - seen.grip), OPEN)


def _carried_to(block: Array, goal: Array) -> Array:
    """Where to bring the block next: over the table while the goal is far, so that it does not drag."""
    far = float(np.hypot(*(goal - block)[:2])) > 0.03
    return np.append(goal[:2], max(goal[2], TABLE + LIFT)) if far and goal[2] < TABLE + LIFT else goal


BEHIND, ABREAST = 0.075, 0.015  # metres from the block's middle; from the line through it and the goal
NEAR = 0.01  # metres from the goal at which pushing ends


def push(observation: Array, goal: Array) -> Array:
    """Around to the far side of the block, down, and along the line to the goal."""
    seen = Seen.of(observation)
    way = (goal - seen.object)[:2]
    gap = float(np.hypot(*way))
    if gap < NEAR:
        return np.zeros(4)
    along = way / gap
    off = (seen.grip - seen.object)[:2]
    ahead, aside = float(off @ along), off - (off @ along) * along
    low = seen.grip[2] < TABLE + 0.03
    if low and ahead < -0.02 and np.hypot(*aside) < ABREAST + 0.02 * (ahead > -BEHIND - 0.01):
        speed = min(1.0, 8 * gap + 0.15)
        return action(np.append(speed * along - GAIN * aside, GAIN * (TABLE - seen.grip[2])), 0.0)
    return _go_behind(seen, seen.object[:2] - BEHIND * along, off)


BRAKING = 1.0  # m/s^2: a sliding puck loses 0.04 m/s in a step of 0.04 s
STRUCK = 1.08  # m/s that a puck has after a strike, for an action of 1
SLIDING = 0.42  # metres, height of the gripper behind the puck
RUN_UP, SQUARE = 0.085, 0.006  # metres behind the puck where a strike begins; from the line at most


def slide(observation: Array, goal: Array) -> Array:
    """Behind the puck, then one strike of the impulse that will carry it to the goal, and another if that fell short.

    The puck slides v^2 / (2 a) far, and leaves the gripper a little faster than the gripper is: both were measured.
    """
    seen = Seen.of(observation)
    way = (goal - seen.object)[:2]
    gap = float(np.hypot(*way))
    along = way / max(gap, 1e-9)
    speed = float(seen.object_velocity[:2] @ along)
    if gap < 0.04 or speed**2 / (2 * BRAKING) > gap - NEAR:
        return np.zeros(4)
    off = (seen.grip - seen.object)[:2]
    ahead, aside = float(off @ along), off - (off @ along) * along
    low = seen.grip[2] < TABLE + 0.02
    if low and -0.2 < ahead < -0.02 and np.hypot(*aside) < SQUARE + 0.01 * (ahead > -RUN_UP + 0.01):
        strike = min(1.0, max(0.25, np.sqrt(2 * BRAKING * max(gap - 0.03, 0)) / STRUCK))
        return action(np.append(strike * along - GAIN * aside, GAIN * (SLIDING - seen.grip[2])), 0.0)
    return _go_behind(seen, seen.object[:2] - RUN_UP * along, off)


def _go_behind(seen: Seen, place: Array, off: Array) -> Array:
    """To a place beside the object by way of the air above it; straight there where nothing is between."""
    left = place - seen.grip[:2]
    if np.hypot(*left) < 0.012:
        return action(np.append(GAIN * left, GAIN * (TABLE - seen.grip[2])), 0.0)
    high = TABLE + 0.075
    risen = seen.grip[2] > high - 0.02 or np.hypot(*off) > 0.12
    sideways = left if risen else np.zeros(2)
    return action(GAIN * np.append(sideways, high - seen.grip[2]), 0.0)


def action(move: Array, fingers: float) -> Array:
    """(4,): a displacement, limited, and what the fingers do."""
    return np.append(np.clip(move, -1, 1), fingers)


Expert = Callable[[Array, Array], Array]
EXPERTS: dict[str, Expert] = {"reach": reach, "push": push, "pick-and-place": pick_and_place, "slide": slide}
