"""The benchmark of few steps, on a planner that was trained for a moment."""

from __future__ import annotations

import json

import pytest

from diffplan.benchmarks import steps, suite
from diffplan.benchmarks.steps import steps_rows


@pytest.fixture(scope="module")
def report(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "STEPS", (1, 2))
        patch.setattr(steps, "WARM_STEPS", (1,))
        patch.setattr(steps, "SLOW", {"candidates": 2, "steps": 4})
        list(suite.run_benchmark("steps", output=folder, run=str(run_folder), episodes=2))
    return json.loads((folder / "steps.json").read_text())


def test_every_sampler_is_measured_at_every_number_of_steps(report):
    asked = [(r["sampling"]["sampler"], r["sampling"]["steps"], r["sampling"]["candidates"]) for r in report["rows"]]
    few = [(sampler, count, 1) for sampler in ("ddim", "dpm++") for count in (1, 2)]
    assert asked == [("ddim", 4, 2), *few, ("ddim", 8, 1)]
    assert report["rows"][-1]["sampling"]["warm_steps"] == 1


def test_the_first_row_is_what_others_are_compared_with(report):
    first, *others = report["rows"]
    assert first["below_teacher"]["mean"] == 0
    for row in others:
        gap = first["score_strict"] - row["score_strict"]
        assert row["below_teacher"]["mean"] == pytest.approx(gap, abs=2e-3)


def test_the_table_says_how_replans_begin(report):
    header, *rows = steps_rows(report)
    assert len(rows) == len(report["rows"]) and all(len(row) == len(header) for row in rows)
    assert "8 steps (1 in replans)" in rows[-1][1] and "in replans" not in rows[1][1]
