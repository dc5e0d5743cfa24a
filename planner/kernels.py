"""The loops of `racing` over points and rounds, compiled: numpy spends most of such small steps on getting started.

They are compiled once and kept on disk. Imported where they are first used, since numba takes a second to import.

Shape letters: B paths, N points of a path, P positions, M points, V voxels, F fields.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .plan import Array

STEEP = 0.2  # slope of the depth, at least: on a ridge it is none
CIRCLES = 3  # the force left for braking depends on the speed itself


@njit(cache=True)
def _interpolate(fields: Array, shape: NDArray[np.int64], at: Array, out: Array) -> float:
    """Fields (F, V) at a place in voxels (P,), linear between the voxels around it; how far outside it lies."""
    axes = len(shape)
    base, share, beyond = np.empty(axes, np.int64), np.empty(axes), 0.0
    for axis in range(axes):
        held = min(max(at[axis], 0.0), shape[axis] - 1.0)
        beyond += (at[axis] - held) ** 2
        low = min(max(int(held), 0), max(shape[axis] - 2, 0))
        base[axis], share[axis] = low, held - low
    out[:] = 0.0
    for corner in range(2**axes):
        index, weight = 0, 1.0
        for axis in range(axes):
            up = (corner >> axis) & 1
            weight *= share[axis] if up else 1.0 - share[axis]
            index = index * shape[axis] + min(base[axis] + up, shape[axis] - 1)
        if weight != 0.0:
            for field in range(len(out)):
                out[field] += weight * fields[field, index]
    return math.sqrt(beyond)


@njit(cache=True)
def interpolate(fields: Array, shape: NDArray[np.int64], at: Array) -> tuple[Array, Array]:
    """Fields (M, F) at places in voxels (M, P), and how far outside the grid each lies (M,), in voxels."""
    made, beyond = np.empty((len(at), len(fields))), np.empty(len(at))
    for i in range(len(at)):
        beyond[i] = _interpolate(fields, shape, at[i], made[i])
    return made, beyond


@njit(cache=True)
def bend(
    points: Array,
    inside: Array,
    ends: Array,
    moving: NDArray[np.bool_],
    ahead: Array,
    free: Array,
    held: Array,
    pull: float,
    rounds: int,
    margin: float,
    fields: Array,
    shape: NDArray[np.int64],
    origin: Array,
    voxel: float,
) -> None:
    """Rounds of the alternating direction method of multipliers for each path; changes `points` and `inside`.

    Args:
        points: (B, N, P) as bent.
        inside: (B, N, P) the nearest that are free.
        ends: (B, 2, P) held.
        moving: (B,) whether the way out of the start has a heading.
        ahead: (B, P) where that leads.
        free, held: (N, N) inverses, see `racing._bending`.
        pull: weight of the heading.
        rounds: how many.
        margin: depth to be kept, in position units.
        fields: (1 + P, V) depth and its slopes.
        shape: (P,) of the grid.
        origin: (P,) its corner.
        voxel: its side.
    """
    count, axes = inside.shape[1], inside.shape[2]
    look, at = np.empty(1 + axes), np.empty(axes)
    for b in range(len(inside)):
        matrix = held if moving[b] else free
        debt = np.zeros((count, axes))
        wanted = np.empty((count, axes))
        for _ in range(rounds):
            wanted[:] = inside[b] - debt
            wanted[0], wanted[-1] = ends[b, 0], ends[b, 1]
            if moving[b]:
                wanted[1] += pull * ahead[b]
            points[b] = matrix @ wanted
            for i in range(count):
                for axis in range(axes):
                    at[axis] = (points[b, i, axis] + debt[i, axis] - origin[axis]) / voxel - 0.5
                depth = -_interpolate(fields, shape, at, look) * voxel
                depth += look[0]
                steep = 0.0
                for axis in range(axes):
                    steep += look[1 + axis] ** 2
                move = max(margin - depth, 0.0) / max(math.sqrt(steep), STEEP)
                last = i == 0 or i == count - 1
                for axis in range(axes):
                    reached = points[b, i, axis] + debt[i, axis]
                    inside[b, i, axis] = reached + move * look[1 + axis]
                    if last:
                        inside[b, i, axis] = ends[b, 0 if i == 0 else 1, axis]
                    debt[i, axis] = reached - inside[b, i, axis]


@njit(cache=True)
def _push_limits(tangent: Array, bend: Array, squared: float, most: Array, idle: float) -> tuple[float, float]:
    """Least and largest acceleration along the path at a squared speed."""
    low, high = -np.inf, np.inf
    for axis in range(len(tangent)):
        if abs(tangent[axis]) > idle:
            turning = bend[axis] * squared
            one = (-most[axis] - turning) / tangent[axis]
            two = (most[axis] - turning) / tangent[axis]
            low, high = max(low, min(one, two)), min(high, max(one, two))
    return (low if low > -np.inf else -most.min()), (high if high < np.inf else most.min())


@njit(cache=True)
def pass_speeds(
    squared: Array, tangent: Array, bend: Array, gaps: Array, most: Array, start: Array, idle: float
) -> None:
    """Lower squared speeds (B, N) to what can be braked from, from the end, and to what can be reached, from the start.

    Args:
        squared: (B, N), changed; the last is where to end.
        tangent, bend: (B, N, P) unit tangents and curvature vectors.
        gaps: (B, N - 1) between points.
        most: (P,) largest acceleration.
        start: (B,) speeds.
        idle: share of a way's direction below which an axis does not push along it.
    """
    count = squared.shape[1]
    for b in range(len(squared)):
        for i in range(count - 2, -1, -1):
            here = squared[b, i]
            for _ in range(CIRCLES):
                low, _high = _push_limits(tangent[b, i], bend[b, i], here, most, idle)
                here = min(squared[b, i], squared[b, i + 1] - 2 * gaps[b, i] * min(low, 0.0))
            squared[b, i] = max(here, 0.0)
        squared[b, 0] = min(squared[b, 0], start[b] ** 2)
        for i in range(count - 1):
            _low, high = _push_limits(tangent[b, i], bend[b, i], squared[b, i], most, idle)
            squared[b, i + 1] = min(squared[b, i + 1], squared[b, i] + 2 * gaps[b, i] * max(high, 0.0))
