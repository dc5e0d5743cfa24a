"""The time-optimal reference: how soon any controller could bring PointMaze's ball to a goal.

One nonlinear programme per route of cells minimises time over all forces that are constant between knots; IPOPT solves
it. Where gymnasium-robotics' physics (point.py, point.xml) is simplified, the ball is given more than it has:

- Samples. MuJoCo's semi-implicit Euler, v' = v + h a, x' = x + h v', is a continuous motion seen at x + (h/2) v, with
  half of the implicit damping in the inertia. The programme constrains what is seen, at any moment instead of at steps.
- Speed. Each axis is clipped to 5 m/s before a step and full force is added after, so the ball moves at up to
  5.226 m/s, the cap here. That it then brakes from 5 (0.0002 s) is covered by `SLACK_SECONDS`.
- Corners. A step is up to 0.074 m long, so the ball may pass a corner at 0.07 m with a single sample in contact range
  (0.102 m): 0.07 m is kept from walls, not the ball's 0.1 m, and contact costs nothing.
- Walls do not push. One could stop the ball for nothing and throw it back, at 1.25 m/s at most (measured). Allowed to
  at any one of every third knot of the turns, it never helped (17 episodes, umaze and large).
- The end. Entering the goal's disc is enough, and `bound_rewards` counts every step from then on. Stopping from the
  cap takes 0.54 m of a disc 1 m wide: after tracking the fastest way the ball could stay in each of 48 episodes.

Minima are local (other first guesses led to the same), so this is a numerical bound and no proof. In MuJoCo, tracking
the fastest way came 0 to 3 steps later in umaze and medium, 1 to 11 in large, and nothing tried came sooner.

Shape letters: N knots with the start, F phases (the cells of a route), C corners, T environment steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.envs.maze import Cell, MazeMap
from diffplan.envs.tasks import MazeTask

Array = NDArray[np.float64]
Shape = tuple[tuple[int, int], ...]  # knots and corners of each phase

STEP_SECONDS = 0.01
FORCE, DAMPING = 100.0, 1.0  # N per axis at full action; N s / m
MASS = 4 / 3 * math.pi * 0.1**3 * 1000  # kg
INERTIA = MASS + STEP_SECONDS * DAMPING / 2  # of the continuous motion that the simulated one samples
SPEED_CAP = 5 + STEP_SECONDS * (FORCE - 5 * DAMPING) / (MASS + STEP_SECONDS * DAMPING)  # m/s per axis: 5.226
CLEARANCE = 0.07  # metres kept from walls, see above
SLACK_SECONDS = 0.002  # taken off: braking from the cap, forces that change only at knots, IPOPT's tolerance
EXCESS = 6  # cells by which a route may exceed the shortest
FEASIBLE = 1e-6  # metres, m/s and kg m/s by which constraints may be missed
SIDES = ((0, -1), (0, 1), (1, 0), (-1, 0))  # (row, column) steps to the left, right, bottom and top neighbour
GUESSES = ((4.0, 0.0), (2.0, 1.0), (1.0, 0.0), (4.0, 1.0))  # m/s, and whether by way of the cells' centres


@dataclass(frozen=True)
class Fastest:
    """The fastest way found from a start into a goal's disc.

    Attributes:
        seconds: bound on the time.
        steps: first environment step, counted from 1, after which the ball can be inside.
        path: (N, 2) metres, what an observation shows at the knots.
        velocities: (N, 2) m/s.
        times: (N,) seconds, without the slack that `seconds` has.
        cells: the route.
    """

    seconds: float
    steps: int
    path: Array
    velocities: Array
    times: Array
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Phase:
    """One cell of a route: low and high (2,) bounds of positions, corners (C, 2) that reach in, number of knots."""

    low: Array
    high: Array
    corners: Array
    knots: int


def fastest(maze: MazeMap, start: ArrayLike, goal: ArrayLike, *, radius: float = 0.5) -> Fastest:
    """The least time in which the ball can come within a radius of a goal.

    Args:
        maze: the map.
        start: (4,) x, y, vx, vy in metres and m/s.
        goal: (2,) metres.
        radius: metres around the goal.

    Raises:
        ValueError: casadi is missing, a place is no place for the ball, or IPOPT left a route unsolved.
    """
    state, target = np.asarray(start, dtype=float), np.asarray(goal, dtype=float)
    _check(maze, state, target, radius)
    if np.linalg.norm(state[:2] - target) <= radius:
        return Fastest(0.0, 1, state[None, :2], state[None, 2:], np.zeros(1), (maze.cell(state),))
    best: Fastest | None = None
    for cells in routes(maze, maze.cell(state), maze.cell(target)):
        phases = _phases(maze, cells, target, radius)
        if best is not None and _least_seconds(phases, state[:2], target, radius) >= best.times[-1]:
            continue
        found = _solve(phases, state, target, radius)
        if found is None:
            raise ValueError(f"IPOPT found no way from {state.tolist()} to {target.tolist()} over {cells}")
        if best is None or found.times[-1] < best.times[-1]:
            best = replace(found, cells=cells)
    assert best is not None  # a free cell has a route to any other, else `routes` refuses
    return best


def bound_rewards(task: MazeTask, seeds: Sequence[int]) -> Iterator[Array]:
    """Rewards (T,) of each seed's episode, as the simulators begin it, if the ball came soonest and stayed."""
    with closing(task.environment()) as env:
        for seed in seeds:
            first = fastest(task.maze, *task.reset(env, np.random.default_rng(seed))).steps
            yield (np.arange(1, task.episode_steps + 1) >= first).astype(float)


