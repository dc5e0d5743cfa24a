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
from .plan import Array, Plan
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
    from .kernels import run_through

    starts = np.array([p.observations[0, 0, p.spec.velocity_indices] for p in plans], dtype=float)
    starts = starts if starts.size else np.zeros((len(plans), plant.config.axes))  # where actions set velocities
    laid, along = smooth(plant, [path for path, _ in ways], starts, count=count, bending=bending)
    (most, top), dt = plant.limits, plant.config.dt_seconds
    made = []
    for plan, points, start, share, (_, steps) in zip(plans, laid, starts, along, ways, strict=True):
        known = (most * RESERVE, top * RESERVE, IDLE, dt, *plant.field)
        path, when, seconds, stray = run_through(points, math.hypot(*start), *known)
        velocity = np.zeros_like(path)
        velocity[1:] = (path[1:] - path[:-1]) / dt
        gone = np.interp(when, np.arange(len(points)), share)
        plan_steps = np.interp(gone, np.linspace(0, 1, len(steps)), steps)
        made.append(Course(plant, plan, path, velocity, plan_steps, seconds, stray))
    return made


def quickest_first(plant: Plant, plans: Sequence[Plan]) -> list[Plan]:
    """The same candidates of each plan, the one whose course is the soonest at the goal first, blocked ones last."""
    if all(len(plan.trajectories) == 1 for plan in plans):  # there is nothing to choose
        return list(plans)
    singles = [plan.candidate(k) for plan in plans for k in range(len(plan.trajectories))]
    scores = iter(-c.seconds - BLOCKED_SECONDS * (1 + c.stray) * c.blocked for c in courses(plant, singles))
    return [plan.ranked(np.array(list(islice(scores, len(plan.trajectories))))) for plan in plans]


# ---------------------------------------------------------------------- paths


def _whole_path(plan: Plan) -> tuple[Array, Array]:
    """Positions (n, P) from a plan's start to its goal, and the environment steps (n,) that they stand for."""
    steps = np.append(np.arange(0, plan.steps + 1, 2, dtype=float), float(plan.steps))
    path = plan.way(steps)
    path[-1] = plan.positions[0, -1]
    return path, steps


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
    from .kernels import bend, evenly

    lengths = [float(np.linalg.norm(np.diff(p, axis=0), axis=1).sum()) for p in paths]
    count = count or max(_points_for(plant, path) for path in paths)
    first, shares = (np.array(v) for v in zip(*(evenly(np.asarray(p, dtype=float), count) for p in paths), strict=True))
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

    They are transposed. In the first the way out of the start is free, in the second it has a heading: a point before
    the first, which adds
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
        made.append(np.ascontiguousarray(np.linalg.inv(system).T))
    return made[0], made[1], pull


# ---------------------------------------------------------------------- speeds


def top_speeds(plant: Plant, paths: Array, start: Array) -> Array:
    """Largest speeds (B, N) along paths (B, N, P) from start speeds (B,) to a stop, within the plant's limits.

    See `kernels.speeds_along`.
    """
    from .kernels import speeds_along

    most, top = plant.limits
    known = (most * RESERVE, top * RESERVE, IDLE)
    squared = [speeds_along(path, float(v), *known) for path, v in zip(paths, start, strict=True)]
    return np.sqrt(np.maximum(squared, 1e-8))
