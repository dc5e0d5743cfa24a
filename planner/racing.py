"""Following plans as fast as the plant can: a path is smoothed within visited space and run through in least time.

The denoiser says where to go; its data was demonstrated by something that hesitates at every turn. What is kept of a
plan is its path. It is bent as little as it can be where the data has been (alternating direction method of
multipliers, Boyd et al. 2011, section 5: bending energy against the visited space), and its speed is the largest that
the plant's force and velocity allow (time-optimal path parameterization: Bobrow et al. 1985, Pham & Pham 2018).

Shape letters: B paths, N points of a path, P positions, n steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from .course import Course
from .plan import Array, Plan, arc_length
from .plant import Plant

SPACING, POINTS = 1.6, (48, 96, 144, 192)  # voxels between points, at most; how many a path may have
Bending = Sequence[tuple[float, int]]
# Weights of the bending energy and rounds of each, from coarse to exact.
BENDING = ((1e3, 60), (100.0, 80), (10.0, 50), (2.0, 30), (0.3, 30))
GENTLY = ((10.0, 60), (2.0, 40), (0.3, 40))  # where those lead through what is not free
MARGIN = 0.4  # voxels inside visited space that paths keep
RESERVE = 0.99  # of the plant's force is planned with; the rest is for tracking
BLOCKED_SECONDS = 1e3
IDLE = 1e-4  # share of a way's direction below which an axis does not push along it


def courses(plant: Plant, plans: Sequence[Plan], *, bent: bool = True) -> list[Course]:
    """The fastest course along each plan's best candidate: smoothed, or (not `bent`) exactly where the plan goes.

    A course does not depend on what others are laid beside it.
    """
    made = _courses(plant, plans, BENDING if bent else ())
    cut = [i for i, course in enumerate(made) if bent and course.blocked]
    gentler = _courses(plant, [plans[i] for i in cut], GENTLY)  # stiff paths may be pulled through a thin wall
    for i, course in zip(cut, gentler, strict=True):
        made[i] = min(made[i], course, key=lambda c: c.stray)
    return made


def _courses(plant: Plant, plans: Sequence[Plan], bending: Bending) -> list[Course]:
    ways = [_whole_path(plan) for plan in plans]
    counts = [_points_for(plant, path) for path, _ in ways]
    made: dict[int, Course] = {}
    for count in sorted(set(counts)):
        group = [i for i, own in enumerate(counts) if own == count]
        laid = _laid(plant, [plans[i] for i in group], [ways[i] for i in group], count, bending)
        made |= dict(zip(group, laid, strict=True))
    return [made[i] for i in range(len(plans))]


def _laid(
    plant: Plant, plans: Sequence[Plan], ways: Sequence[tuple[Array, Array]], count: int, bending: Bending
) -> list[Course]:
    """Courses of as many points each."""
    starts = np.array([p.observations[0, 0, p.spec.velocity_indices] for p in plans])
    starts = starts if starts.size else np.zeros((len(plans), plant.config.axes))  # where actions set velocities
    laid, along = smooth(plant, [path for path, _ in ways], starts, count=count, bending=bending)
    speeds = top_speeds(plant, laid, np.linalg.norm(starts, axis=1))
    between = np.array([_evenly(points, 2 * count)[0] for points in laid])  # points may jump across a wall
    strays = np.maximum(-plant.depth(between)[0], 0).max(axis=1)
    made = []
    for plan, points, speed, share, (_, steps), stray in zip(plans, laid, speeds, along, ways, strays, strict=True):
        timed, when, seconds = _timed(points, speed, plant.config.dt_seconds)
        velocity = np.diff(timed, axis=0, prepend=timed[:1]) / plant.config.dt_seconds
        plan_steps = np.interp(np.interp(when, np.arange(len(points)), share), np.linspace(0, 1, len(steps)), steps)
        made.append(Course(plant, plan, timed, velocity, plan_steps, seconds, float(stray)))
    return made


def quickest_first(plant: Plant, plans: Sequence[Plan]) -> list[Plan]:
    """The same candidates of each plan, the one whose course is the soonest at the goal first, blocked ones last."""
    singles = [plan.candidate(k) for plan in plans for k in range(len(plan.trajectories))]
    scores = iter(-c.seconds - BLOCKED_SECONDS * (1 + c.stray) * c.blocked for c in courses(plant, singles))
    return [plan.ranked(np.array(list(islice(scores, len(plan.trajectories))))) for plan in plans]


# ---------------------------------------------------------------------- paths


def _whole_path(plan: Plan) -> tuple[Array, Array]:
    """Positions (n, P) from a plan's start to its goal, and the environment steps (n,) that they stand for."""
    steps = np.arange(0, plan.steps + 1, 2, dtype=float)
    end = plan.positions[0, -1]
    return np.vstack([plan.reference(steps).position, end]), np.append(steps, float(plan.steps))


