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
def _between(field: Array, width: int, x: float, y: float) -> float:
    """A field (V,) of a plane at a place within it, in voxels, linear between the four around it."""
    row, column = int(x), int(y)
    u, v, index = x - row, y - column, row * width + column
    near = (1.0 - v) * field[index] + v * field[index + 1]
    return (1.0 - u) * near + u * ((1.0 - v) * field[index + width] + v * field[index + width + 1])


@njit(cache=True)
def _bend_in_plane(
    points: Array,
    inside: Array,
    ends: Array,
    moving: bool,
    ahead: Array,
    matrix: Array,
    pull: float,
    rounds: int,
    margin: float,
    fields: Array,
    shape: NDArray[np.int64],
    origin: Array,
    voxel: float,
) -> None:
    """`bend` for one path (N, 2), written out: it is most of what planning in a maze does, and six times as fast."""
    count, per = len(points), 1.0 / voxel
    wanted, bent, free, debt = (np.empty((2, count)), np.empty((2, count)), inside.T.copy(), np.zeros((2, count)))
    look, at = np.empty(3), np.empty(2)
    for _ in range(rounds):
        for axis in range(2):
            for i in range(count):
                wanted[axis, i] = free[axis, i] - debt[axis, i]
            wanted[axis, 0], wanted[axis, count - 1] = ends[0, axis], ends[1, axis]
            if moving:
                wanted[axis, 1] += pull * ahead[axis]
        np.dot(wanted, matrix, bent)
        for i in range(1, count - 1):
            x, y = bent[0, i] + debt[0, i], bent[1, i] + debt[1, i]
            at[0], at[1] = (x - origin[0]) * per - 0.5, (y - origin[1]) * per - 0.5
            if 0.0 <= at[0] < shape[0] - 1 and 0.0 <= at[1] < shape[1] - 1:
                look[0] = _between(fields[0], shape[1], at[0], at[1])
                if look[0] >= margin:  # most points: nothing moves them
                    free[0, i], free[1, i], debt[0, i], debt[1, i] = x, y, 0.0, 0.0
                    continue
                look[1] = _between(fields[1], shape[1], at[0], at[1])
                look[2] = _between(fields[2], shape[1], at[0], at[1])
            else:
                beyond = _interpolate(fields, shape, at, look)
                look[0] -= beyond * voxel
            move = max(margin - look[0], 0.0) / max(math.sqrt(look[1] ** 2 + look[2] ** 2), STEEP)
            free[0, i], free[1, i] = x + move * look[1], y + move * look[2]
            debt[0, i], debt[1, i] = x - free[0, i], y - free[1, i]
        for axis in range(2):
            for i, end in ((0, 0), (count - 1, 1)):
                free[axis, i] = ends[end, axis]
                debt[axis, i] += bent[axis, i] - ends[end, axis]
    points[:], inside[:] = bent.T, free.T


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
        free, held: (N, N) transposed inverses, see `racing._bending`.
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
        if axes == 2 and rounds > 0:
            known = (pull, rounds, margin, fields, shape, origin, voxel)
            _bend_in_plane(points[b], inside[b], ends[b], moving[b], ahead[b], matrix, *known)
            continue
        debt = np.zeros((count, axes))
        wanted = np.empty((count, axes))
        for _ in range(rounds):
            wanted[:] = inside[b] - debt
            wanted[0], wanted[-1] = ends[b, 0], ends[b, 1]
            if moving[b]:
                wanted[1] += pull * ahead[b]
            points[b] = matrix.T @ wanted
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
def evenly(path: Array, count: int) -> tuple[Array, Array]:
    """A path (n, P) as points (count, P) evenly spaced along it, and the shares of its n points at which they lie."""
    size, axes = path.shape
    gone = np.zeros(size)
    for i in range(1, size):
        step = 0.0
        for axis in range(axes):
            step += (path[i, axis] - path[i - 1, axis]) ** 2
        gone[i] = gone[i - 1] + math.sqrt(step)
    for i in range(size):
        gone[i] += 1e-9 * i / max(size - 1, 1)  # strictly rising, even where a path stands still
    points, at, i = np.empty((count, axes)), np.empty(count), 0
    for k in range(count):
        want = gone[size - 1] * k / (count - 1)
        while i < size - 2 and gone[i + 1] < want:
            i += 1
        u = min(max((want - gone[i]) / (gone[i + 1] - gone[i]), 0.0), 1.0) if size > 1 else 0.0
        at[k] = (i + u) / max(size - 1, 1)
        for axis in range(axes):
            points[k, axis] = (1 - u) * path[i, axis] + u * path[min(i + 1, size - 1), axis]
    return points, at


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
def speeds_along(path: Array, start: float, most: Array, top: Array, idle: float) -> Array:
    """Largest squared speeds (N,) along a path (N, P) from a speed to a stop.

    One pass from the end keeps every speed low enough to brake from, one from the start low enough to have been
    reached.

    Args:
        path: points.
        start: speed at the first.
        most: (P,) largest acceleration.
        top: (P,) largest velocity.
        idle: share of a way's direction below which an axis does not push along it.
    """
    tangent, bend, gaps = _geometry(path)
    count = len(path)
    squared = np.empty(count)
    for i in range(count):
        squared[i] = _turning_limit(tangent[i], bend[i], most, top, idle)
    squared[count - 1] = 0.0
    for i in range(count - 2, -1, -1):
        here = squared[i]
        for _ in range(CIRCLES):
            low, _high = _push_limits(tangent[i], bend[i], here, most, idle)
            here = min(squared[i], squared[i + 1] - 2 * gaps[i] * min(low, 0.0))
        squared[i] = max(here, 0.0)
    squared[0] = min(squared[0], start**2)
    for i in range(count - 1):
        _low, high = _push_limits(tangent[i], bend[i], squared[i], most, idle)
        squared[i + 1] = min(squared[i + 1], squared[i] + 2 * gaps[i] * max(high, 0.0))
    return squared


