"""Tables of the mazes' benchmark: what is printed is what the JSON says, and what passes a bar is above it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from diffplan.benchmarks import maze_report
from diffplan.benchmarks.maze_report import (
    BARS,
    BOUND,
    CONTROLLER,
    OURS,
    PAPER,
    RANDOM,
    TASKS,
    bars,
    bars_rows,
    best_published,
    cost_rows,
    main_rows,
    read_published,
    readme_rows,
    tables,
)

ROOT = Path(__file__).parents[2]


def make_row(method: str, score: float, ci95: float | None = 2.0, **rest) -> dict:
    """Statistics as the benchmark writes them."""
    return {
        "method": method,
        "score_strict": score,
        "score_strict_ci95": ci95,
        "score_latched": score + 0.25,
        "success_rate": 0.97,
        "steps_to_goal_mean": 93.4,
        "share_of_bound": round(score / 200, 4),
        **rest,
    }


def make_report(task: str = "maze2d-umaze", ours: float = 160.0, ci95: float | None = 2.0) -> dict:
    cost = {"training_minutes": 9.24, "training_device": "cpu, 1 thread", "parameters": 1234567}
    cost |= {"plan_ms_median": 21.44, "plan_ms_p95": 1030.25, "steps_per_second": 1812.0}
    rows = [make_row(RANDOM, -3.2), make_row(CONTROLLER, 155.0), make_row(BOUND, 160.0)]
    return {"device": "cpu", "cpu_threads": 1, "tasks": {task: {"rows": [*rows, make_row(OURS, ours, ci95, **cost)]}}}


def cells(table: list[list[str]], **keys: str) -> dict[str, str]:
    """The row, by its header, whose cells are these."""
    header, *rows = table
    assert all(len(row) == len(header) for row in rows)
    found = [named for row in rows if keys.items() <= (named := dict(zip(header, row, strict=True))).items()]
    assert len(found) == 1
    return found[0]


def test_scores_are_printed_as_they_were_measured_and_say_which_they_are():
    row = cells(main_rows(make_report()), method=OURS)
    assert (row["strict score"], row["latched score"]) == ("160.0 ± 2.0", "160.2")
    assert (row["share of the bound"], row["success"], row["steps to goal"]) == ("80.0%", "97%", "93")
    assert not [name for table in tables(make_report()).values() for name in table[0] if name in ("score", "return")]


def test_costs_are_told_of_methods_that_have_any():
    table = cost_rows(make_report())
    assert len(table) == 2
    row = cells(table, method=OURS)
    assert (row["training"], row["trained on"], row["parameters"]) == ("9.2 min", "cpu, 1 thread", "1,234,567")
    assert row["one plan, median (cpu, 1 thread)"] == "21.4 ms"
    assert (row["one plan, 95th percentile"], row["executed steps / s"]) == ("1,030.2 ms", "1,812")


def test_quality_ablations_and_the_giant_are_told():
    report = make_report()
    report["tasks"]["maze2d-umaze"]["quality"] = {
        "pairs": 100,
        "plans_touching_walls": 0.21,
        "courses_touching_walls": None,
        "consistency_plans": 0.0512,
        "consistency_data": 0.02,
    }
    report["ablations"] = [{"task": "multi2d-large", "change": "one candidate", **make_row("", 201.5, 7.25)}]
    giant = {"method": OURS, "success_rate": 0.97, "success_ci95": [0.915, 0.99], "steps_to_goal_mean": 511.6}
    report["giant"] = {"rows": [{**giant, "return_mean": 640.04, "return_ci95": 30.0, "episodes": 100}]}
    made = tables(report)
    assert made["quality"][1] == ["maze2d-umaze", "100", "21%", "", "0.051 m", "0.020 m"]
    assert made["ablations"][1][:4] == ["multi2d-large", "one candidate", "201.5 ± 7.2", "201.8"]
    assert made["giant"][1] == ["giant", OURS, "100", "97%", "92% to 99%", "512", "640.0 ± 30.0"]


def test_the_readme_tells_each_task_beside_what_was_published():
    report = make_report("multi2d-umaze")
    report["tasks"]["multi2d-umaze"]["rows"].append(make_row(PAPER, 98.0))
    row = cells(readme_rows(report), task="multi2d-umaze")
    assert row["best published, strict"] == "144.1 (Hierarchical Diffuser)"
    assert row["best published, any protocol"] == "158.2 (SSD, protocol not stated)"
    assert row["**diffplan (strict)**"] == "**160.0 ± 2.0**" and row["diffplan (latched)"] == "160.2"
    assert row["random (strict)"] == "-3.2 ± 2.0" and row["waypoint controller (strict)"] == "155.0 ± 2.0"
    assert row["paper's recipe (strict)"] == "98.0 ± 2.0" and row["time-optimal bound (strict)"] == "160.0"


def test_published_scores_are_the_files_and_the_best_are_the_highest():
    with maze_report.PUBLISHED.open(newline="") as file:
        lines = list(csv.DictReader(file))
    published = read_published()
    assert len(published) == len(lines) > 30 and {p.task for p in published} >= set(TASKS)
    for task in TASKS:
        for strict in (True, False):
            scores = [
                float(r["score"]) for r in lines if r["task"] == task and (r["protocol"] == "strict" or not strict)
            ]
            best = best_published(task, strict=strict)
            assert best is not None and best.score == max(scores) and f"{best.score:.1f} ({best.method}" in str(best)
            assert ("protocol not stated" in str(best)) == (best.protocol == "not stated")
            assert not strict or best.protocol == "strict"
    latched = [str(p) for p in published if p.protocol == "latched"]
    assert latched and all(words.endswith(", latched)") for words in latched)
    assert best_published("maze2d-giant", strict=False) is None


def test_published_scores_ship():
    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "diffplan/benchmarks/published.csv" in shipped


@pytest.mark.parametrize(("task", "bar"), BARS.items())
@pytest.mark.parametrize(("beyond", "passed"), [(-0.1, False), (0.0, False), (0.1, True)])
def test_a_bar_is_passed_by_a_lower_end_above_it(task, bar, beyond, passed):
    verdict = bars(make_report(task, bar + 2.3 + beyond, 2.3))[task]
    assert verdict["lower"] == pytest.approx(bar + beyond)
    assert verdict["published"] == {"bar": bar, "gap": pytest.approx(beyond), "passed": passed}


@pytest.mark.parametrize(("beyond", "passed"), [(-0.01, False), (0.0, False), (0.01, True)])
def test_controller_and_bound_are_those_of_the_same_report(beyond, passed):
    by_controller = bars(make_report(ours=155 + 1.1 + beyond, ci95=1.1))["maze2d-umaze"]
    assert by_controller["controller"] == {"bar": 155.0, "gap": pytest.approx(beyond), "passed": passed}
    by_bound = bars(make_report(ours=0.95 * 160 + 1.1 + beyond, ci95=1.1))["maze2d-umaze"]
    assert by_bound["bound"] == {"bar": 152.0, "gap": pytest.approx(beyond), "passed": passed}


def test_the_verdicts_are_told():
    row = cells(bars_rows(make_report(ours=156.5, ci95=2.0)), task="maze2d-umaze")
    assert row["diffplan (strict), lower end"] == "154.5"
    assert row["published bar"] == "146.0: passed (+8.50)"
    assert row["waypoint controller (strict)"] == "155.0: not passed (-0.50)"
    assert row["95% of the bound (strict)"] == "152.0: passed (+2.50)"


def test_without_an_interval_or_a_reference_there_is_no_verdict():
    lone = {"tasks": {"maze2d-umaze": {"rows": [make_row(OURS, 200.0)]}}}
    verdict = bars(lone)["maze2d-umaze"]
    assert verdict["published"]["passed"] and verdict["controller"] == {"bar": None, "gap": None, "passed": None}
    assert bars_rows(lone)[1] == ["maze2d-umaze", "198.0", "146.0: passed (+52.00)", "", ""]
    unsure = bars(make_report(ci95=None))["maze2d-umaze"]
    assert unsure["lower"] is None and unsure["published"] == {"bar": 146.0, "gap": None, "passed": None}


@pytest.mark.parametrize("report", [{}, {"tasks": {}, "giant": None, "ablations": None}])
def test_nothing_measured_makes_no_tables(report):
    assert tables(report) == {} and bars(report) == {}


def test_what_is_missing_in_a_row_is_left_empty():
    report = {"tasks": {"multi2d-large": {"rows": [{"method": OURS}]}, "maze2d-large": {}}}
    assert main_rows(report)[1:] == [["multi2d-large", OURS, "", "", "", "", ""]]
    assert [row[0] for row in readme_rows(report)[1:]] == ["maze2d-large", "multi2d-large"]
    assert set(tables(report)) == {"main", "readme"} and bars(report) == {}
