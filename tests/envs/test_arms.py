"""The Fetch arm: what is observed, the scripted experts, their data, and planning from end to end."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from diffplan.envs import arm_data
from diffplan.envs.arm_data import Disturbed, collect_arm, prove, record_chunk, record_episode
from diffplan.envs.control import controller_for, executor_for
from diffplan.envs.datasets import _by_goal, collect, describe, load_episodes
from diffplan.envs.experts import EXPERTS
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import ArmTask, all_tasks, find_task
from diffplan.envs.training import train_run
from diffplan.planner.controllers import PlannedActions
from diffplan.planner.training import TrainConfig

SKILLS = ("reach", "push", "pick-and-place", "slide")
PROVABLE = ("reach", "push", "pick-and-place")


@functools.cache
def task_of(skill: str) -> ArmTask:
    task = find_task(f"fetch-{skill}")
    assert isinstance(task, ArmTask)
    return task


@pytest.fixture(scope="module")
def make_env():
    made = {}

    def make(skill: str):
        made[skill] = made.get(skill) or task_of(skill).environment()
        return made[skill]

    yield make
    for env in made.values():
        env.close()


def column(task, observations, *names):
    return np.asarray(observations)[..., [task.spec.observation_names.index(n) for n in names]]


@pytest.mark.parametrize("skill", SKILLS)
class TestEverySkill:
    def test_it_is_listed(self, skill):
        assert f"fetch-{skill}" in all_tasks()

    def test_the_goal_is_about_what_the_environment_says_was_achieved(self, skill, make_env):
        task, env = task_of(skill), make_env(skill)
        observation, _ = env.reset(seed=1)
        for _ in range(5):
            observation, *_ = env.step(env.action_space.sample())
        seen = task.flatten(observation)
        assert len(seen) == len(task.spec.observation_names)
        np.testing.assert_allclose(seen[task.spec.position_indices], observation["achieved_goal"])

    def test_velocities_are_metres_per_second_of_the_thing_itself(self, skill, make_env):
        """The mean of two velocities is what the step between them was, while the gripper pushes whatever there is."""
        task, env = task_of(skill), make_env(skill)
        observation, _ = env.reset(seed=2)
        seen = [task.flatten(observation)]
        for _ in range(30):
            observation, *_ = env.step(EXPERTS[skill](seen[-1], observation["desired_goal"]))
            seen.append(task.flatten(observation))
        position = column(task, seen, *task.spec.position)
        velocity = column(task, seen, *task.spec.velocity)
        grip = column(task, seen, "grip_x", "grip_y", "grip_z")
        grip_v = column(task, seen, "grip_vx", "grip_vy", "grip_vz")
        for places, rates in ((position, velocity), (grip, grip_v)):
            gaps = np.diff(places, axis=0) - task.spec.dt_seconds * (rates[1:] + rates[:-1]) / 2
            assert np.quantile(np.abs(gaps), 0.9) < 0.012  # a contact changes a velocity within a step
            assert np.abs(rates).max() > 0.1

    def test_reward_and_success_are_the_environments(self, skill, make_env):
        task, env = task_of(skill), make_env(skill)
        rng = np.random.default_rng(3)
        for far in (0.0, 0.03, 0.049, 0.051, 0.2):
            seen, _ = task.reset(env, rng)
            away = rng.normal(size=3)
            here = seen[task.spec.position_indices]
            env.goal = here + far * away / np.linalg.norm(away)
            own = env.compute_reward(here, env.goal, {}) + 1
            assert task.reward(seen, env.goal, 0.0) == own == float(far < 0.05)
            assert bool(task.reached(seen, env.goal)) == bool(own)

    def test_an_episode_is_its_seeds_and_takes_a_goal(self, skill):
        task = task_of(skill)
        with Simulators(task, 2) as two, Simulators(task, 1) as one:
            observations, goals = two.reset([5, 6])
            alone, goal = one.reset([6])
            np.testing.assert_array_equal(observations[1], alone[0])
            np.testing.assert_array_equal(goals[1], goal[0])
            assert not np.array_equal(goals[0], goals[1])
        wanted = [(low + high) / 2 for low, high in task.reachable]
        task.check_point(wanted, "goal")
        with Simulators(task, 1, goal=wanted) as one:
            _, goal = one.reset([6])
            np.testing.assert_allclose(goal[0], wanted)
            np.testing.assert_allclose(one.envs[0].goal, wanted)

    def test_goals_of_the_environment_are_in_reach(self, skill, make_env):
        task, env = task_of(skill), make_env(skill)
        for seed in range(40):
            seen, goal = task.reset(env, np.random.default_rng(seed))
            task.check_point(goal.tolist(), "goal")
            if task.has_object:
                task.check_point(seen[task.spec.position_indices].tolist(), "start")

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_what_is_out_of_reach_is_refused_with_the_limits(self, skill, axis):
        task = task_of(skill)
        point = [(low + high) / 2 for low, high in task.reachable]
        point[axis] = 3.0
        with pytest.raises(ValueError, match=f"out of reach: {'xyz'[axis]} is 3 m and must lie between"):
            task.check_point(point, "goal")

    def test_the_expert_remembers_nothing(self, skill, make_env):
        task, env = task_of(skill), make_env(skill)
        seen, goal = task.reset(env, np.random.default_rng(0))
        first = EXPERTS[skill](seen, goal)
        EXPERTS[skill](seen + 0.01, goal)
        np.testing.assert_array_equal(EXPERTS[skill](seen, goal), first)
        assert np.abs(first).max() <= 1

    def test_episodes_go_on_to_other_goals_and_are_rewarded_where_they_are_held(self, skill, make_env):
        task, env = task_of(skill), make_env(skill)
        episode = record_episode(task, env, np.random.default_rng(4))
        steps = len(episode.actions)
        assert steps == task.data_steps
        assert {len(v) for v in episode.observations.values()} == {steps + 1}
        gaps = np.linalg.norm(
            episode.observations["achieved_goal"][1:] - episode.observations["desired_goal"][:-1], axis=1
        )
        np.testing.assert_array_equal(episode.rewards, gaps < 0.05)
        goals = len(np.unique(episode.observations["desired_goal"], axis=0))
        assert goals <= task.goals_per_episode
        assert goals > 1 or skill == "slide" or not episode.rewards.sum() > 12


class TestExperts:
    @pytest.mark.parametrize("skill", PROVABLE)
    def test_undisturbed_they_hold_the_goal(self, skill):
        assert np.mean(prove((f"fetch-{skill}", range(10)))) >= 0.9

    def test_sliding_is_better_than_chance_and_not_perfect(self):
        assert 3 <= sum(prove(("fetch-slide", range(12)))) < 12

    def test_a_block_that_was_dropped_is_grasped_again(self, make_env):
        task, env = task_of("pick-and-place"), make_env("pick-and-place")
        seen, _ = task.reset(env, np.random.default_rng(1))
        goal = np.array([1.3, 0.75, 0.7])
        heights = []
        for step in range(110):
            action = EXPERTS["pick-and-place"](seen, goal)
            if 35 <= step < 40:
                action = np.array([0.0, 1.0, 0.0, 1.0])  # the fingers open
            seen = task.flatten(env.step(action)[0])
            heights.append(float(column(task, seen, "object_z")[0]))
        assert max(heights[:36]) > 0.6
        assert min(heights[40:60]) < 0.44
        assert bool(np.linalg.norm(column(task, seen, *task.spec.position) - goal) < 0.05)

    def test_a_block_that_was_pushed_aside_is_pushed_from_there(self, make_env):
        from diffplan.envs.tasks.arms import place_object

        task, env = task_of("push"), make_env("push")
        seen, _ = task.reset(env, np.random.default_rng(1), start=[1.25, 0.75, 0.425])
        goal = np.array([1.4, 0.65, 0.425])
        for step in range(120):
            if step == 25:
                place_object(env, np.array([1.35, 0.85]))
                seen = task.flatten(env._get_obs())
            seen = task.flatten(env.step(EXPERTS["push"](seen, goal))[0])
        assert bool(task.reached(seen, goal))

    def test_noise_slips_and_scale_disturb_them(self):
        def constant(*_):
            return np.array([0.5, 0.0, 0.0, 0.0])

        seen, goal = np.zeros(16), np.zeros(3)
        hands = [Disturbed(constant, np.random.default_rng(i), scaled=True) for i in range(200)]
        actions = np.array([[hand.act(seen, goal) for _ in range(60)] for hand in hands])
        assert np.abs(actions).max() <= 1
        noises = np.array([hand.noise for hand in hands])
        for noise in arm_data.NOISES:
            middle = np.median(actions[noises == noise][..., 0], axis=1) / 0.5
            scales = np.array([hand.scale for hand in hands if hand.noise == noise])
            assert abs(np.mean(middle - scales)) <= 0.2 * noise + 1e-9
            spread = actions[noises == noise][..., 1].std()
            assert 0.15 < spread < 0.15 + 1.2 * noise + 0.1  # slips, and the noise between them
        quiet = actions[noises == 0][..., 1]
        assert 0.03 < np.mean(quiet != 0) < 0.2  # slips of about four steps in two of a hundred


class TestData:
    @pytest.fixture(scope="class")
    def recorded(self, tmp_path_factory):
        """Two chunks of two episodes of pushing, on as many processes as there are cores."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("arms")))
            patch.setattr(arm_data, "CHUNK", 2)
            patch.setattr(arm_data, "PROVEN", 4)
            task = task_of("push")
            shown = list(collect(task, steps=400, seed=7))
            yield shown, describe(task.dataset), load_episodes(task.dataset, task)

    def test_progress_ends_at_the_whole(self, recorded):
        shown, _, _ = recorded
        assert [s.done for s in shown] == sorted(s.done for s in shown)
        assert shown[-1].done == shown[-1].total == 400

    def test_provenance_says_how_good_the_expert_is(self, recorded):
        _, info, _ = recorded
        assert info.provenance["expert"]["success"] == pytest.approx(1.0, abs=0.3)
        assert info.provenance["expert"]["success_is_over_episodes"] == 4
        assert info.provenance["seed"] == 7
        assert info.steps == 400

    def test_what_is_read_is_what_was_recorded(self, recorded):
        _, _, episodes = recorded
        task, seeds = task_of("push"), np.random.SeedSequence(7).generate_state(2)
        own = [e for s in seeds for e in record_chunk((task.name, 2, int(s)))]
        assert episodes.rewards is None
        again = episodes.joined()
        assert len(again) == 4 <= len(episodes)
        for i, one in enumerate(own):
            observations, actions = again.episode(i)
            np.testing.assert_allclose(observations, task.observed(one.observations["observation"]), atol=1e-5)
            np.testing.assert_allclose(actions, one.actions, atol=1e-6)