@njit(cache=True)
def _geometry(path: Array) -> tuple[Array, Array, Array]:
    """Unit tangents and curvature vectors (N, P), and gaps between points (N - 1,)."""
    count, axes = path.shape
    gaps, way = np.empty(count - 1), np.empty((count - 1, axes))
    for i in range(count - 1):
        size = 0.0
        for axis in range(axes):
            way[i, axis] = path[i + 1, axis] - path[i, axis]
            size += way[i, axis] ** 2
        gaps[i] = max(math.sqrt(size), 1e-9)
        way[i] /= gaps[i]
    tangent, bend = np.empty((count, axes)), np.zeros((count, axes))
    for i in range(count):
        before, after = max(i - 1, 0), min(i, count - 2)
        size = 0.0
        for axis in range(axes):
            tangent[i, axis] = way[before, axis] + way[after, axis]
            size += tangent[i, axis] ** 2
        size = math.sqrt(size)
        for axis in range(axes):
            tangent[i, axis] /= max(size, 1e-9)
            if 0 < i < count - 1:
                bend[i, axis] = 2 * (way[after, axis] - way[before, axis]) / (gaps[i] + gaps[i - 1])
    return tangent, bend, gaps


@njit(cache=True)
def _turning_limit(tangent: Array, bend: Array, most: Array, top: Array, idle: float) -> float:
    """Largest squared speed at which some push along the path keeps every axis within its force and velocity."""
    limit = np.inf
    for i in range(len(tangent)):
        limit = min(limit, (top[i] / max(abs(tangent[i]), 1e-6)) ** 2)
        if abs(tangent[i]) < idle:  # all of its force may turn: at the point where a way turns back, too
            limit = min(limit, most[i] / max(abs(bend[i]), 1e-9))
        for j in range(i):
            across = abs(tangent[i] * bend[j] - tangent[j] * bend[i])
            if across > 1e-9:
                limit = min(limit, (most[j] * abs(tangent[i]) + most[i] * abs(tangent[j])) / across)
    return limit


