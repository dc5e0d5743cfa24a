"""OGBench tasks' benchmark on a planner that was trained for a moment: what it writes, and that it was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("ogbench")

from diffplan.benchmarks import cloning, suite
from diffplan.benchmarks.baselines import run_policies, run_policy
from diffplan.benchmarks.cloning import CLONE, clone
from diffplan.benchmarks.evaluate import evaluate, stats_record, summarize
from diffplan.benchmarks.metrics import wilson
from diffplan.benchmarks.ogbench import HEADER, OURS, RANDOM, method_rows, published, readme_rows
from diffplan.benchmarks.readme import TABLES, fill_readme
from diffplan.benchmarks.report import markdown
from diffplan.benchmarks.suite import SUITE, run_benchmark
from diffplan.envs import ogbench_data, tasks
from diffplan.envs.datasets import collect, load_episodes
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import OgbenchTask, all_tasks, find_task
from diffplan.envs.tasks.ogbench import PointTask
from diffplan.envs.training import train_run
from diffplan.planner.training import TrainConfig

NAME, EPISODES, STEPS, UPDATES = "pointmaze-medium-navigate", 5, 80, 3


@dataclass(frozen=True)
class Easy(PointTask):
    """Goals of 12 units: the third of medium's five tasks begins at its own, and the fourth is not far from it."""

    def environment(self, *, render_mode=None):
        env = super().environment(render_mode=render_mode)
        env._goal_tol = 12.0
        return env