def _points_for(plant: Plant, path: Array) -> int:
    """How many points a path (n, P) takes: few numbers of them, so that many paths share one."""
    wanted = np.linalg.norm(np.diff(path, axis=0), axis=1).sum() / (SPACING * plant.config.voxel)
    return next((count for count in POINTS if count >= wanted), POINTS[-1])


def smooth(
    plant: Plant,
    paths: Sequence[Array],
    velocities: Array,
    *,
    count: int | None = None,
    bending: Bending = BENDING,
) -> tuple[Array, Array]:
    """Paths (B, N, P) between the same ends, bent as little as free space allows, and where each point came from.

    Args:
        plant: whose data has visited the space.
        paths: B paths (n, P) of any lengths.
        velocities: (B, P) at their starts, whose direction is kept.
        count: N; None for what the longest of them takes.
        bending: weights of the bending energy and rounds of each; none only spaces the points evenly.

    Returns:
        paths (B, N, P), and (B, N) the shares of the given path's length (0 to 1) at which its points began.
    """
    from .kernels import bend

    lengths = [float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()) for p in paths]
    count = count or max(_points_for(plant, path) for path in paths)
    first, shares = (np.array(v) for v in zip(*(_evenly(p, count) for p in paths), strict=True))
    ends = np.ascontiguousarray(first[:, [0, -1]])
    spacing = np.array(lengths) / (count - 1)
    speed = np.linalg.norm(velocities, axis=1)
    way = velocities / np.maximum(speed, 1e-9)[:, None] * spacing[:, None]
    moving = speed**2 > plant.limits[0].min() * spacing  # slower ones stop within the first gap
    ahead = ends[:, 0] + way
    points, inside, margin = first.copy(), first.copy(), MARGIN * plant.config.voxel
    for weight, rounds in bending:
        free, held, pull = _bending(count, weight)
        bend(points, inside, ends, moving, ahead, free, held, pull, rounds, margin, *plant.field)
    return points, shares


@lru_cache(maxsize=64)
def _bending(count: int, weight: float) -> tuple[Array, Array, float]:
    """Inverses (N, N) of identity plus weighted bending energy with both ends held.

    In the first the way out of the start is free, in the second it has a heading: a point before the first, which adds
    the energy |x1 - (2 x0 - lead)|^2. Last is the weight of that term.
    """
    second = np.diff(np.eye(count), n=2, axis=0)
    pull = weight * (count / 96) ** 3
    made = []
    for heading in (0.0, pull):
        system = np.eye(count) + pull * second.T @ second
        system[1, 1] += heading
        system[[0, -1]] = 0
        system[0, 0] = system[-1, -1] = 1
        made.append(np.linalg.inv(system))
    return made[0], made[1], pull


def _evenly(path: Array, count: int) -> tuple[Array, Array]:
    """A path (n, P) as points (count, P) evenly spaced along it, and the shares of its n points at which they lie."""
    gone = arc_length(path)
    gone += np.linspace(0, 1e-9, len(gone))  # strictly rising, even where a path stands still
    at = np.interp(np.linspace(0, gone[-1], count), gone, np.linspace(0, 1, len(path)))
    own = np.linspace(0, 1, len(path))
    return np.stack([np.interp(at, own, path[:, i]) for i in range(path.shape[1])], axis=1), at


