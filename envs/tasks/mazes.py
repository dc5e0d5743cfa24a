"""maze2d and multi2d: PointMaze under D4RL's protocol.

Shape letters: K candidates, O observations, P positions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes, chunks
from diffplan.planner.guides.places import Clearance
from diffplan.planner.plan import Plan
from diffplan.planner.spec import TrajectorySpec

from ..collect import Routes
from ..maze import BALL_RADIUS, D_GAIN, MAZES, P_GAIN, Cell, MazeMap
from .task import Array, Collecting, Task, numbers


@dataclass(frozen=True)
class MazeTask(Task):
    """PointMaze under D4RL's protocol: a reward of 1 for every step within 0.5 m of the goal, never done.

    Args:
        maze: the map.
        goal_cell: (row, column) of the fixed goal; None draws a fresh goal each episode.
        start_cells: where episodes begin; empty for any free cell.
        score_range: (min, max) return of the D4RL score; None where none is published.
        gymnasium_id: of the environment with this map; empty where gymnasium-robotics has none.
        routes: what the data's routes are like (see `envs.collect`).
        own: whether the map is a user's, which no name stands for: records of the task carry it.
    """

    maze: MazeMap = MAZES["umaze"]
    goal_cell: Cell | None = None
    start_cells: tuple[Cell, ...] = ()
    score_range: tuple[float, float] | None = None
    gymnasium_id: str = ""
    routes: Routes = "shortest"
    own: bool = False

    def record(self) -> dict[str, Any]:
        return super().record() | ({"map": list(self.maze.rows)} if self.own else {})

    @property
    def as_typed(self) -> str:
        return "maze2d --map FILE" if self.own else super().as_typed

    def reset(
        self, env: Any, rng: np.random.Generator, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        env.reset(seed=int(rng.integers(2**31)))
        random_start = self._random_point(rng, self.start_cells or self.maze.free_cells)
        place = random_start if start is None else np.asarray(start, dtype=float)[:2]
        speed = rng.normal(0, 0.1, 2)
        speed = speed if start is None else np.zeros(2)
        fixed = self.goal_cell
        target = self._random_point(rng, self.maze.free_cells) if fixed is None else self.maze.center(fixed)
        target = target if goal is None else np.asarray(goal, dtype=float)
        env.goal = target.copy()
        env.update_target_site_pos()
        env.point_env.set_state(place, speed)
        return np.concatenate([place, speed]), target

    def reward(self, observation: Array, goal: Array, reward: float) -> float:
        return float(np.hypot(*(observation[:2] - goal)) <= 0.5)

    def rewards(self, episodes: Episodes) -> NDArray[np.float32] | None:
        """D4RL's dense reward, exp(-distance to the fixed goal after the step); the data itself knows no goal."""
        if self.goal_cell is None:
            return None
        dense, goal = np.zeros(len(episodes.observations), dtype=np.float32), self.maze.center(self.goal_cell)
        for part in chunks(len(dense) - 1):
            reached = episodes.observations[part.start + 1 : part.stop + 1, :2]
            dense[part] = np.exp(-np.linalg.norm(reached - goal, axis=1))
        dense[episodes.offsets[1:] - 1] = 0.0  # an episode's last state takes no action
        return dense

    def check_point(self, values: Sequence[float], what: str) -> None:
        super().check_point(values, what)
        if not self.maze.is_free(values):
            where = (
                "outside the maze"
                if self.maze.clearance(values) == 0 and not self._inside(values)
                else "inside or against a wall"
            )
            near = self.maze.nearest_free(values)
            raise ValueError(
                f"{what} {numbers(values)} lies {where}; the nearest free point is {numbers(np.round(near, 3))}"
            )

    def parse_point(self, text: str, what: str) -> tuple[float, ...]:
        """A position from "X,Y" in metres or "cell:ROW,COL"."""
        if not text.startswith("cell:"):
            return super().parse_point(text, what)
        try:
            row, column = (int(part) for part in text.removeprefix("cell:").split(","))
        except ValueError:
            raise ValueError(f"{what} {text!r} names no cell; write cell:ROW,COL, such as cell:1,3") from None
        rows, columns = self.maze.walls.shape
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"{what} {text!r} lies outside the maze of {rows} rows and {columns} columns")
        values = tuple(float(v) for v in self.maze.center((row, column)))
        self.check_point(values, what)
        return values

    def feasible(self, plan: Plan) -> NDArray[np.bool_]:
        """Which candidates (K,) keep clear of the walls."""
        paths = [plan.path(k, every=2) for k in range(len(plan.arrivals))]
        return np.array([not self.maze.touches_wall(path) for path in paths])

    def clearance(self) -> Clearance:
        """Of the agent's centre from the walls' faces, in metres; negative inside a wall."""
        return self.maze.signed_clearance

    def collect(self, *, steps: int, seed: int, **options: Any) -> Iterator[int | Collecting]:
        from ..collect import record_maze, store_maze

        recordings, done = [], 0
        for episode in record_maze(self.maze, steps=steps, seed=seed, routes=self.routes):
            recordings.append(episode)
            done += len(episode.actions)
            yield done
        store_maze(recordings, self.dataset, self.maze, self.gymnasium_id, seed=seed, routes=self.routes)

    def _random_point(self, rng: np.random.Generator, cells: Sequence[Cell]) -> Array:
        cell = cells[int(rng.integers(len(cells)))]
        return self.maze.center(cell) + rng.uniform(-0.1, 0.1, 2)

    def _inside(self, values: Sequence[float]) -> bool:
        left, right, bottom, top = self.maze.extent
        return left < values[0] < right and bottom < values[1] < top


