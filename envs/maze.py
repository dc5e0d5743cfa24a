"""Mazes of square cells: geometry, routes, and the waypoint controller that makes the data.

Positions are metres in the environment's frame: the maze is centred on the origin, x to the right, y up; row 0 is
the top row. Shape letters: ... any leading shape.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from diffplan.planner.guides.marks import box_clearance

Cell = tuple[int, int]
Array = NDArray[np.float64]

BALL_RADIUS = 0.1  # metres, of PointMaze's ball
TOUCHING = 1e-5  # metres that count as nothing
P_GAIN, D_GAIN = 10.0, 1.0  # of D4RL's waypoint controller: action = P (waypoint - position) - D velocity


@dataclass(frozen=True)
class MazeMap:
    """Which cells are walls.

    Attributes:
        rows: text rows, "#" a wall, anything else free.
        cell_metres: side of a cell.
    """

    rows: tuple[str, ...]
    cell_metres: float = 1.0

    def __post_init__(self) -> None:
        if not self.rows or any(len(r) != len(self.rows[0]) for r in self.rows) or not self.free_cells:
            raise ValueError(f"a maze needs rows of one length and a free cell, got {self.rows}")

    @cached_property
    def walls(self) -> NDArray[np.bool_]:
        """(rows, columns) true where a wall stands."""
        return np.array([[c == "#" for c in row] for row in self.rows])

    @cached_property
    def free_cells(self) -> list[Cell]:
        return [(int(i), int(j)) for i, j in np.argwhere(~self.walls)]

    @property
    def walls_alone(self) -> tuple[str, ...]:
        """The rows without anything that is marked in free cells."""
        return tuple("".join("#" if wall else "." for wall in row) for row in self.walls)

    @property
    def gymnasium_map(self) -> list[list[int]]:
        """As gymnasium-robotics reads it: 1 is a wall."""
        return self.walls.astype(int).tolist()

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top in metres."""
        rows, columns = self.walls.shape
        width, height = columns * self.cell_metres / 2, rows * self.cell_metres / 2
        return -width, width, -height, height

    def center(self, cell: Cell) -> Array:
        """Position (2,) of a cell's centre."""
        left, _, _, top = self.extent
        return np.array([left + (cell[1] + 0.5) * self.cell_metres, top - (cell[0] + 0.5) * self.cell_metres])

    def cell(self, position: ArrayLike) -> Cell:
        """The cell that a position lies in; it may lie outside the map."""
        x, y = np.asarray(position, dtype=float)[:2]
        left, _, _, top = self.extent
        return int(np.floor((top - y) / self.cell_metres)), int(np.floor((x - left) / self.cell_metres))

    def clearance(self, positions: ArrayLike) -> Array:
        """Distance (...) in metres from positions (..., 2) to the nearest wall; 0 inside a wall or outside the maze."""
        points = np.asarray(positions, dtype=float)
        centers = np.array([self.center((int(i), int(j))) for i, j in np.argwhere(self.walls)])
        gaps = np.maximum(np.abs(points[..., None, :] - centers) - self.cell_metres / 2, 0.0)
        left, right, bottom, top = self.extent
        inside = (points[..., 0] > left) & (points[..., 0] < right) & (points[..., 1] > bottom) & (points[..., 1] < top)
        nearest = np.linalg.norm(gaps, axis=-1).min(axis=-1) if len(centers) else np.full(points.shape[:-1], np.inf)
        return np.where(inside, nearest, 0.0)

    def signed_clearance(self, points: Tensor) -> Tensor:
        """`clearance` for guides: differentiable, and inside walls or outside the maze minus the way to the open."""
        to_wall, to_open = (
            box_clearance(
                points.unsqueeze(-2),
                torch.as_tensor(centers, dtype=points.dtype, device=points.device),
                points.new_full((2,), self.cell_metres),
            )
            .clamp(min=0)
            .amin(-1)
            for centers in (self._centers(self.walls), self._centers(~self.walls))
        )
        return torch.where(to_open > TOUCHING, -to_open, to_wall)

    def _centers(self, cells: NDArray[np.bool_]) -> Array:
        """Centres (n, 2) of the cells that are true; one far away where none is."""
        found = [self.center((int(i), int(j))) for i, j in np.argwhere(cells)]
        return np.array(found) if found else np.full((1, 2), 1e6)

    def is_free(self, position: ArrayLike, *, radius: float = BALL_RADIUS) -> bool:
        """Whether a ball of this radius fits at a position (2,)."""
        return bool(self.clearance(np.asarray(position, dtype=float)[:2]) >= radius - 1e-9)

    def touches_wall(self, path: ArrayLike, *, radius: float = 0.9 * BALL_RADIUS, spacing: float = 0.02) -> bool:
        """Whether a path (T, 2), straight between its points, brings the ball into a wall.

        A ball that slides along a wall is not inside it: a tenth of its radius is allowed.
        """
        points = np.asarray(path, dtype=float)
        pieces = [points[:1]]
        for a, b in zip(points[:-1], points[1:], strict=True):
            count = max(1, int(np.ceil(np.linalg.norm(b - a) / spacing)))
            pieces.append(a + (b - a) * np.linspace(0, 1, count + 1)[1:, None])
        return bool((self.clearance(np.concatenate(pieces)) < radius).any())

    def nearest_free(self, position: ArrayLike, *, radius: float = BALL_RADIUS) -> Array:
        """The point (2,) nearest to a position where the ball fits."""
        point = np.asarray(position, dtype=float)[:2]
        half = self.cell_metres / 2
        options = []
        for i, j in self.free_cells:
            middle = self.center((i, j))
            low, high = middle - half, middle + half
            low[0] += radius * ((i, j - 1) not in self._free_set)
            high[0] -= radius * ((i, j + 1) not in self._free_set)
            low[1] += radius * ((i + 1, j) not in self._free_set)
            high[1] -= radius * ((i - 1, j) not in self._free_set)
            option = np.clip(point, low, high)
            if not self.is_free(option, radius=radius):  # a wall's corner reaches in diagonally
                option = np.clip(point, middle - half + radius, middle + half - radius)
            options.append(option)
        return min(options, key=lambda o: float(np.linalg.norm(o - point)))

    def route(self, start: Cell, goal: Cell) -> list[Cell]:
        """Cells of a shortest way over free sides, both ends included.

        Raises:
            ValueError: an end is a wall, or nothing joins them.
        """
        for cell in (start, goal):
            if cell not in self._free_set:
                raise ValueError(f"cell {cell} is a wall or outside the maze")
        before = self.search(start, goal)
        if goal not in before:
            raise ValueError(f"no way leads from cell {start} to cell {goal}")
        way = [goal]
        while way[-1] != start:
            way.append(before[way[-1]])
        return way[::-1]

    def search(self, start: Cell, goal: Cell | None = None) -> dict[Cell, Cell]:
        """Each cell that a free cell is joined to, nearest first, and the cell before it; up to the goal, if given."""
        before: dict[Cell, Cell] = {start: start}
        queue = deque([start])
        while queue and goal not in before:
            i, j = queue.popleft()
            for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if cell not in before and cell in self._free_set:
                    before[cell] = (i, j)
                    queue.append(cell)
        return before

    @cached_property
    def longest_route(self) -> list[Cell]:
        """The longest shortest way, found by going from farthest cell to farthest cell for as long as it grows.

        Exact where the maze has no loops, and a lower bound otherwise: trying every pair takes long in a large maze.
        """
        longest: list[Cell] = []
        here = self.free_cells[0]
        while len(way := self.route(here, [*self.search(here)][-1])) > len(longest):
            longest, here = way, way[-1]
        return longest

    @cached_property
    def _free_set(self) -> set[Cell]:
        return set(self.free_cells)