@pytest.fixture(scope="module")
def easy():
    """The task in short episodes, of which two are run at a time, known by its own name."""
    plain = find_task(NAME)
    made = Easy(**{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)})
    made = replace(made, episode_steps=STEPS, replan_every=40, together=2, sampling={"candidates": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "_TASKS", all_tasks() | {NAME: made})
        yield made


@pytest.fixture(scope="module")
def run(easy, tmp_path_factory):
    """A run of that task, on one recorded episode."""
    root = tmp_path_factory.mktemp("ogbench-benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root / "data"))
        patch.setattr(cloning, "UPDATES", 50)
        list(collect(easy, steps=600, seed=3, most=1))
        ogbench_data._recorder.cache_clear()
        preset = replace(find_preset("default"), horizon=8, width=8)
        config = TrainConfig(steps=UPDATES, batch_size=8)
        list(train_run(easy, root / "run", config, preset=preset, device="cpu"))
        yield root / "run"


@pytest.fixture(scope="module")
def results(run):
    """Folder, numbers and lines of the whole benchmark."""
    folder = run.parent / "results"
    folder.mkdir()
    lines = list(run_benchmark(NAME, output=folder, run=str(run), episodes=EPISODES))
    return folder, json.loads((folder / f"{NAME}.json").read_text()), lines


def row_of(numbers, method):
    return next(row for row in numbers["rows"] if row["method"] == method)


def test_every_task_has_a_benchmark():
    names = {name for name, task in all_tasks().items() if isinstance(task, OgbenchTask)}
    assert len(names) == 9 and names <= set(SUITE)


def test_all_methods_are_measured_on_all_five_tasks(results):
    _, numbers, lines = results
    assert [row["method"] for row in numbers["rows"]] == [RANDOM, CLONE, OURS]
    for row in numbers["rows"]:
        assert row["episodes"] == EPISODES
        assert row["success_rate"] == pytest.approx(np.mean([row["success_by_task"][f"task{n}"] for n in range(1, 6)]))
        assert row["success_ci95"] == pytest.approx(wilson(row["success_rate"], EPISODES), abs=1e-4)
        assert row["success_by_task"]["task3"] == 1
        assert any(line.startswith(f"{row['method']}: success {row['success_rate']:.2f} ") for line in lines)


def test_the_planners_row_is_its_evaluation(results, run):
    _, numbers, _ = results
    planner, task = load_planner(run)
    seeds = task.seeds(numbers["seed"], EPISODES)
    *_, again = evaluate(planner, task, episodes=EPISODES, seeds=seeds, references=False)
    row = row_of(numbers, OURS)
    assert {k: row[k] for k in stats_record(again.stats)} == stats_record(again.stats)
    assert row["plan_seconds_median"] > 0 and row["plans"] == again.plans


def test_the_clones_row_is_what_it_does_in_all_episodes_at_once(results, run, easy):
    """Two at a time or five: the same episodes, and the same policy, which knows this run's data."""
    _, numbers, _ = results
    *_, policy = clone(load_episodes(easy.dataset, easy), goal=easy.spec.position_indices)
    seeds = easy.seeds(numbers["seed"], EPISODES)
    rewards = run_policy(easy, policy, seeds=seeds)
    wanted = stats_record(summarize(CLONE, easy, rewards, seeds=seeds))
    row = row_of(numbers, CLONE)
    assert {k: row[k] for k in wanted} == wanted


class Straight:
    """Heads for the goal, and remembers for how many environments it was asked to."""

    def __init__(self):
        self.counts = []

    def begin(self, observations, goals):
        self.goals = goals
        self.counts.append(len(observations))

    def act(self, observations):
        return np.clip(5 * (self.goals - observations), -1, 1)


def test_further_policies_do_in_groups_what_they_do_in_all_episodes_at_once(easy):
    policy, seeds = Straight(), easy.seeds(0, 5)
    found = run_policies(easy, seeds, also={"straight": policy})
    assert policy.counts == [2, 2, 1] and set(found) == {RANDOM, "straight"}
    at_once = run_policy(easy, policy, seeds=seeds)
    assert len({len(rewards) for rewards in at_once}) > 2  # some are there sooner, some not at all
    for one, same in zip(found["straight"], at_once, strict=True):
        np.testing.assert_array_equal(one, same)


def test_the_report_says_how_it_came_to_be(results, easy):
    folder, numbers, _ = results
    for key in ("versions", "command", "sampling", "device"):
        assert numbers[key], key
    assert (numbers["task"], numbers["seed"], numbers["episodes"]) == (NAME, suite.SEED, EPISODES)
    assert (numbers["data"]["source"], numbers["data_steps"]) == ("recorded here", 600)
    assert numbers["published"] == published(easy) == {"QRL": 0.82, "Diffuser": 0.95, "HorizonFlow": 1.0}
    assert numbers["sampling"]["candidates"] == 2 and numbers["replan_every"] == easy.replan_every
    assert numbers["training"]["updates"] == UPDATES and numbers["training"]["fingerprint"]
    header, *rows = method_rows(numbers)
    assert header == HEADER and {len(row) for row in rows} == {len(HEADER)}
    assert [row[0] for row in rows] == [RANDOM, CLONE, OURS, *(f"{m} (published)" for m in numbers["published"])]
    assert (folder / f"{NAME}.md").read_text().endswith(markdown(header, rows))


@pytest.mark.parametrize(("asked", "done"), [(None, 250), (7, 7)])
def test_the_protocol_has_fifty_episodes_of_each_task(run, tmp_path, monkeypatch, asked, done):
    told = []

    def compare(*arguments):
        told.append(arguments)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(suite, "compare_ogbench", compare)
    with pytest.raises(KeyboardInterrupt):
        list(run_benchmark(NAME, output=tmp_path, run=str(run), episodes=asked))
    assert told == [(str(run), find_task(NAME).dataset, done, suite.SEED)]


def test_without_the_package_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    monkeypatch.setattr(suite, "_train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="task scene needs OGBench: pip install"):
        list(run_benchmark("scene", output=tmp_path))


class TestReadme:
    """The table over several tasks, from numbers that were made up."""

    @staticmethod
    def report(task, shares, *, device="cpu", threads=2, published=None):
        """Ten episodes of each of the five tasks; a clone that does a tenth as well, and chance that never does."""

        def row(method, factor):
            share = factor * float(np.mean(shares))
            by_task = {f"task{n}": factor * s for n, s in enumerate(shares, start=1)}
            return {
                "method": method,
                "episodes": 50,
                "success_rate": share,
                "success_ci95": list(wilson(share, 50)),
                "success_by_task": by_task,
                "steps_to_goal_mean": None,
            }

        return {
            "task": task,
            "episodes": 50,
            "rows": [row(RANDOM, 0.0), row(CLONE, 0.1), row(OURS, 1.0) | {"plan_seconds_median": 0.0314}],
            "published": published or {},
            "data": {"source": "recorded here"},
            "data_steps": 300_000,
            "device": device,
            "training": {"minutes": 19.98, "cpu_threads": threads, "device": device},
        }

    def test_a_row_has_the_numbers_of_its_report(self):
        made = self.report("scene", (1.0, 0.9, 0.8, 0.7, 0.6), published={"QRL": 0.82, "HorizonFlow": 0.998})
        header, row = readme_rows([made])
        assert dict(zip(header, row, strict=True)) == {
            "task": "scene",
            "data": "recorded here, 0.3 M steps",
            "episodes": "50",
            "**diffplan**": "**80.0%**",
            "95% interval": "67.0% to 88.8%",  # Wilson's, of 40 in 50
            "tasks 1 / 2 / 3 / 4 / 5": "100% / 90% / 80% / 70% / 60%",
            "cloning": "8.0%",
            "random": "0.0%",
            "published (OGBench's own data)": "QRL 82%, HorizonFlow 99.8%",
            "training": "20 min, 2 threads",
            "one plan": "31 ms (cpu)",
        }

    def test_what_is_not_known_is_left_empty(self):
        made = self.report("scene", (1, 1, 1, 1, 1), device="cuda", threads=1) | {"data": {}, "data_steps": 1_000_000}
        header, row = readme_rows([made])
        cells = dict(zip(header, row, strict=True))
        assert (cells["data"], cells["published (OGBench's own data)"]) == ("1 M steps", "")
        assert (cells["training"], cells["one plan"]) == ("20 min, cuda", "31 ms (cuda)")

    def test_it_has_the_tasks_that_were_measured_in_their_order(self, tmp_path):
        assert TABLES["ogbench"](tmp_path) == ""
        names = ["scene", "pointmaze-giant-stitch", "cube-single"]
        for name in [*names, "maze"]:
            (tmp_path / f"{name}.json").write_text(json.dumps(self.report(name, (1, 1, 0, 0, 0))))
        shown = [line.split(" | ")[0] for line in TABLES["ogbench"](tmp_path).splitlines()]
        assert shown == ["| task", "| ---", "| pointmaze-giant-stitch", "| cube-single", "| scene"]
        readme = tmp_path / "README.md"
        readme.write_text("before\n<!-- ogbench -->\nold\n<!-- /ogbench -->\nafter\n")
        fill_readme(readme, tmp_path)
        table = TABLES["ogbench"](tmp_path)
        assert readme.read_text() == f"before\n<!-- ogbench -->\n{table}<!-- /ogbench -->\nafter\n"
