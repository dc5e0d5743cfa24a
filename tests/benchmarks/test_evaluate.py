import json

import numpy as np
import pytest

from diffplan.benchmarks.baselines import WaypointPolicy, policies, run_policy
from diffplan.benchmarks.demo import commands
from diffplan.benchmarks.evaluate import Evaluation, episode_seeds, evaluate, record, summarize
from diffplan.benchmarks.report import HEADER, markdown, table_rows
from diffplan.benchmarks.suite import SUITE, run_benchmark
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import find_task

KEYS = {
    "task",
    "episodes",
    "seed",
    "score_strict",
    "score_strict_ci95",
    "score_latched",
    "success_rate",
    "steps_to_goal_mean",
    "return_mean",
    "plan_seconds_median",
    "plans",
    "device",
    "versions",
    "command",
}


@pytest.fixture(scope="module")
def evaluation(run_folder):
    planner, task = load_planner(run_folder, task="multi2d")
    *shares, last = evaluate(planner, task, episodes=3, seed=1, candidates=2, replan_every=100)
    assert shares == sorted(shares) and shares[-1] == 1.0
    return task, last


def test_evaluation_runs_whole_episodes_and_counts_right(evaluation):
    task, last = evaluation
    assert isinstance(last, Evaluation) and [len(r.rewards) for r in last.rollouts] == [task.episode_steps] * 3
    for rollout in last.rollouts:  # the protocol's reward, recomputed from the states
        gaps = np.hypot(*(rollout.states[1:, :2] - rollout.goal).T)
        np.testing.assert_array_equal(rollout.rewards, gaps <= 0.5)
    low, high = task.score_range
    returns = [r.rewards.sum() for r in last.rollouts]
    assert last.stats.score_strict.mean == pytest.approx(100 * (np.mean(returns) - low) / (high - low))
    assert {s.name for s in last.references} == {"random policy", "waypoint controller"}


def test_the_json_has_what_the_design_promises(evaluation):
    task, last = evaluation
    numbers = record(last, task, seed=1, device="cpu", versions={}, command="c")
    assert set(json.loads(json.dumps(numbers, allow_nan=False))) >= KEYS
    rows = table_rows(numbers)
    assert [len(r) for r in rows] == [len(HEADER)] * 3 and "diffplan" in markdown(HEADER, rows)


def test_seeds_are_the_same_for_every_method_and_differ():
    assert episode_seeds(0, 5) == episode_seeds(0, 9)[:5]
    assert len(set(episode_seeds(0, 1000))) == 1000 and episode_seeds(0, 5) != episode_seeds(1, 5)


@pytest.mark.parametrize("name", ["maze2d-umaze", "multi2d-large"])
def test_the_demonstrator_reaches_every_goal_and_chance_does_not(name):
    task, seeds = find_task(name), episode_seeds(0, 8)
    stats = {n: summarize(n, task, run_policy(task, p, seeds=seeds)) for n, p in policies(task, seeds).items()}
    assert isinstance(policies(task, seeds)["waypoint controller"], WaypointPolicy)
    assert stats["waypoint controller"].success_rate == 1.0
    assert stats["waypoint controller"].score_strict.mean > 100 > stats["random policy"].score_strict.mean


def test_an_unknown_benchmark_or_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown benchmark 'x'.*maze"):
        next(run_benchmark("x", output=tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        next(run_benchmark(next(iter(SUITE)), output=tmp_path / "none"))


def test_the_demo_uses_the_programs_own_commands(tmp_path):
    words = [c[0] for c in commands(tmp_path, 1.0)]
    assert words == ["train", "plan", "rollout", "evaluate"]
