"""Growth: slopes of known laws, data that is what it says, memory that is really taken; what the benchmark writes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np
import pytest

from diffplan.benchmarks import growth as module
from diffplan.benchmarks import suite
from diffplan.benchmarks.growth import data, growth, in_turns, slopes
from diffplan.benchmarks.growth_report import PANELS, growth_figure, growth_rows
from diffplan.benchmarks.memory import Peak, memory_mib
from diffplan.benchmarks.suite import run_benchmark
from diffplan.benchmarks.synthetic import DT, HALF_SIDE, LENGTH, PUSH, points_in_a_box, store_points
from diffplan.envs.datasets import describe, load_episodes
from diffplan.envs.tasks import find_task
from diffplan.planner.plant import Plant

TINY = {"horizon": (32, 40), "candidates": (1, 2, 3), "environments": (1, 2), "data": (400, 1000)}


class TestSlopes:
    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
    def test_of_a_power_it_is_the_power(self, power):
        rows = [{"size": n, "median": 3 * n**power} for n in (1, 4, 16, 64, 256)]
        assert slopes(rows) == {"slope": pytest.approx(power), "slope_of_larger_half": pytest.approx(power)}

    def test_the_larger_half_forgets_what_small_sizes_cost(self):
        rows = [{"size": n, "median": 50 + n} for n in (1, 4, 16, 64, 256, 1024)]
        found = slopes(rows)
        assert found["slope"] < 0.5 and 0.7 < found["slope_of_larger_half"] < 1

    def test_two_sizes_will_do(self):
        assert slopes([{"size": 1, "median": 1.0}, {"size": 10, "median": 10.0}])["slope_of_larger_half"] == 1


def test_sizes_take_turns_and_the_first_turn_is_not_counted():
    done: list[int] = []
    rows = in_turns(done.append, (5, 7), 2, of=10)
    assert done == [5, 7] * 3
    assert [row["size"] for row in rows] == [5, 7] and all(len(row["all"]) == 2 for row in rows)


class TestSyntheticData:
    @pytest.mark.parametrize("steps", [1, 200, 201, 250_000])
    def test_it_is_as_much_as_was_asked_for(self, steps):
        count = sum(len(row.actions) for row in points_in_a_box(steps))
        assert steps <= count < steps + LENGTH

    def test_points_move_as_double_integrators_and_stay_inside(self):
        free = 0
        for row in points_in_a_box(20_000, seed=3):
            place, velocity = row.observations[:, :2], row.observations[:, 2:]
            assert np.abs(place).max() <= HALF_SIDE
            pushed = velocity[:-1] + PUSH * row.actions
            bounced = (velocity[1:] != pushed).any(axis=1)
            np.testing.assert_allclose(np.abs(velocity[1:]), np.abs(pushed))
            np.testing.assert_allclose(place[1:][~bounced], (place[:-1] + DT * velocity[1:])[~bounced])
            free += (~bounced).sum()
        assert free > 10_000

    def test_a_planner_can_be_trained_on_it(self, tmp_path, monkeypatch):
        store_points(tmp_path, "growth/points-v0", 20_000)
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        task = find_task("multi2d-umaze")
        episodes = load_episodes("growth/points-v0", task)
        assert episodes.steps == describe("growth/points-v0").steps == 20_000
        plant = Plant.of(episodes, task.spec)
        assert plant is not None
        np.testing.assert_allclose(plant.push, PUSH, rtol=1e-3)


class TestMemory:
    def test_it_is_what_was_taken(self):
        """In a process of its own: what earlier tests have left is given back at its own time."""
        code = "import numpy as np; from diffplan.benchmarks.memory import Peak, memory_mib; before = memory_mib()\n"
        code += "with Peak() as peak: taken = np.ones(200 << 17)\n"
        code += "print(peak.mib['anonymous'] - before['anonymous'])"
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        assert 170 < float(said) < 230  # 200 MiB

    def test_mapped_files_are_not_its_own(self, tmp_path):
        np.save(tmp_path / "a.npy", np.ones(50 << 17))
        mapped, before = np.load(tmp_path / "a.npy", mmap_mode="r"), memory_mib()
        with Peak() as peak:
            assert mapped.sum() == 50 << 17
        assert peak.mib["total"] - before["total"] > 45
        assert peak.mib["anonymous"] - before["anonymous"] < 15

    def test_elsewhere_than_on_linux_it_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("diffplan.benchmarks.memory.STATUS", tmp_path / "status")
        with pytest.raises(ValueError, match="Linux alone"):
            memory_mib()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and report of the whole benchmark, small."""
    folder = tmp_path_factory.mktemp("growth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "growth", functools.partial(growth, TINY, turns=1))
        patch.setattr(module, "data", functools.partial(data, updates=2))
        lines = list(run_benchmark("growth", output=folder))
    assert any("growth.png" in line for line in lines)
    return folder, json.loads((folder / "growth.json").read_text())


def test_everything_is_measured_at_every_size(written):
    folder, report = written
    assert {g["of"] for g in report["growths"]} == set(PANELS) == set(TINY)
    for one in report["growths"]:
        assert tuple(row["size"] for row in one["rows"]) == TINY[one["of"]]
        assert all(row["median"] > 0 for row in one["rows"])
    assert report["cpu_threads"] >= 1 and report["cores"] >= 1 and report["versions"]
    assert (folder / "growth.png").stat().st_size > 1000


def test_the_table_has_a_row_for_each(written):
    folder, report = written
    header, *rows = growth_rows(report)
    assert len(rows) == len(report["growths"]) and all(len(row) == len(header) for row in rows)
    assert "MiB, anonymous" in (folder / "growth.md").read_text()


def test_the_picture_has_a_panel_for_each_and_what_linear_would_be(written):
    figure = growth_figure(written[1])
    assert [axes.get_xlabel() for axes in figure.axes] == list(PANELS.values())
    for axes in figure.axes:
        words = [text.get_text() for text in axes.get_legend().get_texts()]
        assert words.count("linear") == 1 and len(words) > 1 and axes.get_xscale() == axes.get_yscale() == "log"
