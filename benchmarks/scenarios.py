"""Start-goal pairs with something in the way, for measuring guides.

Shape letters: P positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffplan.envs.maze import MazeMap
from diffplan.envs.tasks import MazeTask
from diffplan.planner.guides import Disc, Spot

Array = NDArray[np.float64]

RADII = (0.1, 0.2)  # metres, of a disc
OFFSET = 0.25  # metres to either side of the route's middle, of discs and vias
SLACK = 0.08  # metres that a way around a disc must leave on each side of the ball
GRID = 0.02  # metres, of the grid on which a way around is looked for
APART = 0.6  # metres from a via to the disc and to both ends


@dataclass(frozen=True)
class Scenario:
    """A pair with a disc newly placed on its way, and a point to pass by.

    Attributes:
        start: (P,) at rest.
        goal: (P,).
        disc: on the shortest route, with a way around it.
        via: beside the shortest route, away from the disc.
        seed: of this pair's noise.
    """

    start: tuple[float, float]
    goal: tuple[float, float]
    disc: Disc
    via: Spot
    seed: int


def make_scenarios(task: MazeTask, count: int, *, seed: int) -> list[Scenario]:
    """Random pairs of free cells at least three cells apart, each with a disc and a via."""
    rng, made = np.random.default_rng([seed, 3]), list[Scenario]()
    cells = task.maze.free_cells
    while len(made) < count:
        a, b = (cells[rng.integers(len(cells))] for _ in range(2))
        start, goal = (task.maze.center(c) + rng.uniform(-0.1, 0.1, 2) for c in (a, b))
        route = task.maze.route(a, b)
        if len(route) < 4:
            continue
        way = np.array([start, *(task.maze.center(c) for c in route[1:-1]), goal])
        x, y = _beside(way, rng)
        disc, via = Disc(x, y, rng.uniform(*RADII)), Spot(*_beside(way, rng))
        if way_around(task.maze, disc, start, goal, radius=task.agent_radius) and _apart(via, disc, start, goal):
            made.append(Scenario(_pair(start), _pair(goal), disc, via, int(rng.integers(2**31))))
    return made


def way_around(maze: MazeMap, disc: Disc, start: Array, goal: Array, *, radius: float) -> bool:
    """Whether a ball can pass the disc with room to spare, and neither end is covered."""
    left, right, bottom, top = maze.extent
    xs, ys = (np.arange(low, high, GRID) + GRID / 2 for low, high in ((left, right), (bottom, top)))
    points = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
    off = np.linalg.norm(points - (disc.x, disc.y), axis=-1)
    free = (maze.clearance(points) >= radius + SLACK) & (off >= disc.radius + radius + SLACK)
    ends = [(int((p[0] - left) / GRID), int((p[1] - bottom) / GRID)) for p in (start, goal)]
    return joined(free, *ends)


def joined(free: NDArray[np.bool_], a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two cells of a grid are joined by free ones (sides, not corners)."""
    seen = np.zeros_like(free)
    seen[a] = free[a]
    while not seen[b]:
        grown = seen.copy()
        grown[1:] |= seen[:-1]
        grown[:-1] |= seen[1:]
        grown[:, 1:] |= seen[:, :-1]
        grown[:, :-1] |= seen[:, 1:]
        grown &= free
        if (grown == seen).all():
            return False
        seen = grown
    return True


def _beside(way: Array, rng: np.random.Generator) -> tuple[float, float]:
    """A random point beside a way (n, P)."""
    leg = rng.integers(len(way) - 1)
    along = way[leg + 1] - way[leg]
    side = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    return _pair(way[leg] + rng.uniform() * along + rng.uniform(-OFFSET, OFFSET) * side)


def _apart(via: Spot, disc: Disc, start: Array, goal: Array) -> bool:
    others: Sequence[Array] = (np.array([disc.x, disc.y]), start, goal)
    return all(np.linalg.norm(other - (via.x, via.y)) >= APART for other in others)


def _pair(point: Array) -> tuple[float, float]:
    return float(point[0]), float(point[1])