@njit(cache=True)
def timed(points: Array, speeds: Array, dt: float) -> tuple[Array, Array, float]:
    """Positions (n, P) at every step of dt, the points (n,) that they lie between, and the seconds in all.

    Between points (N, P) a cubic, as straight pieces would have kinks.
    """
    count, axes = points.shape
    gaps, when, gone = np.empty(count - 1), np.zeros(count), np.zeros(count)
    for i in range(count - 1):
        size = 0.0
        for axis in range(axes):
            size += (points[i + 1, axis] - points[i, axis]) ** 2
        gaps[i] = math.sqrt(size)
        when[i + 1] = when[i] + 2 * gaps[i] / (speeds[i + 1] + speeds[i])
        gone[i + 1] = gone[i] + gaps[i]
    for i in range(count):
        gone[i] += 1e-9 * i / (count - 1)
    slope = np.empty((count, axes))
    for i in range(count):
        before, after = max(i - 1, 0), min(i + 1, count - 1)
        back, on = gone[i] - gone[before], gone[after] - gone[i]
        for axis in range(axes):
            if i in (0, count - 1):
                slope[i, axis] = (points[after, axis] - points[before, axis]) / (back + on)
            else:
                rise = back**2 * points[after, axis] + (on**2 - back**2) * points[i, axis]
                slope[i, axis] = (rise - on**2 * points[before, axis]) / (back * on * (back + on))
    steps = math.ceil(when[-1] / dt) + 1
    made, at, i = np.empty((steps, axes)), np.empty(steps), 0
    for n in range(steps):
        clock = n * dt
        while i < count - 2 and when[i + 1] <= clock:
            i += 1
        after = min(clock - when[i], when[i + 1] - when[i])
        push = (speeds[i + 1] ** 2 - speeds[i] ** 2) / (2 * max(gaps[i], 1e-12))
        u = min(max((speeds[i] + push * after / 2) * after / max(gaps[i], 1e-12), 0.0), 1.0)
        at[n] = i + u
        for axis in range(axes):
            way = points[i + 1, axis] - points[i, axis]
            lean, tail = slope[i, axis] * gaps[i] - way, slope[i + 1, axis] * gaps[i] - way
            made[n, axis] = points[i, axis] + u * way + u * (1 - u) * ((1 - u) * lean - u * tail)
    return made, at, when[-1]


@njit(cache=True)
def run_through(
    points: Array,
    start: float,
    most: Array,
    top: Array,
    idle: float,
    dt: float,
    fields: Array,
    shape: NDArray[np.int64],
    origin: Array,
    voxel: float,
) -> tuple[Array, Array, float, float]:
    """A bent path (N, P) in least time, as `timed` gives it, and how far it strays from what is free."""
    squared = speeds_along(points, start, most, top, idle)
    made, at, seconds = timed(points, np.sqrt(np.maximum(squared, 1e-8)), dt)
    between, _shares = evenly(points, 2 * len(points))  # points may jump across a wall
    look, place, stray = np.empty(1 + len(shape)), np.empty(len(shape)), 0.0
    for i in range(len(between)):
        for axis in range(len(shape)):
            place[axis] = (between[i, axis] - origin[axis]) / voxel - 0.5
        beyond = _interpolate(fields, shape, place, look)
        stray = max(stray, beyond * voxel - look[0])
    return made, at, seconds, stray


@njit(cache=True)
def spline(positions: Array, velocities: Array, absorbed: int, pace: float, seconds: float, steps: Array) -> Array:
    """Positions (n, P) of tokens (H, P) at environment steps (n,): cubic Hermite splines with velocities as slopes.

    Args:
        positions: of the tokens.
        velocities: (H, P) per second.
        absorbed: token from which on slopes are zero.
        pace: tokens per step.
        seconds: of a token.
        steps: past the last token it stays.
    """
    count, axes = positions.shape
    made = np.empty((len(steps), axes))
    for n in range(len(steps)):
        time = min(max(steps[n] * pace, 0.0), count - 1.0)
        token = min(int(time), count - 2)
        u, slope = time - token, 0.0 if token >= absorbed else seconds
        a, b = 2 * u**3 - 3 * u**2 + 1, u**3 - 2 * u**2 + u
        c, d = 3 * u**2 - 2 * u**3, u**3 - u**2
        for axis in range(axes):
            one, two = positions[token, axis], positions[token + 1, axis]
            go, come = velocities[token, axis] * slope, velocities[token + 1, axis] * slope
            made[n, axis] = a * one + b * go + c * two + d * come
    return made