# ---------------------------------------------------------------------- speeds


def top_speeds(plant: Plant, paths: Array, start: Array) -> Array:
    """Largest speeds (B, N) along paths (B, N, P) from start speeds (B,) to a stop, within the plant's limits.

    One pass from the end keeps every speed low enough to brake from, one from the start low enough to have been
    reached.
    """
    from .kernels import pass_speeds

    most, top = plant.limits
    tangent, bend, gaps = _geometry(paths)
    speed = _turning_limit(tangent, bend, most * RESERVE, top * RESERVE)  # squared from here on
    speed[:, -1] = 0.0
    pass_speeds(speed, tangent, bend, gaps, most * RESERVE, np.asarray(start, dtype=float), IDLE)
    return np.sqrt(np.maximum(speed, 1e-8))


def _geometry(paths: Array) -> tuple[Array, Array, Array]:
    """Unit tangents and curvature vectors (B, N, P), and gaps between points (B, N - 1)."""
    steps = np.diff(paths, axis=1)
    gaps = np.maximum(np.linalg.norm(steps, axis=-1), 1e-9)
    way = steps / gaps[..., None]
    tangent = np.concatenate([way[:, :1], way[:, 1:] + way[:, :-1], way[:, -1:]], axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    bend = np.zeros_like(paths)
    bend[:, 1:-1] = 2 * (way[:, 1:] - way[:, :-1]) / (gaps[:, 1:] + gaps[:, :-1])[..., None]
    return tangent, bend, gaps


def _turning_limit(tangent: Array, bend: Array, most: Array, top: Array) -> Array:
    """Largest squared speeds (B, N) at which some push along the path keeps every axis within its force."""
    limit = ((top / np.maximum(np.abs(tangent), 1e-6)) ** 2).min(axis=-1)
    for i in range(tangent.shape[-1]):
        idle = np.abs(tangent[..., i]) < IDLE  # all of its force may turn: at the point where a way turns back, too
        limit = np.minimum(limit, np.where(idle, most[i] / np.maximum(np.abs(bend[..., i]), 1e-9), np.inf))
        for j in range(i):
            across = np.abs(tangent[..., i] * bend[..., j] - tangent[..., j] * bend[..., i])
            force = most[j] * np.abs(tangent[..., i]) + most[i] * np.abs(tangent[..., j])
            limit = np.minimum(limit, np.where(across > 1e-9, force / np.maximum(across, 1e-9), np.inf))
    return limit


def _timed(points: Array, speeds: Array, dt: float) -> tuple[Array, Array, float]:
    """Positions (n, P) at every step of dt, the points (n,) that they lie between, and the seconds in all."""
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    when = np.concatenate([[0.0], np.cumsum(2 * gaps / (speeds[1:] + speeds[:-1]))])
    clock = np.arange(math.ceil(when[-1] / dt) + 1) * dt
    i = np.clip(np.searchsorted(when, clock, side="right") - 1, 0, len(gaps) - 1)
    after = np.minimum(clock - when[i], when[i + 1] - when[i])
    push = (speeds[i + 1] ** 2 - speeds[i] ** 2) / (2 * np.maximum(gaps[i], 1e-12))
    share = np.clip((speeds[i] + push * after / 2) * after / np.maximum(gaps[i], 1e-12), 0, 1)
    gone = arc_length(points) + np.linspace(0, 1e-9, len(points))
    slope, u, way = np.gradient(points, gone, axis=0), share[:, None], points[i + 1] - points[i]
    lean, tail = (slope[k] * gaps[i][:, None] - way for k in (i, i + 1))  # a cubic, as straight pieces would have kinks
    return points[i] + u * way + u * (1 - u) * ((1 - u) * lean - u * tail), i + share, float(when[-1])
