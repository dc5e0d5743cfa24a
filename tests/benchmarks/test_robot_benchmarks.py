"""Robots' benchmarks on a planner that was trained for a moment: what they write, and that it is what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffplan.benchmarks import cloning, control, suite
from diffplan.benchmarks.control import control_frequency, first_steps
from diffplan.benchmarks.evaluate import episode_seeds, evaluate
from diffplan.benchmarks.robot_report import METHODS, control_rows, locomotion_rows, locomotion_table
from diffplan.benchmarks.suite import SUITE, run_benchmark
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import find_task

EPISODES = 3


@pytest.fixture(scope="module")
def report(robot_folder, tmp_path_factory):
    """Folder and numbers of the whole benchmark of a task."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloning, "UPDATES", 200)
        run = str(robot_folder / "runs" / "hopper")
        lines = list(run_benchmark("hopper-medium", output=folder, run=run, episodes=EPISODES))
    assert len([line for line in lines if line.startswith(METHODS)]) == len(METHODS)
    return folder, json.loads((folder / "hopper-medium.json").read_text())


def test_all_methods_are_measured_on_the_same_episodes(report, robot_folder):
    _, numbers = report
    rows = {row["method"]: row for row in numbers["rows"]}
    assert tuple(rows) == METHODS
    assert all(rows[name]["episodes"] == EPISODES for name in METHODS[1:])
    planner, task = load_planner(robot_folder / "runs" / "hopper")
    seeds = episode_seeds(numbers["seed"], EPISODES)
    *_, again = evaluate(planner, task, episodes=EPISODES, seeds=seeds, references=False)
    assert rows["diffplan, unguided"]["return_mean"] == pytest.approx(again.stats.returns.mean, abs=0.01)
    gap = numbers["above"]["diffplan, unguided"]
    assert gap["mean"] == pytest.approx(
        rows["diffplan"]["return_mean"] - rows["diffplan, unguided"]["return_mean"], abs=0.02
    )
    assert numbers["above"]["diffplan"] == {"mean": 0.0, "ci95": 0.0, "significant": False, "ratio": 1.0}


def test_the_report_names_its_settings(report):
    folder, numbers = report
    for key in ("seed", "device", "versions", "command", "training", "sampling"):
        assert numbers[key] or numbers[key] == 0, key
    assert numbers["training"]["updates"] == 25
    header, *rows = locomotion_rows(numbers)
    assert len(rows) == len(METHODS) and all(len(row) == len(header) for row in rows)
    assert "hopper-medium" in locomotion_table(folder)
    assert locomotion_table(folder.parent / "nowhere") == ""


def test_every_robot_and_kind_of_data_has_a_benchmark():
    kinds = ("medium", "medium-replay", "medium-expert")
    robots = ("hopper", "halfcheetah", "walker2d", "ant")
    assert {f"{robot}-{kind}" for robot in robots for kind in kinds} | {"control"} <= set(SUITE)


def test_control_frequencies_are_those_of_whole_control_steps(robot_folder, monkeypatch):
    monkeypatch.setattr(control, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(control, "TURNS", 1)
    run = str(robot_folder / "runs" / "hopper")
    *lines, speed = control_frequency({"diffplan": run, "paper": run}, seed=0, counts=(1, 2))
    assert len(lines) == 4
    for row in speed["rows"]:
        assert row["hertz"] == pytest.approx(1000 / row["milliseconds_median"], rel=0.02)
        assert row["environment_steps_per_second"] == pytest.approx(row["environments"] * row["hertz"], rel=0.05)
    assert set(speed["times_faster"]) == {"1", "2"}
    assert all(0.2 < ratio < 5 for ratio in speed["times_faster"].values())  # the same planner on both sides
    *_, first = first_steps({"diffplan": run, "paper": run}, seed=0, episodes=2, steps=5)
    assert first["difference"] == {"mean": 0.0, "ci95": 0.0}
    assert np.isfinite(first["paper"]["return_mean"])
    assert len(control_rows(speed | {"first_steps": first})) == 5


def test_a_missing_rival_is_trained_by_the_papers_recipe(robot_folder, tmp_path, monkeypatch):
    asked = []

    def train(task, folder, config, *, preset):
        asked.append((task.name, folder.name, preset.name, preset.fit(task).horizon))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(suite, "_train", train)
    monkeypatch.setattr(suite, "CONTROL_TASK", "hopper-medium")
    with pytest.raises(KeyboardInterrupt):
        list(run_benchmark("control", output=tmp_path, run=str(robot_folder / "runs" / "hopper")))
    assert asked == [("hopper-medium", "hopper-paper", "paper", 32)]


def test_a_run_of_another_task_is_refused(robot_folder, tmp_path):
    with pytest.raises(ValueError, match="was trained for hopper-medium, not for walker2d-medium"):
        list(run_benchmark("walker2d-medium", output=tmp_path, run=str(robot_folder / "runs" / "hopper")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("robot", ["hopper", "halfcheetah", "walker2d", "ant"])
@pytest.mark.parametrize("quality", ["medium", "medium-replay"])
def test_the_papers_recipe_is_its_own_whatever_a_task_prefers(robot, quality):
    task = find_task(f"{robot}-{quality}")
    preset = find_preset("paper", task)
    merged = {**task.sampling, **preset.sampling}
    assert preset.fit(task).horizon == (4 if robot == "halfcheetah" else 32)
    assert (merged["candidates"], merged["steps"], merged["warm_steps"], merged["guidance"]) == (64, 20, 20, "both")
    assert merged["sampler"] == "ddpm" and preset.noise_levels == 20
