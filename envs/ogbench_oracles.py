"""What OGBench's data is made by: its scripted oracles, in the way of its own generating scripts.

Shape letters: T steps, O observations, A actions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ogbench_scene import begin, chance_from
from .quiet import quiet_imports

POINT_NOISE = 0.5  # standard deviation added to each action of a point
PLAN_NOISE, NOISE_SMOOTHING = 0.1, 0.5  # of the arm's oracles
STITCH_CELLS = 4  # that an episode of pieces goes
STACKED = {"cube-single-v0": (0.0, 0.0), "cube-double-v0": (0.0, 0.25), "scene-v0": (0.5, 0.5)}
"""From where to where the chance that a cube is put on another is drawn, once for each episode."""

Cell = tuple[int, int]


class Recorded(NamedTuple):
    """One episode: observations (T + 1, O) and actions (T, A), float32."""

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]

    @classmethod
    def of(cls, observations: list[Any], actions: list[Any]) -> Recorded:
        return cls(np.array(observations, dtype=np.float32), np.array(actions, dtype=np.float32))


# ---------------------------------------------------------------------- points in mazes


class Compass:
    """Which way shortest routes go, each looked up once: OGBench searches the whole maze at every step."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self._next: dict[tuple[Cell, Cell], NDArray[np.float64]] = {}

    def ahead(self) -> NDArray[np.float64]:
        """Direction (2,) to the middle of the next cell on the way to the goal, or of the goal's own."""
        here, goal = self.env.get_xy(), self.env.cur_goal_xy
        pair = self.env.xy_to_ij(here), self.env.xy_to_ij(goal)
        if pair not in self._next:
            self._next[pair] = self.env.get_oracle_subgoal(here, goal)[0]
        way = self._next[pair] - here
        return way / (np.linalg.norm(way) + 1e-6)


def follow_routes(env: Any, *, steps: int, seed: int, pieces: bool) -> Recorded:
    """Noisy following of shortest routes: from goal to goal, or in pieces of four cells that end in staying.

    Args:
        env: of a maze, that does not end at a goal.
        steps: T.
        seed: of everything random.
        pieces: "stitch", not "navigate".
    """
    rng, compass = np.random.default_rng(seed), Compass(env)
    cells, goals = free_cells(env.maze_map), corners(env.maze_map)
    first = cells[rng.integers(len(cells))]
    if pieces:
        goals = at_distance(env, first, STITCH_CELLS) or [first]
    observation, _ = begin(env, seed, task_info={"init_ij": first, "goal_ij": goals[rng.integers(len(goals))]})
    observations, actions = [observation], []
    with chance_from(seed):
        for _ in range(steps):
            actions.append(np.clip(compass.ahead() + rng.normal(0, POINT_NOISE, 2), -1, 1))
            observation, *_, info = env.step(actions[-1])
            observations.append(observation)
            if info["success"] and not pieces:
                env.set_goal(goal_xy=env.add_noise(env.ij_to_xy(goals[rng.integers(len(goals))])))
    return Recorded.of(observations, actions)


def free_cells(maze: NDArray[np.int64]) -> list[Cell]:
    return [(int(i), int(j)) for i, j in np.argwhere(maze == 0)]


def corners(maze: NDArray[np.int64]) -> list[Cell]:
    """Free cells but those in the middle of a straight corridor, where nobody would want to stop."""

    def straight(i: int, j: int) -> bool:
        upright, level = (maze[i - 1, j], maze[i + 1, j]), (maze[i, j - 1], maze[i, j + 1])
        return any(not any(along) and all(across) for along, across in ((upright, level), (level, upright)))

    return [cell for cell in free_cells(maze) if not straight(*cell)]


def at_distance(env: Any, cell: Cell, cells: int) -> list[Cell]:
    """Free cells so many cells away by the shortest route."""
    place = env.ij_to_xy(cell)
    _, away = env.get_oracle_subgoal(place, place)
    return [(int(i), int(j)) for i, j in np.argwhere(np.asarray(away) == cells)]


# ---------------------------------------------------------------------- arms at tables


def play(env: Any, *, steps: int, seed: int) -> Recorded:
    """One thing after another, each chosen at random and done by an oracle that follows a noisy plan of its own.

    Args:
        env: of the arm, in the package's mode for collecting data.
        steps: T.
        seed: of everything random.
    """
    agents, rng = plan_oracles(env), np.random.default_rng(seed)
    stacked = float(rng.uniform(*STACKED[env.spec.id]))
    observation, info = begin(env, seed)
    observations, actions = [observation], []
    with chance_from(seed):
        agent = _at_work(agents, observation, info)
        for _ in range(steps):
            actions.append(np.clip(agent.select_action(observation, info), -1, 1))
            observation, *_, info = env.step(actions[-1])
            observations.append(observation)
            if agent.done:
                agent = _at_work(agents, *env.set_new_target(p_stack=stacked))
    return Recorded.of(observations, actions)


def plan_oracles(env: Any) -> dict[str, Any]:
    """The package's oracles, by what they move."""
    with quiet_imports():
        from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
        from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
        from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle
    kinds = {"cube": CubePlanOracle, "button": ButtonPlanOracle, "drawer": DrawerPlanOracle, "window": WindowPlanOracle}
    return {name: kind(env=env, noise=PLAN_NOISE, noise_smoothing=NOISE_SMOOTHING) for name, kind in kinds.items()}


def _at_work(agents: dict[str, Any], observation: Any, info: dict[str, Any]) -> Any:
    """The oracle of what is to be moved next, its plan made."""
    agent = agents[info["privileged/target_task"]]
    agent.reset(observation, info)
    return agent