class TestGoals:
    def test_an_episode_is_read_as_one_for_each_goal(self, make_env):
        """Idling at a goal before there is another is no way to that one."""
        task, env = task_of("reach"), make_env("reach")
        recorded = record_episode(task, env, np.random.default_rng(4))
        goals = recorded.observations["desired_goal"]
        raw = SimpleNamespace(
            observations=recorded.observations,
            actions=recorded.actions,
            rewards=recorded.rewards,
            terminations=np.zeros(len(recorded.actions), bool),
        )
        rows = list(_by_goal(raw))
        assert len(rows) == len(np.unique(goals, axis=0)) > 1
        seen = 0
        for states, actions, rewards, failed in rows:
            assert len(states) == len(actions) + 1 == len(rewards) + 1
            assert not failed
            np.testing.assert_array_equal(states, recorded.observations["observation"][seen : seen + len(states)])
            np.testing.assert_array_equal(actions, recorded.actions[seen : seen + len(actions)])
            assert len(np.unique(goals[seen : seen + len(actions)], axis=0)) == 1
            seen += len(actions)
        assert seen == len(recorded.actions)

    def test_a_failure_is_the_last_ones(self):
        goals = np.array([[0.0], [0.0], [1.0], [1.0], [2.0]])  # the last changes after the last action
        raw = SimpleNamespace(
            observations={"observation": np.arange(5.0)[:, None], "desired_goal": goals},
            actions=np.zeros((4, 1)),
            rewards=np.zeros(4),
            terminations=np.array([False, False, False, True]),
        )
        assert [(len(actions), failed) for _, actions, _, failed in _by_goal(raw)] == [(2, False), (2, True)]


