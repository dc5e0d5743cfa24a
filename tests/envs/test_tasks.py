"""Built-in tasks under one class of checks, and a user's own task from end to end."""

import subprocess
import sys
from dataclasses import replace

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from diffplan.envs.control import controller_for
from diffplan.envs.presets import PRESETS, find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import Task, all_tasks, find_task, register
from diffplan.envs.training import train_run
from diffplan.planner.controllers import PlannedActions, TrackingController
from diffplan.planner.execution import Executor
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.training import TrainConfig

BUILT_IN = sorted(n for n in all_tasks() if n.startswith(("maze2d", "multi2d")))


@pytest.mark.parametrize("name", BUILT_IN)
class TestMazeTask:
    def test_protocol(self, name):
        """Free start cell +/- 0.1 with velocity N(0, 0.1), the fixed goal's cell or a free one, reward within 0.5."""
        task = find_task(name)
        count = 40
        with Simulators(task, count) as simulators:
            observations, goals = simulators.reset(range(count))
            for state, goal in zip(observations, goals, strict=True):
                cell = task.maze.cell(state[:2])
                assert cell in task.maze.free_cells
                assert np.abs(state[:2] - task.maze.center(cell)).max() <= 0.1 + 1e-6
                if task.goal_cell:
                    np.testing.assert_allclose(goal, task.maze.center(task.goal_cell))
                else:
                    assert task.maze.cell(goal) in task.maze.free_cells
            assert len({task.maze.cell(s[:2]) for s in observations}) > 3
            assert 0.05 < observations[:, 2:].std() < 0.15
            after, rewards, ended = simulators.step(np.zeros((count, 2), np.float32))
            np.testing.assert_array_equal(rewards, np.hypot(*(after[:, :2] - goals).T) <= 0.5)
            assert not ended.any()

    def test_fixed_goals_are_d4rls_and_ogbenchs(self, name):
        task = find_task(name)
        fixed = {"umaze": (1, 1), "medium": (6, 6), "large": (7, 9), "giant": (10, 14)}
        assert task.goal_cell == (fixed[name.split("-")[1]] if name.startswith("maze2d") else None)
        steps = {"umaze": 300, "medium": 600, "large": 800, "giant": 1200}[name.split("-")[1]]
        scores = {"umaze": (23.85, 161.86), "medium": (13.13, 277.39), "large": (6.7, 273.99)}
        assert task.episode_steps == steps and task.score_range == scores.get(name.split("-")[1])

    def test_episode_is_its_seeds_in_any_slot(self, name):
        task = find_task(name)
        with Simulators(task, 3) as many, Simulators(task, 1) as one:
            observations, goals = many.reset([5, 6, 7])
            alone, goal = one.reset([6])
            np.testing.assert_array_equal(observations[1], alone[0])
            np.testing.assert_array_equal(goals[1], goal[0])
            actions = np.array([[0.3, -0.2]] * 3, np.float32)
            for _ in range(5):
                states, step = many.step(actions)[0], one.step(actions[:1])[0]
            np.testing.assert_array_equal(states[1], step[0])

    def test_chosen_start_and_goal(self, name):
        task = find_task(name)
        start, goal = (task.maze.center(task.maze.free_cells[i]) for i in (0, -1))
        with Simulators(task, 1, start=start, goal=goal) as simulators:
            observations, goals = simulators.reset([0])
        np.testing.assert_allclose(observations[0], [*start, 0, 0])
        np.testing.assert_allclose(goals[0], goal, atol=1e-6)

    def test_points(self, name):
        task = find_task(name)
        cell = task.maze.free_cells[2]
        assert task.parse_point(f"cell:{cell[0]},{cell[1]}", "goal") == pytest.approx(tuple(task.maze.center(cell)))
        for text, message in (
            ("1", "has 1 numbers"),
            ("1,2,3", "has 3 numbers"),
            ("a,b", "not a list of numbers"),
            ("nan,1", "finite"),
            ("99,99", "outside the maze; the nearest free point"),
            ("cell:0,0", "inside or against a wall; the nearest free point"),
            ("cell:99,0", "outside the maze of"),
            ("cell:x", "write cell:ROW,COL"),
            ("", "numbers"),
        ):
            with pytest.raises(ValueError, match=message):
                task.parse_point(text, "goal")


def test_maze2d_and_multi2d_share_their_data():
    assert find_task("maze2d") is find_task("maze2d-umaze")
    assert find_task("maze2d-large").dataset == find_task("multi2d-large").dataset


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown task 'mase2d'.*maze2d-umaze"):
        find_task("mase2d")
    with pytest.raises(ValueError, match="unknown preset 'x'.*default"):
        find_preset("x")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_presets_fit_tasks(preset):
    task = preset.fit(find_task("maze2d-medium"))
    assert task.spec.stride == (preset.stride or 10) and task.horizon == (preset.horizon or 36)
    assert preset.minutes is None or task.minutes == preset.minutes


