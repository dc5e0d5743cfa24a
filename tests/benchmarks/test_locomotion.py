"""Robots beside what they learned from: clones, the data's own returns, and what the tables say of them."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from diffplan.benchmarks.baselines import RandomPolicy, run_policy
from diffplan.benchmarks.cloning import ClonedPolicy, clone
from diffplan.benchmarks.evaluate import Evaluation, episode_seeds, record, summarize
from diffplan.benchmarks.locomotion import above, recorded_returns, row
from diffplan.benchmarks.robot_report import plus_minus
from diffplan.envs.tasks import find_task
from diffplan.planner.episodes import Episodes

WEIGHTS = np.array([[0.3, -0.2], [0.1, 0.25], [-0.15, 0.05]])
CENTER, SCALE = np.array([5.0, -20.0, 0.0]), np.array([0.1, 10.0, 1.0])


def linear(observations: np.ndarray) -> np.ndarray:
    return (observations - CENTER) / SCALE @ WEIGHTS


def demonstrations(last: float = 0.0) -> Episodes:
    """A linear policy seen from many states of very different scales; what an episode's last state looks like."""
    rng = np.random.default_rng(0)
    observations = [CENTER + SCALE * rng.normal(size=(n + 1, 3)) for n in (300, 1, 450, 2, 900, 1, 1, 1)]
    acted = [linear(o[:-1]) for o in observations]
    for o in observations:
        o[-1] = last
    return Episodes.from_arrays(observations, acted)


def cloned(episodes: Episodes, **options: int) -> ClonedPolicy:
    *losses, policy = clone(episodes, **options)
    assert isinstance(policy, ClonedPolicy) and all(isinstance(loss, float) for loss in losses)
    return policy


