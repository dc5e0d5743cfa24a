"""What the colour along a path tells: the time, or the speed where a guide asked for a limit.

Shape letters: T steps, O observations, n points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import NDArray

from diffplan.planner.guides.marks import Mark, SpeedLimit

from .colours import SPEED_COLOURS, TIME_COLOURS
from .tasks import Task

Array = NDArray[np.floating[Any]]

HEADROOM = 1.05  # of the speed colours, above the limit or the fastest seen


@dataclass(frozen=True)
class Shades:
    """A scale of colours from 0 to `top`.

    Attributes:
        top: its upper end, in seconds or in units per second.
        limit: the speed to stay below; None colours by time.
        velocity: where the velocities stand among the observations (O,).
        tempo: speeds are that many times the velocities.
    """

    top: float
    limit: float | None = None
    velocity: tuple[int, ...] = ()
    tempo: float = 1.0

    @property
    def unit(self) -> str:
        return "s" if self.limit is None else "m/s"

    @property
    def colours(self) -> ListedColormap:
        return TIME_COLOURS if self.limit is None else SPEED_COLOURS

    @property
    def norm(self) -> Normalize:
        return Normalize(0, self.top)

    def values(self, observations: Array, seconds: Array) -> Array:
        """(n,) times, or speeds, of observations (n, O) at times (n,)."""
        if self.limit is None:
            return seconds
        return np.asarray(self.tempo * np.linalg.norm(observations[..., list(self.velocity)], axis=-1))


def shades_for(
    task: Task,
    observations: Array,
    seconds: Array,
    marks: Sequence[Mark],
    *,
    tempo: float = 1.0,
    scale_to: float | None = None,
) -> Shades:
    """How to colour a path: by speed if `marks` limit it and the task shows it from above, else by time.

    Args:
        task: its spec names the velocities.
        observations: (n, O).
        seconds: (n,).
        marks: of several speed limits the lowest counts.
        tempo: how much faster than these velocities the path is followed.
        scale_to: the upper end; None takes the end of the path, or a little above its fastest point and the limit.
    """
    for name, value in (("tempo", tempo), ("scale_to", 1.0 if scale_to is None else scale_to)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive and finite")
    limits = [mark.max for mark in marks if isinstance(mark, SpeedLimit)]
    if not limits or not task.spec.velocity or len(task.spec.position) != 2:
        return Shades(scale_to or max(float(seconds[-1]), 1e-9))
    shades = Shades(min(limits), min(limits), tuple(task.spec.velocity_indices), tempo)
    fastest = float(shades.values(observations, seconds).max())
    return replace(shades, top=scale_to or HEADROOM * max(min(limits), fastest))