def routes(maze: MazeMap, start: Cell, goal: Cell, *, excess: int = EXCESS) -> list[tuple[Cell, ...]]:
    """All routes without a cell twice, up to so many cells longer than the shortest, shortest first.

    They go over sides only: a diagonal move through an open block of 2x2 cells spends no time in the one it skips.
    """
    free, longest = set(maze.free_cells), len(maze.route(start, goal)) + excess
    found: list[tuple[Cell, ...]] = []
    unfinished: list[tuple[Cell, ...]] = [(start,)]
    while unfinished:
        way = unfinished.pop()
        if way[-1] == goal:
            found.append(way)
        elif len(way) < longest:
            near = [(way[-1][0] + i, way[-1][1] + j) for i, j in SIDES]
            unfinished += [(*way, cell) for cell in near if cell in free and cell not in way]
    return sorted(found, key=len)


def _check(maze: MazeMap, state: Array, goal: Array, radius: float) -> None:
    if state.shape != (4,) or goal.shape != (2,):
        raise ValueError(f"start must be (x, y, vx, vy) and goal (x, y), got shapes {state.shape} and {goal.shape}")
    for name, place in (("start", state[:2]), ("goal", goal)):
        if not maze.is_free(place, radius=CLEARANCE):
            raise ValueError(f"the {name} {place.tolist()} lies inside or against a wall")
    if np.abs(state[2:]).max() > SPEED_CAP:
        raise ValueError(f"the start moves at {state[2:].tolist()} m/s, faster than {SPEED_CAP:.3f} on an axis")
    to_corner = float(np.hypot(*(maze.cell_metres / 2 - np.abs(goal - maze.center(maze.cell(goal))))))
    if not 0 < radius <= min(maze.cell_metres / 2, to_corner):  # else the disc is entered over cells not looked at
        raise ValueError(f"radius={radius} must be positive and reach only the goal's cell and those at its sides")


def _phases(maze: MazeMap, cells: Sequence[Cell], goal: Array, radius: float) -> list[_Phase]:
    """The cells as phases; the last one reaches as far into the one before as the goal's disc does."""
    phases = [_phase(maze, cell, knots=10 if _turns(cells, k) else 6) for k, cell in enumerate(cells)]
    if len(cells) > 1:
        back = maze.center(cells[-2]) - maze.center(cells[-1])
        low = np.where(back < 0, np.minimum(phases[-1].low, goal - radius), phases[-1].low)
        high = np.where(back > 0, np.maximum(phases[-1].high, goal + radius), phases[-1].high)
        phases[-1] = replace(phases[-1], low=low, high=high)
    return phases