UMAZE = MazeMap(("#####", "#OOO#", "###O#", "#OOO#", "#####"))
MEDIUM = MazeMap(
    (
        "########",
        "#OO##OO#",
        "#OO#OOO#",
        "##OOO###",
        "#OO#OOO#",
        "#O#OO#O#",
        "#OOO#OO#",
        "########",
    )
)
LARGE = MazeMap(
    (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OOO#",
        "############",
    )
)
GIANT = MazeMap(  # OGBench's (Park et al. 2025), "giant" in its ogbench/locomaze/maze.py
    (
        "################",
        "#O#OOOOOO##OOOO#",
        "#O#O##O#O#OO##O#",
        "#OOO#OO#OOO#OOO#",
        "#O###O######O#O#",
        "#OOO#OOO#OOOO#O#",
        "###O#O#OO#O#O###",
        "#OOO#OO#OOO#OOO#",
        "#O#O#O######O#O#",
        "#O###OOO#OOO##O#",
        "#OOOOO#OOO#OOOO#",
        "################",
    )
)
MAZES = {"umaze": UMAZE, "medium": MEDIUM, "large": LARGE, "giant": GIANT}


class WaypointController:
    """Follows a shortest route cell by cell, as D4RL's data collection does.

    Args:
        maze: the map.
        jitter: waypoints are moved by up to this many metres per axis; 0 aims at cell centres.
        threshold: metres at which a waypoint counts as reached.
        rng: source of the jitter.
    """

    def __init__(
        self, maze: MazeMap, *, jitter: float = 0.0, threshold: float = 0.1, rng: np.random.Generator | None = None
    ) -> None:
        self.maze, self.jitter, self.threshold = maze, jitter, threshold
        self.rng = rng or np.random.default_rng(0)
        self._waypoints: list[Array] = []

    def aim(self, position: ArrayLike, goal: ArrayLike, *, by: Cell | None = None) -> None:
        """Plan the route from a position (2,) to a goal (2,), by way of a cell if one is named."""
        here, there = self.maze.cell(position), self.maze.cell(goal)
        way = self.maze.route(here, there) if by is None else self.maze.route(here, by) + self.maze.route(by, there)[1:]
        cells = way[1:-1]
        middle = [self.maze.center(c) + self.rng.uniform(-self.jitter, self.jitter, 2) for c in cells]
        self._waypoints = [*middle, np.asarray(goal, dtype=float)]

    @property
    def last_leg(self) -> bool:
        """Whether only the goal is still ahead."""
        return len(self._waypoints) == 1

    def act(self, observation: ArrayLike) -> Array:
        """Action (2,) for an observation (x, y, vx, vy), within [-1, 1]."""
        state = np.asarray(observation, dtype=float)
        if len(self._waypoints) > 1 and np.linalg.norm(self._waypoints[0] - state[:2]) <= self.threshold:
            self._waypoints.pop(0)
        return np.clip(P_GAIN * (self._waypoints[0] - state[:2]) - D_GAIN * state[2:], -1, 1)