def test_controllers_by_name():
    maze = find_task("maze2d")
    assert isinstance(controller_for(maze), TrackingController)
    assert isinstance(controller_for(maze, "actions"), PlannedActions)
    free = replace(maze, gains=None)
    assert isinstance(controller_for(free), PlannedActions)
    with pytest.raises(ValueError, match="no gains"):
        controller_for(free, "tracking")
    with pytest.raises(ValueError, match="unknown controller"):
        controller_for(maze, "pid")


class Cart(gymnasium.Env):
    """A cart on a rail: position and velocity, pushed left or right."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-1, 1), 0.0])
        return self.state.copy(), {}

    def step(self, action):
        push = float(np.clip(action[0], -1, 1))
        velocity = 0.95 * self.state[1] + 0.2 * push
        self.state = np.array([self.state[0] + 0.1 * velocity, velocity])
        return self.state.copy(), -abs(self.state[0]), False, False, {}


@pytest.mark.filterwarnings("ignore")
def test_a_users_own_environment_becomes_a_task(tmp_path, monkeypatch):
    """The recipe of the README: an environment, a Minari dataset, and a dozen lines."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    env, rng, buffers = Cart(), np.random.default_rng(0), []
    for episode in range(20):
        states, pushes = [env.reset(seed=episode)[0]], []
        target = rng.uniform(-1, 1)
        for _ in range(40):
            push = np.clip(2 * (target - states[-1][0]) - 2 * states[-1][1] + rng.normal(0, 0.2), -1, 1)
            pushes.append([push])
            states.append(env.step(pushes[-1])[0])
        last = [False] * 39 + [True]
        buffers.append(
            EpisodeBuffer(
                observations=np.array(states),
                actions=np.array(pushes, np.float32),
                rewards=[0.0] * 40,
                terminations=[False] * 40,
                truncations=last,
            )
        )
    minari.create_dataset_from_buffers(
        "me/cart-v0", buffers, observation_space=env.observation_space, action_space=env.action_space
    )
    assert minari.load_dataset("me/cart-v0").total_episodes == 20

    task = register(
        Task(
            name="cart",
            make=lambda render_mode=None: Cart(),
            dataset="me/cart-v0",
            horizon=8,
            episode_steps=30,
            spec=TrajectorySpec(("push",), ("x", "v"), position=("x",), velocity=("v",), dt_seconds=0.1, stride=3),
            gains=(2.0, 2.0),
            replan_every=10,
        )
    )
    *_, done = train_run(task, tmp_path / "run", TrainConfig(steps=5, batch_size=8), preset=find_preset("default"))
    planner, again = load_planner(tmp_path / "run")
    assert done.stage == "done" and again is task
    with Simulators(task, 2, goal=[0.5]) as simulators:
        executor = Executor(planner, simulators, controller=controller_for(task), replan_every=10)
        rollouts = executor.run(steps=task.episode_steps, seeds=[0, 1])
    assert [r.states.shape for r in rollouts] == [(31, 2), (31, 2)]
    for rollout in rollouts:  # the cart's data is slow: the goal may be beyond a plan's reach
        aim = planner.stops(rollout.states[0], [0.5])[0]
        assert rollout.plans[0].observations[0, -1, 0] == pytest.approx(aim[0])
    with pytest.raises(ValueError, match="cannot place its agent"):
        Simulators(task, 1, start=[0.0]).reset([0])
    assert task.parse_point("0.25", "goal") == (0.25,)


def test_simulators_print_no_banner():
    code = "from diffplan.envs.tasks import find_task; find_task('maze2d').environment().close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_ended_episodes_stay_as_they_are():
    class Short(Cart):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, 1.0, bool(observation[0] > 0), False, {}

    task = Task(
        name="short",
        make=lambda render_mode=None: Short(),
        dataset="me/none-v0",
        spec=TrajectorySpec(("push",), ("x", "v"), position=("x",)),
    )
    with Simulators(task, 8) as simulators:
        simulators.reset(range(8))
        first, rewards, ended = simulators.step(np.ones((8, 1), np.float32))
        assert 0 < ended.sum() < 8 and (rewards == 1).all()
        second, rewards, _ = simulators.step(np.ones((8, 1), np.float32))
    np.testing.assert_array_equal(first[ended], second[ended])
    assert (rewards == np.where(ended, 0, 1)).all()