class TestFaults:
    def test_an_object_that_fell_ends_its_episode_and_is_named(self):
        from diffplan.envs.tasks.arms import place_object

        task = task_of("push")
        with Simulators(task, 2) as simulators:
            simulators.reset([0, 1])
            place_object(simulators.envs[1], np.array([1.3, 1.6]))
            for _ in range(20):
                observations, rewards, ended = simulators.step(np.zeros((2, 4), np.float32))
            assert ended.tolist() == [False, True]
            assert "fell off the table" in simulators.faults[1]
            assert list(simulators.faults) == [1]
            assert rewards[1] == 0

    def test_an_arm_alone_cannot_drop_anything(self, make_env):
        task = task_of("reach")
        seen, _ = task.reset(make_env("reach"), np.random.default_rng(0))
        seen[2] = 0.1
        assert task.lost(seen) == ""


class TestStarts:
    def test_the_object_is_where_it_was_put(self):
        task = task_of("push")
        with Simulators(task, 1, start=[1.3, 0.7, 0.42]) as simulators:
            observations, _ = simulators.reset([0])
        np.testing.assert_allclose(column(task, observations[0], "object_x", "object_y"), [1.3, 0.7], atol=1e-6)

    def test_an_arm_alone_is_not_placed(self):
        with (
            Simulators(task_of("reach"), 1, start=[1.3, 0.7, 0.5]) as simulators,
            pytest.raises(ValueError, match="leave --start out"),
        ):
            simulators.reset([0])

    def test_beside_the_table_is_refused(self):
        with pytest.raises(ValueError, match="beside where objects lie: y is 2 m"):
            task_of("push").check_point([1.3, 2.0, 0.42], "start")


