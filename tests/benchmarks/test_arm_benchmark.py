"""The arm's benchmark on planners that were trained for a moment: what it writes, and that it is what was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.benchmarks import cloning, suite
from diffplan.benchmarks.arms import INVERSE, JOINT, arm_rows
from diffplan.benchmarks.cloning import CLONE, clone
from diffplan.benchmarks.evaluate import evaluate, stats_record, summarize
from diffplan.benchmarks.metrics import wilson
from diffplan.benchmarks.report import header_of, table_rows
from diffplan.benchmarks.suite import SUITE, run_benchmark
from diffplan.envs import arm_data
from diffplan.envs.datasets import collect
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import find_task
from diffplan.envs.training import train_run
from diffplan.planner.episodes import Episodes
from diffplan.planner.training import TrainConfig

NAME, EPISODES = "fetch-reach", 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Results and runs of the whole benchmark of reaching, on four short episodes."""
    root = tmp_path_factory.mktemp("arm-benchmark")
    task = find_task(NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root / "data"))
        patch.setattr(arm_data, "CHUNK", 2)
        patch.setattr(arm_data, "PROVEN", 2)
        patch.setattr(cloning, "UPDATES", 100)
        list(collect(task, steps=300))
        for actions, name in (("joint", "reach"), ("inverse", "reach-inverse")):
            preset = replace(find_preset("default", task), actions=actions)
            list(train_run(task, root / name, TrainConfig(steps=2, batch_size=4), preset=preset, device="cpu"))
        patch.setattr(suite, "_train", lambda *_, **__: pytest.fail("both runs are there"))
        lines = list(run_benchmark(NAME, output=root, run=str(root / "reach"), episodes=EPISODES))
        yield root, json.loads((root / f"{NAME}.json").read_text()), lines


def test_every_skill_has_a_benchmark():
    assert {f"fetch-{skill}" for skill in ("reach", "push", "pick-and-place", "slide")} <= set(SUITE)


def test_all_methods_are_measured_on_the_same_episodes(folders):
    root, numbers, lines = folders
    rows = {row["method"]: row for row in numbers["rows"]}
    assert list(rows) == ["random policy", "scripted expert", CLONE, JOINT, INVERSE]
    assert all(row["episodes"] == EPISODES for row in rows.values())
    assert rows["scripted expert"]["success_rate"] == 1.0
    assert rows["random policy"]["success_rate"] < 1.0
    assert sum(line.startswith(tuple(rows)) for line in lines) == len(rows)


@pytest.mark.parametrize(("method", "folder"), [(JOINT, "reach"), (INVERSE, "reach-inverse")])
def test_a_planners_row_is_its_evaluation(folders, method, folder):
    root, numbers, _ = folders
    planner, task = load_planner(root / folder, device="cpu")
    assert planner.inverse is not None
    assert planner.config.state_only == (method == INVERSE)
    *_, again = evaluate(planner, task, episodes=EPISODES, seed=numbers["seed"], references=False)
    row = next(r for r in numbers["rows"] if r["method"] == method)
    assert {k: row[k] for k in stats_record(again.stats)} == stats_record(again.stats)


def test_the_report_says_how_it_came_to_be(folders):
    _, numbers, _ = folders
    for key in ("versions", "command", "data", "sampling", "device"):
        assert numbers[key], key
    assert numbers["data"]["expert"]["success"] == 1.0
    assert {m: t["updates"] for m, t in numbers["training"].items()} == {JOINT: 2, INVERSE: 2}
    header, *rows = arm_rows(numbers)
    assert len(rows) == 5
    assert {len(row) for row in rows} == {len(header)}


def test_success_is_what_is_held_at_the_end():
    """Four episodes: held from the middle on, touched and lost, held in the last step alone, never there."""
    task = find_task(NAME)
    rewards = np.zeros((4, 10))
    rewards[0, 5:] = rewards[1, 2:8] = rewards[2, 9] = 1
    stats = summarize("any", task, list(rewards))
    assert (stats.success_rate, stats.ever_rate) == (0.5, 0.75)
    assert stats.steps_to_goal == pytest.approx((6 + 3 + 10) / 3)
    numbers = stats_record(stats)
    assert numbers["success_ci95"] == pytest.approx(wilson(0.5, 4), abs=1e-3)
    assert len(header_of(numbers)) == len(table_rows(numbers)[0])


class TestCloning:
    """A policy that is told goals learns what leads to them."""

    @pytest.fixture(scope="class")
    def episodes(self) -> Episodes:
        """A point that goes one way along a line for the whole of an episode; only the future says which."""
        rng = np.random.default_rng(0)
        ways = rng.choice([-1.0, 1.0], 60)
        starts = rng.normal(size=60)
        states = [(start + 0.1 * way * np.arange(21))[:, None] for start, way in zip(starts, ways, strict=True)]
        return Episodes.from_arrays(states, [np.full((20, 1), way) for way in ways])

    def made(self, episodes, goal):
        *_, policy = clone(episodes, goal=goal, updates=300)
        return policy

    def test_the_goal_decides(self, episodes):
        policy = self.made(episodes, (0,))
        seen = np.array([[0.0], [0.0]])
        policy.begin(seen, np.array([[0.5], [-0.5]]))
        np.testing.assert_allclose(policy.act(seen), [[1.0], [-1.0]], atol=0.1)

    def test_without_it_there_is_nothing_to_decide_by(self, episodes):
        policy = self.made(episodes, ())
        assert np.abs(policy.act(np.array([[0.0]]))).max() < 0.6

    def test_goals_never_come_from_another_episode(self, episodes, monkeypatch):
        """Each state holds its episode's number: what is told must hold the same."""
        numbered = [np.full((n + 1, 1), float(i)) for i, n in enumerate((1, 5, 3))]
        told = []
        monkeypatch.setattr(
            cloning,
            "_with_goals",
            lambda seen, goals, columns: (told.append((seen, goals)), torch.cat([seen, goals, goals], 1))[1],
        )
        list(
            clone(Episodes.from_arrays(numbered, [np.zeros((len(n) - 1, 1)) for n in numbered]), goal=(0,), updates=20)
        )
        assert told
        for seen, goals in told:
            torch.testing.assert_close(seen, goals)