def _turns(cells: Sequence[Cell], k: int) -> bool:
    """Whether the route begins, ends or turns in its cell k."""
    return not 0 < k < len(cells) - 1 or (cells[k - 1][0] != cells[k + 1][0] and cells[k - 1][1] != cells[k + 1][1])


def _phase(maze: MazeMap, cell: Cell, *, knots: int) -> _Phase:
    free = set(maze.free_cells)
    half, middle = maze.cell_metres / 2, maze.center(cell)
    left, right, bottom, top = (float((cell[0] + i, cell[1] + j) not in free) for i, j in SIDES)
    corners = [
        middle + half * np.array([x, y])
        for x, beside in ((-1, left), (1, right))
        for y, above in ((-1, bottom), (1, top))
        if not beside and not above and (cell[0] - y, cell[1] + x) not in free
    ]
    low = middle - half + CLEARANCE * np.array([left, bottom])
    high = middle + half - CLEARANCE * np.array([right, top])
    return _Phase(low, high, np.array(corners).reshape(-1, 2), knots)


def _borders(phases: Sequence[_Phase]) -> list[tuple[Array, Array]]:
    """Low and high (2,) of what each phase shares with the next."""
    pairs = zip(phases[:-1], phases[1:], strict=True)
    return [(np.maximum(a.low, b.low), np.minimum(a.high, b.high)) for a, b in pairs]


def _least_seconds(phases: Sequence[_Phase], start: Array, goal: Array, radius: float) -> float:
    """A quick bound from below: the axis with the longer way, at the speed cap throughout."""
    way, here = np.zeros(2), start
    for low, high in [*_borders(phases), (goal - radius, goal + radius)]:
        there = np.clip(here, low, high)
        way, here = way + np.abs(there - here), there
    return float(way.max() / SPEED_CAP)


@lru_cache(maxsize=512)
def _programme(shape: Shape) -> tuple[Any, Array, Array]:
    """Casadi's solver for all routes of one shape, and the bounds of its constraints.

    Unknown are positions (N, 2), velocities (N, 2) and durations (F,); corners, goal and radius are parameters.
    """
    ca = _casadi()
    n = sum(knots for knots, _ in shape)
    x, v, seconds = ca.SX.sym("x", n + 1, 2), ca.SX.sym("v", n + 1, 2), ca.SX.sym("t", len(shape))
    corners, goal, radius = ca.SX.sym("c", sum(c for _, c in shape), 2), ca.SX.sym("g", 1, 2), ca.SX.sym("r")
    dt = ca.vertcat(*[ca.repmat(seconds[k] / knots, knots, 2) for k, (knots, _) in enumerate(shape)])
    change, mean = v[1:, :] - v[:-1, :], (v[1:, :] + v[:-1, :]) / 2
    impulse = INERTIA * change + DAMPING * dt * mean  # what the motors give in an interval, within FORCE * dt
    rows = [
        (x[1:, :] - x[:-1, :] - dt * mean - STEP_SECONDS / 2 * change, 0.0, 0.0),
        (impulse - FORCE * dt, -np.inf, 0.0),
        (impulse + FORCE * dt, 0.0, np.inf),
        (radius**2 - ca.sumsqr(x[n, :] - goal), 0.0, np.inf),
    ]
    rows += _corner_rows(ca, shape, x, (x[1:, :] + x[:-1, :]) / 2 - dt * change / 8, corners)
    problem = {
        "x": ca.veccat(x, v, seconds),
        "p": ca.veccat(corners, goal, radius),
        "f": ca.sum1(seconds) + 1e-7 * ca.sumsqr(change),  # of many fastest ways a smooth one
        "g": ca.veccat(*[row for row, _, _ in rows]),
    }
    options = {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 300}}
    bounds = [np.concatenate([np.full(row[0].numel(), row[i]) for row in rows]) for i in (1, 2)]
    return ca.nlpsol("fastest", "ipopt", problem, options), bounds[0], bounds[1]