class TestCloning:
    def test_a_linear_policy_is_recovered(self):
        policy = cloned(demonstrations(), updates=400)
        unseen = CENTER + SCALE * np.random.default_rng(1).normal(size=(500, 3))
        error = np.sqrt(np.mean((policy.act(unseen) - np.clip(linear(unseen), -1, 1)) ** 2))
        assert error < 0.05 * linear(unseen).std()

    def test_its_loss_falls(self):
        *losses, _ = clone(demonstrations(), updates=1001)
        assert len(losses) == 2 and losses[1] < 0.01 * losses[0]

    def test_what_nobody_did_in_the_last_state_is_not_learned(self):
        a, b = (cloned(demonstrations(last), updates=30) for last in (0.0, 1e6))
        assert torch.equal(a.center, b.center) and torch.equal(a.scale, b.scale)
        for one, other in zip(a.network.parameters(), b.network.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_observations_are_standardised_over_the_states_that_were_acted_in(self):
        episodes = demonstrations(1e6)
        acted = np.delete(episodes.observations, episodes.offsets[1:] - 1, axis=0)
        policy = cloned(episodes, updates=1)
        np.testing.assert_allclose(policy.center, acted.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(policy.scale, acted.std(0, ddof=1), rtol=1e-5)

    def test_columns_that_never_change_divide_by_nothing(self):
        same = Episodes.from_arrays([np.ones((50, 2))], [np.full((49, 1), 0.5)])
        policy = cloned(same, updates=200)
        assert policy.act(np.ones((1, 2))) == pytest.approx(0.5, abs=0.02)

    def test_a_seed_is_a_clone_and_the_global_generator_stays(self):
        before = torch.random.get_rng_state()
        a, same, other = (cloned(demonstrations(), updates=5, seed=s).act(CENTER[None]) for s in (1, 1, 2))
        np.testing.assert_array_equal(a, same)
        assert not np.array_equal(a, other)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_actions_can_be_taken(self):
        policy = cloned(demonstrations(), updates=50)
        far = policy.act(1e4 * np.random.default_rng(2).normal(size=(100, 3)))
        assert far.shape == (100, 2) and far.dtype == np.float64 and np.abs(far).max() == 1


class TestAbove:
    def test_pairs_are_compared_one_by_one(self):
        others = np.array([100.0, 200.0, 300.0, 400.0])
        got = above(others + [1.0, 2.0, 3.0, 4.0], others, paired=True)
        half = 1.96 * math.sqrt(5 / 3) / 2
        assert got["mean"] == 2.5 and got["ci95"] == round(half, 2) and got["significant"] is True
        assert got["ratio"] == 1.01

    def test_others_by_the_two_means_and_both_spreads(self):
        ours, others = np.array([10.0, 14.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
        got = above(ours, others, paired=False)
        half = 1.96 * math.sqrt(8 / 2 + 2.5 / 5)
        assert got["mean"] == 9.0 and got["ci95"] == round(half, 2) and got["significant"] is True
        assert got["ratio"] == 4.0

    def test_pairing_finds_what_lies_within_the_spread(self):
        others = 100 * np.random.default_rng(0).normal(size=30) + 1000
        ours = others + 1 + 0.1 * np.random.default_rng(1).normal(size=30)
        assert above(ours, others, paired=True)["significant"]
        assert not above(ours, others, paired=False)["significant"]

    @pytest.mark.parametrize("paired", [True, False])
    def test_no_difference_is_not_significant_and_less_is_less(self, paired):
        values = np.array([3.0, 5.0, 8.0])
        same, less = (above(v, values, paired=paired) for v in (values, values - 100))
        assert same["mean"] == 0 and not same["significant"] and same["ratio"] == 1
        assert less["mean"] == -100 and not less["significant"]

    def test_intervals_cover_the_truth(self):
        rng = np.random.default_rng(3)
        hits = []
        for _ in range(400):
            got = above(rng.normal(7, 2, 60), rng.normal(4, 3, 40), paired=False)
            hits.append(abs(got["mean"] - 3) <= got["ci95"])
        assert 0.91 < np.mean(hits) < 0.985


def robot_episodes() -> tuple[Episodes, list[np.ndarray]]:
    """Hopper's columns, made up, and the recorded rewards of each episode."""
    rng, lengths = np.random.default_rng(5), (7, 1000, 3)
    rewards = [rng.normal(2, 1, n) for n in lengths]
    observations = [rng.normal(size=(n + 1, 11)) for n in lengths]
    actions = [rng.uniform(-1, 1, (n, 3)) for n in lengths]
    return Episodes.from_arrays(observations, actions, rewards, [True, False, True]), rewards


@pytest.mark.parametrize("penalty", [0.0, 100.0, 12.5])
def test_recorded_returns_are_the_sums_of_what_was_recorded(penalty):
    task = dataclasses.replace(find_task("hopper-medium"), fall_penalty=penalty)
    episodes, rewards = robot_episodes()
    loaded = dataclasses.replace(episodes, rewards=task.rewards(episodes))
    assert (penalty == 0) == np.array_equal(loaded.rewards, episodes.rewards)
    np.testing.assert_allclose(recorded_returns(task, loaded), [r.sum() for r in rewards], rtol=1e-5)


UNSCORED = dataclasses.replace(find_task("ant-medium"), score_range=None)


class TestStatistics:
    REWARDS = (np.full(1000, 3.0), np.full(10, 2.5), np.full(999, 1.0), np.full(1000, 0.5))
    RETURNS = np.array([3000.0, 25.0, 999.0, 500.0])
    HALF = 1.96 * RETURNS.std(ddof=1) / 2

    def test_robots_have_scores_and_stay_upright_or_not(self):
        stats = summarize("x", find_task("hopper-medium"), self.REWARDS)
        assert (stats.name, stats.episodes, stats.upright, stats.steps) == ("x", 4, 0.5, 752.25)
        assert stats.returns.mean == pytest.approx(self.RETURNS.mean())
        assert stats.returns.ci95 == pytest.approx(self.HALF)
        low, high = -20.27, 3234.3  # D4RL's random and expert returns of Hopper
        assert stats.normalized.mean == pytest.approx(100 * (self.RETURNS.mean() - low) / (high - low))
        assert stats.normalized.ci95 == pytest.approx(100 * self.HALF / (high - low))
        assert stats.score_strict is stats.score_latched is stats.success_rate is stats.steps_to_goal is None

    def test_without_a_published_range_there_is_no_score(self):
        stats = summarize("x", UNSCORED, self.REWARDS)
        assert stats.normalized is None and stats.returns.mean == self.RETURNS.mean() and stats.upright == 0.5

    @pytest.mark.parametrize(("task", "scored"), [(find_task("hopper-medium"), True), (UNSCORED, False)])
    def test_records_say_that_the_scale_is_only_a_scale(self, task, scored):
        stats = summarize("x", task, self.REWARDS)
        made = record(Evaluation(stats, (stats,), (), 0.1, 3), task, seed=0, device="cpu", versions={}, command="c")
        for numbers in (made, made["references"]["x"]):
            assert numbers["return_mean"] == 1131 and numbers["upright_rate"] == 0.5 and numbers["steps_mean"] == 752.25
            assert (numbers["score_normalized_own_data"] is not None) == scored
            assert numbers["score_strict"] is numbers["success_rate"] is numbers["score_latched"] is None
        assert json.loads(json.dumps(made, allow_nan=False)) == made

    def test_rows_agree_with_them(self):
        task, lengths = find_task("hopper-medium"), np.array([1000.0, 10, 999, 1000])
        made, stats = row("x", task, self.RETURNS, lengths), summarize("x", task, self.REWARDS)
        assert made["method"] == "x" and made["episodes"] == 4
        assert made["return_mean"] == stats.returns.mean
        assert made["return_ci95"] == pytest.approx(stats.returns.ci95, abs=0.006)
        assert made["score_normalized_own_data"] == pytest.approx(stats.normalized.mean, abs=0.006)
        assert made["score_normalized_own_data_ci95"] == pytest.approx(stats.normalized.ci95, abs=0.006)
        assert made["upright_rate"] == stats.upright
        assert made["steps_mean"] == pytest.approx(stats.steps, abs=0.06)
        assert row("x", UNSCORED, self.RETURNS, lengths)["score_normalized_own_data"] is None


def lived(task, seeds, steps: int) -> list[np.ndarray]:
    """What chance earns, one environment after the other."""
    every = []
    for seed in seeds:
        env, policy, rewards = task.environment(), RandomPolicy(task, [seed]), []
        task.reset(env, np.random.default_rng(seed))
        while len(rewards) < steps:
            _, reward, terminated, _, _ = env.step(policy.act(np.zeros((1, 1)))[0].astype(np.float32).astype(float))
            rewards.append(reward)
            if terminated:
                break
        env.close()
        every.append(np.array(rewards))
    return every


@pytest.mark.parametrize("steps", [1000, 25])
def test_run_policy_gives_rewards_until_each_episodes_end(steps):
    task, seeds = dataclasses.replace(find_task("hopper-medium"), episode_steps=steps), episode_seeds(0, 6)
    got, want = run_policy(task, RandomPolicy(task, seeds), seeds=seeds), lived(task, seeds, steps)
    lengths = [len(r) for r in want]
    assert [len(r) for r in got] == lengths and len(set(lengths)) > 1
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)
    assert summarize("chance", task, got).upright == np.mean([n == steps for n in lengths])


class TestOneEpisode:
    def test_has_no_interval_and_can_still_be_written_down(self) -> None:
        made = row("x", find_task("hopper-medium"), np.array([100.0]), np.array([50.0]))  # type: ignore[arg-type]
        assert made["return_ci95"] is None and json.loads(json.dumps(made, allow_nan=False)) == made
        assert plus_minus(made) == "100"
