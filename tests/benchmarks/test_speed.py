"""How fast plans are made, and a guard: ratios inside one run, never absolute times."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from diffplan.benchmarks import speed, training_speed
from diffplan.benchmarks.speed import (
    Setting,
    batch_rows,
    by_the_thousand,
    paper_planner,
    replanning,
    settings,
    speed_rows,
)
from diffplan.benchmarks.training_speed import diffusers_unet, training_rows, wandering
from diffplan.envs.runs import SHIPPED, load_planner
from diffplan.envs.tasks import find_task
from diffplan.planner.pipeline import TrajectoryPlanner

ONE = {"candidates": 1, "steps": 1}


def returned(walk: Generator[str, None, dict]) -> dict:
    """What a generator returns at its end."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="module")
def planner() -> TrajectoryPlanner:
    return load_planner(SHIPPED, device="cpu")[0]


@pytest.fixture(scope="module")
def measured(planner):
    """Rows of a few settings that took turns."""
    made = [
        Setting("slow", planner, {"candidates": 8, "steps": 8}),
        Setting("one step", planner, ONE),
        Setting("one step, prepared", planner, ONE, {}),
        Setting("not raced", planner, ONE, {}, raced=False),
    ]
    return {row["setting"]: row for row in replanning(made, rounds=4)}


def test_rows_say_what_was_measured(measured):
    for row in measured.values():
        assert row["p5_ms"] <= row["median_ms"] <= row["p95_ms"] and row["plans"] >= 4
        assert row["hertz"] == pytest.approx(1000 / row["median_ms"], rel=0.01)
        times = measured["slow"]["median_ms"] / row["median_ms"]
        assert row["times_faster_than_paper"] == pytest.approx(times, rel=0.05, abs=0.06)


def test_a_guard_against_slower_planning(measured):
    """Half of what was measured when this was written, or less: 64 denoisings against one, frozen against not."""
    times = {name: row["median_ms"] for name, row in measured.items()}
    assert times["slow"] > 6 * times["one step"]
    assert times["one step"] > 1.1 * times["one step, prepared"]
    assert times["one step, prepared"] < 3 * times["not raced"]  # a course is no longer most of a plan


def test_a_guard_against_slower_batches(planner, monkeypatch):
    """Many at once are cheaper than one after another, and two steps cost about two."""
    monkeypatch.setitem(speed.BATCHES, "cpu", (1, 32))
    one, two, many, twice = by_the_thousand(planner, rounds=3)
    assert many["plans_per_second"] > 1.3 * one["plans_per_second"]
    assert 1.3 < many["plans_per_second"] / twice["plans_per_second"] < 3
    assert (two["steps"], twice["plans_at_once"]) == (2, 32)


def test_a_guard_against_slower_training(monkeypatch):
    """The loop is not slower than the plain one of Diffuser's code, whose network does less."""
    monkeypatch.setattr(training_speed, "TURN_SECONDS", {"cpu": 1.0})
    monkeypatch.setattr(training_speed, "FIRST", 2)
    report = returned(training_speed.training_speed(torch.device("cpu"), rounds=2))
    (row,) = report["rows"]
    own, plain = (row[name]["update_ms_median"] for name in ("own", "plain"))
    assert own < 2 * plain
    assert row["times_faster"] == pytest.approx(plain / own, rel=0.02)
    assert len(training_rows(report)) == 2


def test_diffusers_own_recipe():
    made = paper_planner(find_task("maze2d-umaze"), 4, torch.device("cpu"))
    assert (made.horizon, made.spec.stride) == (128, 1)
    assert made.denoiser.config.multipliers == [1, 4, 8] or made.denoiser.config.multipliers == (1, 4, 8)
    assert (made.sampling.sampler, made.sampling.steps, made.sampling.candidates) == ("ddpm", 4, 1)
    plan = made.plan(made.problem([-1.0, 1.0, 0.0, 0.0], [1.0, -1.0]))
    assert plan.trajectories.shape == (1, 128, 7)


def test_all_settings_are_compared(planner):
    names = [s.name for s in settings(planner, planner)]
    assert len(set(names)) == len(names)
    assert names[0].startswith(speed.PAPER) and {"default, prepared", "distilled, prepared"} <= set(names)
    assert not any("distilled" in s.name for s in settings(planner, None))


def test_tables_have_a_row_for_each(measured):
    assert len(speed_rows({"replanning": list(measured.values())})) == 1 + len(measured)
    batch = {"plans_at_once": 4, "steps": 1, "precision": "float32", "plans_per_second": 1234}
    assert batch_rows({"batches": [batch]})[1] == ["4", "1", "float32", "1,234"]


def test_the_plain_loop_is_diffusers_own():
    """As many levels and channels as Diffuser's network of this width, and its windows are pieces of episodes."""
    network = diffusers_unet(7, 32)
    assert network(torch.zeros(2, 7, 32), torch.tensor([0, 1])).sample.shape == (2, 7, 32)
    episodes, spec = wandering(3, 200), find_task("maze2d-umaze").spec
    pieces = training_speed.Pieces(episodes, spec, 32)
    assert len(pieces) == 3 * (200 - 32 * spec.stride)
    assert pieces[0].shape == (32, spec.width)
    assert abs(pieces.data[:, :-1].mean()) < 1e-3
