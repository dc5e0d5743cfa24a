"""Stepping: rates are what was stepped, and what the benchmark writes."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from diffplan.benchmarks import stepping as module
from diffplan.benchmarks import suite
from diffplan.benchmarks.stepping import _rate, _row, stepping, stepping_figure, stepping_rows
from diffplan.benchmarks.suite import run_benchmark
from diffplan.envs import workers

TINY = {"maze2d-umaze": (1, 3), "halfcheetah-medium": (2,)}


class Clocked:
    """Two environments that take a second for a step; the first ends after three."""

    def __init__(self) -> None:
        self.now, self.steps, self.taken = 0.0, 0, []

    def step(self, actions):
        self.now, self.steps = self.now + 1, self.steps + 1
        self.taken.append(actions)
        return None, None, np.array([self.steps >= 3, False])


def test_only_environments_that_go_on_are_counted(monkeypatch):
    clocked = Clocked()
    monkeypatch.setattr(module.time, "perf_counter", lambda: clocked.now)
    actions = np.arange(4).reshape(2, 2, 1)
    assert _rate(clocked, actions, 5.0) == (3 * 2 + 2 * 1) / 5
    assert [int(a[0, 0]) for a in clocked.taken] == [0, 2, 0, 2, 0]


@pytest.mark.parametrize(("count", "efficiency"), [(1, 1.5), (2, 0.75), (8, 0.375)])
def test_efficiency_is_of_as_many_cores_as_can_be_used(monkeypatch, count, efficiency):
    monkeypatch.setattr(module, "cores", lambda: 4)
    row = _row("maze2d", count, {"serial": [100, 200, 300], "spread": [150, 300, 450]})
    assert row["times_faster"] == 1.5 and row["efficiency"] == efficiency
    assert (row["serial_steps_per_second"], row["spread_steps_per_second"]) == (200, 300)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stepping")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "stepping", functools.partial(stepping, TINY, turns=1, seconds=0.05))
        lines = list(run_benchmark("stepping", output=folder))
    workers._links.cache_clear()
    assert any("stepping.png" in line for line in lines)
    return folder, json.loads((folder / "stepping.json").read_text())


def test_every_task_is_measured_at_every_count(written):
    folder, report = written
    assert [(row["task"], row["environments"]) for row in report["rows"]] == [
        (name, count) for name, counts in TINY.items() for count in counts
    ]
    assert all(row["serial_steps_per_second"] > 100 for row in report["rows"])
    assert report["cores"] >= 1 and report["versions"] and (folder / "stepping.png").stat().st_size > 1000


def test_the_table_and_the_picture_show_them(written):
    folder, report = written
    header, *rows = stepping_rows(report)
    assert len(rows) == 3 and all(len(row) == len(header) for row in rows)
    assert "halfcheetah-medium" in (folder / "stepping.md").read_text()
    assert [axes.get_title(loc="left") for axes in stepping_figure(report).axes] == list(TINY)