def _point_maze(maze: MazeMap, render_mode: str | None = None) -> Any:
    """PointMaze, seen from above and in the colours of our pictures."""
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

    rows, columns = maze.walls.shape
    shape = min(max(columns / rows, 0.5), 2.5)  # of the picture: a long corridor's would be too large to draw
    env = PointMazeEnv(
        maze_map=maze.gymnasium_map,
        render_mode=render_mode,
        continuing_task=True,
        reset_target=False,
        width=round(480 * shape / 2) * 2,
        height=480,
        max_geom=1000 + rows * columns,  # what a picture can show
    )
    if render_mode is not None:
        _dress(env.point_env, max(rows, columns / shape))
    return env


def _dress(point: Any, rows: float) -> None:
    """The whole maze from almost straight above: PointMaze's own camera hides the bottom row."""
    from ..colours import AGENT, GOAL, WALL, rgba

    point.mujoco_renderer.default_cam_config = {
        "distance": 1.42 * rows,
        "elevation": -72.0,
        "azimuth": 90.0,
        "lookat": np.array([0, -0.045 * rows, 0.0]),
    }
    model = point.model
    for index in range(model.ngeom):
        name = model.geom(index).name
        if name.startswith("block") or name == "ground":
            model.geom_matid[index] = -1
            model.geom_rgba[index] = rgba(WALL) if name != "ground" else (0.78, 0.79, 0.8, 1.0)
    for name, colour in (("target", GOAL), ("particle_site", AGENT)):
        model.site(name).rgba = rgba(colour)


MORE: dict[str, Any] = {"candidates": 16, "raced_candidates": 4}
FAR: dict[str, Any] = {"candidates": 16, "raced_candidates": 16, "raced_steps": 8}
"""Of sampling, in larger mazes, and in those where plans are of several legs and one route in a few leads nowhere."""


class Pace(NamedTuple):
    """What suits a maze's size: duration and number of tokens, lengths of episodes and training, how it is followed."""

    stride: int
    horizon: int
    episode_steps: int
    minutes: float
    tempo: float
    sampling: dict[str, Any]


def maze_task(name: str, dataset: str, maze: MazeMap, pace: Pace, **rest: Any) -> MazeTask:
    """PointMaze on a map.

    Args:
        name: of the task.
        dataset: Minari id of its data.
        maze: the map.
        pace: what suits its size.
        **rest: other fields of `MazeTask`.
    """
    settings = pace._asdict()
    settings["sampling"] = {"select": "fastest", "raced_candidates": 1, "raced_steps": 2} | pace.sampling
    names = ("x", "y", "vx", "vy")
    return MazeTask(
        name=name,
        make=functools.partial(_point_maze, maze),
        dataset=dataset,
        spec=TrajectorySpec(("ax", "ay"), names, names[:2], names[2:], 0.01, settings.pop("stride")),
        replan_every=40,
        gains=(P_GAIN, D_GAIN),
        maze=maze,
        agent_radius=BALL_RADIUS,
        **settings | rest,
    )


def maze_tasks() -> dict[str, Task]:
    paper = {"medium": 256, "large": 384}  # Diffuser's own horizons; 128 on umaze
    rows: list[tuple[str, str, Cell, tuple[float, float] | None, Pace]] = [
        ("umaze", "PointMaze_UMaze-v3", (1, 1), (23.85, 161.86), Pace(5, 32, 300, 9.0, 1.5, {})),
        ("medium", "PointMaze_Medium-v3", (6, 6), (13.13, 277.39), Pace(10, 36, 600, 20.0, 1.3, MORE)),
        ("large", "PointMaze_Large-v3", (7, 9), (6.7, 273.99), Pace(10, 48, 800, 30.0, 1.2, MORE)),
        ("giant", "", (10, 14), None, Pace(10, 48, 1200, 30.0, 1.2, FAR)),  # plans span 19 of its 32 cells
    ]
    made: dict[str, MazeTask] = {}
    for size, gymnasium_id, goal, scores, pace in rows:
        for family, goal_cell in (("maze2d", goal), ("multi2d", None)):
            name = f"{family}-{size}"
            fixed: dict[str, Any] = {"goal_cell": goal_cell, "score_range": scores, "gymnasium_id": gymnasium_id}
            fixed |= {"presets": {"paper": {"horizon": paper[size]}} if size in paper else {}}
            made[name] = maze_task(name, f"diffplan/maze2d/{size}-v0", MAZES[size], pace, **fixed)
    for name in ("maze2d-umaze", "multi2d-umaze"):
        for kind in _other_data(made[name]):
            made[kind.name] = kind
    return dict(made)


def _other_data(task: MazeTask) -> list[MazeTask]:
    """The same maze with data that asks more of a planner: roundabout routes, and pieces of routes."""
    data = task.dataset.removesuffix("-v0")
    kinds: tuple[tuple[Routes, int], ...] = (("roundabout", 48), ("stitch", 24))
    return [
        replace(task, name=f"{task.name}-{kind}", dataset=f"{data}-{kind}-v0", routes=kind, horizon=horizon)
        for kind, horizon in kinds
    ]