def test_an_arm_is_trained_and_plans_from_end_to_end(tmp_path, monkeypatch, quick_reports):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    monkeypatch.setattr(arm_data, "CHUNK", 2)
    monkeypatch.setattr(arm_data, "PROVEN", 1)
    from diffplan.envs.presets import find_preset

    task = task_of("pick-and-place")
    list(collect(task, steps=400))
    config = TrainConfig(**task.training, steps=3, batch_size=8)
    *_, last = train_run(task, tmp_path / "run", config, preset=find_preset("default", task), device="cpu")
    assert "3 updates" in last.message
    planner, loaded = load_planner(tmp_path / "run", device="cpu")
    assert loaded == task
    assert planner.plant is None
    assert isinstance(controller_for(task), PlannedActions)
    with Simulators(task, 2) as simulators:
        executor = executor_for(planner, task, simulators, candidates=2)
        rollouts = executor.run(steps=9, seeds=[0, 1])
    for rollout in rollouts:
        assert rollout.plan_steps == tuple(range(0, 9, task.replan_every))
        for plan in rollout.plans:
            np.testing.assert_allclose(plan.positions[0, -1], rollout.goal, atol=1e-6)
            fingers = plan.actions[0][plan.arrivals[0] :, 3]
            assert np.abs(plan.actions[0]).max() < 5
            assert len(fingers)


def test_collecting_yields_chunk_by_chunk(monkeypatch):
    """Nothing is stored before all is recorded: a broken collection leaves nothing behind."""
    monkeypatch.setattr(arm_data, "CHUNK", 1)
    monkeypatch.setattr(arm_data, "store", lambda *_: pytest.fail("stored too early"))
    stages = collect_arm(task_of("reach"), steps=200, seed=0)
    assert next(stages).done == 100
    stages.close()