def _corner_rows(ca: Any, shape: Shape, x: Any, middles: Any, corners: Any) -> list[tuple[Any, float, float]]:
    """Knots (N, 2), and the moments midway between them, keep clear of the corners of their own cells."""
    rows, knot, corner = [], 0, 0
    for knots, count in shape:
        near = ca.vertcat(x[knot : knot + knots + 1, :], middles[knot : knot + knots, :])
        for k in range(corner, corner + count):
            gaps = ca.sum2((near - ca.repmat(corners[k, :], near.shape[0], 1)) ** 2)
            rows.append((gaps, CLEARANCE**2, math.inf))
        knot, corner = knot + knots, corner + count
    return rows


def _casadi() -> Any:
    try:
        import casadi
    except ImportError:
        raise ValueError("the bound needs casadi: pip install 'diffplan[bench]'") from None
    return casadi


def _solve(phases: Sequence[_Phase], state: Array, goal: Array, radius: float) -> Fastest | None:
    """The fastest way along one route, from the first guess that leads to one; None if none does."""
    solver, lower, upper = _programme(tuple((p.knots, len(p.corners)) for p in phases))
    low, high = _unknown_bounds(phases, state)
    parameters = np.concatenate([np.concatenate([p.corners for p in phases]).T.ravel(), goal, [radius]])
    for speed, centred in GUESSES:
        guess = _guess(phases, state, goal, radius, speed, centred)
        solution = solver(x0=guess, p=parameters, lbx=low, ubx=high, lbg=lower, ubg=upper)
        unknown, rows = np.array(solution["x"]).ravel(), np.array(solution["g"]).ravel()
        missed = max((lower - rows).max(), (rows - upper).max())
        if solver.stats()["success"] and missed <= FEASIBLE:
            return _fastest(phases, unknown)
    return None


def _fastest(phases: Sequence[_Phase], unknown: Array) -> Fastest:
    n = sum(p.knots for p in phases) + 1
    x, v = unknown[: 2 * n].reshape(2, n).T, unknown[2 * n : 4 * n].reshape(2, n).T
    durations = np.concatenate([np.full(p.knots, t / p.knots) for p, t in zip(phases, unknown[4 * n :], strict=True)])
    times = np.concatenate([[0.0], np.cumsum(np.maximum(durations, 0.0))])
    seconds = max(0.0, float(times[-1]) - SLACK_SECONDS)
    return Fastest(seconds, max(1, math.ceil(seconds / STEP_SECONDS - 1e-6)), x, v, times, ())


def _unknown_bounds(phases: Sequence[_Phase], state: Array) -> tuple[Array, Array]:
    """Low and high of all unknowns: a knot on a border lies in both cells, the first is the start."""
    n = sum(p.knots for p in phases) + 1
    low, high, knot = np.full((n, 4), -SPEED_CAP), np.full((n, 4), SPEED_CAP), 0
    low[:, :2], high[:, :2] = -np.inf, np.inf
    for p in phases:
        own = np.s_[knot : knot + p.knots + 1, :2]
        low[own], high[own], knot = np.maximum(low[own], p.low), np.minimum(high[own], p.high), knot + p.knots
    low[0] = high[0] = state
    return np.append(low.T, np.zeros(len(phases))), np.append(high.T, np.full(len(phases), 10.0))


def _guess(phases: Sequence[_Phase], state: Array, goal: Array, radius: float, speed: float, centred: float) -> Array:
    """Straight lines from border to border, or bent towards the cells' centres, at one speed."""
    stops = [state[:2], *[(low + high) / 2 for low, high in _borders(phases)]]
    gap = float(np.linalg.norm(stops[-1] - goal))
    stops.append(goal + (stops[-1] - goal) * min(1.0, 0.9 * radius / max(gap, 1e-9)))
    x, v, seconds = [state[:2]], [state[2:]], []
    for p, a, b in zip(phases, stops[:-1], stops[1:], strict=True):
        share = np.linspace(0, 1, p.knots + 1)[1:, None]
        bend = centred * 2 * share * (1 - share) * ((p.low + p.high) / 2 - (a + b) / 2)
        length = max(float(np.linalg.norm(b - a)), 0.05)
        x += list(a + share * (b - a) + bend)
        v += [(b - a) / length * speed] * p.knots
        seconds.append(length / speed)
    return np.concatenate([np.array(x).T.ravel(), np.array(v).T.ravel(), seconds])
