"""Makes maze data in MuJoCo with the waypoint controller and stores it through Minari.

The protocol is D4RL's: a noisy controller follows shortest routes to random goals, the agent goes on from where it
is, and one episode is stored per goal reached. The evaluation goal is never special in the data.

Two more kinds of data ask what a planner can do that its data does not: "roundabout" data takes a detour by way of a
random cell half of the time, and "stitch" data only ever goes a few cells, so that long routes have to be composed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .maze import D_GAIN, P_GAIN, Cell, MazeMap, WaypointController
from .quiet import quiet_imports
from .storage import episode_buffer, store_buffers, versions_of

NOISE = 0.5  # standard deviation added to each action
JITTER = 0.1  # metres per axis
REACHED = 0.5  # metres from the goal at which an episode ends
PATIENCE = 1500  # steps after which a stuck episode is dropped and the agent placed anew; more in larger mazes:
PATIENCE_PER_CELL = 45  # of the longest route; the agent takes about 30
DETOURS = 0.5  # share of roundabout episodes that go by way of a random cell
REACH = 3  # cells that an episode of stitch data goes at most

Routes = Literal["shortest", "roundabout", "stitch"]


@dataclass(frozen=True)
class Recording:
    """One episode: observations (T + 1, 4), actions (T, 2), goal (2,)."""

    observations: NDArray[np.float64]
    actions: NDArray[np.float64]
    goal: NDArray[np.float64]


def record_maze(maze: MazeMap, *, steps: int, seed: int, routes: Routes = "shortest") -> Iterator[Recording]:
    """Episodes of PointMaze, until at least `steps` actions were recorded.

    Raises:
        ValueError: an unknown kind of routes.
    """
    if routes not in get_args(Routes):
        raise ValueError(f"unknown routes {routes!r}; known: {', '.join(get_args(Routes))}")
    with quiet_imports():
        from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv
    rng = np.random.default_rng(seed)
    env = PointMazeEnv(maze_map=maze.gymnasium_map, continuing_task=True, reset_target=False)
    try:
        env.reset(seed=seed)
        point, done = env.point_env, 0
        controller = WaypointController(maze, jitter=JITTER, rng=rng)
        placed = False
        while done < steps:
            if not placed:
                where = maze.center(maze.free_cells[rng.integers(len(maze.free_cells))])
                point.set_state(where + rng.uniform(-0.1, 0.1, 2), rng.normal(0, 0.1, 2))
            state = np.concatenate([point.data.qpos, point.data.qvel])
            goal = _new_goal(maze, state[:2], rng, REACH if routes == "stitch" else None)
            by = _detour(maze, rng) if routes == "roundabout" else None
            controller.aim(state[:2], goal, by=by)
            episode = _follow(point, controller, state, goal, rng, whole_route=by is not None)
            placed = episode is not None
            if episode is not None:
                done += len(episode.actions)
                yield episode
    finally:
        env.close()


def _new_goal(
    maze: MazeMap, position: NDArray[np.float64], rng: np.random.Generator, reach: int | None
) -> NDArray[np.float64]:
    while True:
        cell = maze.free_cells[rng.integers(len(maze.free_cells))]
        goal = maze.center(cell) + rng.uniform(-JITTER, JITTER, 2)
        near = reach is None or len(maze.route(maze.cell(position), cell)) <= reach + 1
        if near and np.linalg.norm(goal - position) > REACHED:
            return goal


def _detour(maze: MazeMap, rng: np.random.Generator) -> Cell | None:
    cell = maze.free_cells[rng.integers(len(maze.free_cells))]
    return cell if rng.random() < DETOURS else None


def _follow(  # type: ignore[no-untyped-def]
    point, controller: WaypointController, state, goal, rng: np.random.Generator, *, whole_route: bool
) -> Recording | None:
    """Steer to the goal; None if the agent got stuck. A whole route passes its waypoints even if the goal is near."""
    observations, actions = [state], []
    patience = max(PATIENCE, PATIENCE_PER_CELL * len(controller.maze.longest_route))
    noise = rng.normal(0, NOISE, (patience, 2))
    for step in range(patience):
        action = np.clip(controller.act(state) + noise[step], -1, 1)
        state = point.step(action)[0]
        observations.append(state)
        actions.append(action)
        if (controller.last_leg or not whole_route) and np.hypot(*(state[:2] - goal)) <= REACHED:
            return Recording(np.array(observations), np.array(actions), goal)
    return None


def store_maze(
    recordings: list[Recording],
    dataset_id: str,
    maze: MazeMap,
    environment_id: str = "",
    *,
    seed: int,
    routes: Routes = "shortest",
) -> None:
    """Write episodes as a Minari dataset with its provenance in the metadata.

    Args:
        recordings: the episodes.
        dataset_id: of Minari.
        maze: they were made in.
        environment_id: of Gymnasium, where it has this maze.
        seed: of the recordings.
        routes: of the recordings.
    """
    env = _environment(maze, environment_id)
    buffers = []
    for index, item in enumerate(recordings):
        steps = len(item.actions)
        observations = {
            "observation": item.observations,
            "achieved_goal": item.observations[:, :2],
            "desired_goal": np.repeat(item.goal[None], steps + 1, axis=0),
        }
        reached = np.arange(steps) == steps - 1
        buffers.append(episode_buffer(index, observations, item.actions, reached, terminated=False))
    store_buffers(
        dataset_id,
        buffers,
        env,
        provenance(seed, routes) | {"map": list(maze.walls_alone)},
        algorithm="waypoint controller",
        description=f"Noisy waypoint controller, {routes} routes, one episode per goal reached (D4RL's protocol).",
        requirements=["gymnasium-robotics>=1.4,<1.5", "mujoco>=3.3,<3.11"],
    )


def _environment(maze: MazeMap, environment_id: str) -> Any:
    """What Minari keeps of an environment to make it again: the id, or else PointMaze and the map."""
    with quiet_imports():
        import gymnasium
        import gymnasium_robotics
        from gymnasium.envs.registration import EnvSpec

        gymnasium.register_envs(gymnasium_robotics)
        if environment_id:
            return gymnasium.make(environment_id, continuing_task=True, max_episode_steps=1_000_000)
        spec = EnvSpec(
            "diffplan/PointMaze-v3",
            entry_point="gymnasium_robotics.envs.maze.point_maze:PointMazeEnv",
            max_episode_steps=1_000_000,
            kwargs={"maze_map": maze.gymnasium_map, "continuing_task": True},
        )
        return gymnasium.make(spec)


def provenance(seed: int, routes: Routes = "shortest") -> dict[str, object]:
    """How maze data is made: everything needed to make it again."""
    kinds: dict[str, dict[str, object]] = {"roundabout": {"detours": DETOURS}, "stitch": {"reach_cells": REACH}}
    return {
        "controller": {
            "p_gain": P_GAIN,
            "d_gain": D_GAIN,
            "action_noise_std": NOISE,
            "waypoint_jitter_metres": JITTER,
            "goal_radius_metres": REACHED,
            "routes": routes,
            **kinds.get(routes, {}),
        },
        "seed": seed,
        "versions": versions_of("mujoco", "gymnasium", "gymnasium-robotics", "minari", "numpy"),
    }
