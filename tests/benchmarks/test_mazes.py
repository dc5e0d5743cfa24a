"""The mazes' benchmark: cells are measured once, runs go on where they were, and what a cell says is what happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.benchmarks import maze_cells as cells
from diffplan.benchmarks.bound import CLEARANCE
from diffplan.benchmarks.evaluate import Evaluation, episode_seeds, evaluate
from diffplan.benchmarks.mazes import ABLATIONS, QUICK, REFERENCES, Extent, MazeBenchmark, options_of
from diffplan.benchmarks.trained import training_record
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import SHIPPED, STATE, find_run, load_planner, read_record
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import find_task
from diffplan.envs.training import train_run
from diffplan.planner.training import TrainConfig

TINY = Extent(2, 2, {"default": 0.01, "quick": 0.01, "paper": 0.01}, {}, (), (), False)


def drain(stages) -> tuple[list[str], object]:
    """What a generator yields, and what it returns."""
    said = []
    while True:
        try:
            said.append(next(stages))
        except StopIteration as end:
            return said, end.value


@pytest.fixture
def make_bench(tmp_path) -> Callable[..., MazeBenchmark]:
    """In the same folder each time, as after a break."""

    def make(**changes: object) -> MazeBenchmark:
        return MazeBenchmark(tmp_path / "work", replace(TINY, **changes))

    return make


class TestCells:
    @pytest.fixture
    def meter(self) -> Callable[[], dict]:
        """Each measurement is another number."""
        numbers = iter(range(100))
        return lambda: {"score_strict": next(numbers), "faults": []}

    def test_it_is_measured_once_and_read_back_afterwards(self, make_bench, meter):
        bench = make_bench()
        said, first = drain(bench.cell("a, b", meter))
        assert said == ["a, b: score_strict 0"]
        assert first == {"score_strict": 0, "faults": []}
        for again in (bench, make_bench()):
            assert drain(again.cell("a, b", meter)) == ([], first)

    def test_cells_are_told_apart(self, make_bench, meter):
        bench = make_bench()
        names = ["a", "b", "a b", *(f"multi2d-large ablation {change}" for change in ABLATIONS)]
        for order in range(2):
            for number, name in enumerate(names):
                said, found = drain(bench.cell(name, meter))
                assert found["score_strict"] == number
                assert bool(said) == (order == 0)

    def test_other_numbers_of_episodes_are_measured_anew(self, make_bench, meter):
        drain(make_bench().cell("a", meter))
        said, found = drain(make_bench(episodes=3).cell("a", meter))
        assert said and found["score_strict"] == 1
        assert drain(make_bench(episodes=3).cell("a", meter)) == ([], found)

    def test_an_interrupted_measurement_leaves_no_cell_behind(self, make_bench, meter):
        def broken() -> dict:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            drain(make_bench().cell("a", broken))
        with pytest.raises(ValueError, match="not JSON compliant"):
            drain(make_bench().cell("a", lambda: {"score_strict": float("nan")}))
        assert not [p for p in make_bench().work.rglob("*") if p.is_file()]
        assert drain(make_bench().cell("a", meter))[1] == {"score_strict": 0, "faults": []}

    def test_what_is_done_with_the_numbers_afterwards_is_not_kept(self, make_bench, meter):
        _, found = drain(make_bench().cell("a", meter))
        found |= {"training_minutes": 9}
        assert drain(make_bench().cell("a", meter))[1] == {"score_strict": 0, "faults": []}


def test_the_paper_plans_once_and_tracks_at_its_own_pace():
    assert options_of("paper") == {"controller": "tracking", "tempo": 1.0, "replan_every": 10**6}
    assert options_of("default") == options_of("quick") == {}


class TestWilson:
    @pytest.mark.parametrize(
        ("successes", "count", "want"),
        [
            (0, 10, (0.0, 0.2775)),
            (10, 10, (0.7225, 1.0)),
            (5, 10, (0.2366, 0.7634)),
            (15, 148, (0.0624, 0.1605)),  # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29
            (81, 263, (0.2553, 0.3662)),
            (0, 20, (0.0, 0.1611)),
            (1, 29, (0.0061, 0.1718)),
        ],
    )
    def test_known_intervals(self, successes, count, want):
        np.testing.assert_allclose(cells.wilson(successes / count, count), want, atol=6e-5)

    def test_it_turns_around_with_the_question(self):
        for share in (0.0, 0.1, 0.5, 0.97):
            low, high = cells.wilson(share, 40)
            np.testing.assert_allclose(cells.wilson(1 - share, 40), (1 - high, 1 - low))
            assert low <= share <= high


@pytest.mark.usefixtures("data")
class TestTrained:
    def test_an_interrupted_run_goes_on_and_is_not_begun_anew(self, make_bench):
        """It was killed after five updates; its own bound says 12."""
        bench, task = make_bench(), find_task("maze2d-umaze")
        folder = bench.work / "umaze-default"
        stages = train_run(
            task,
            folder,
            TrainConfig(steps=12, batch_size=4),
            preset=find_preset("default", task),
            only="denoiser",
            checkpoint_seconds=0,
        )
        next(s for s in stages if s.update is not None and s.update.step == 5)
        stages.close()
        begun, before = read_record(folder), training_record(folder)
        assert 0 < before["updates"] <= 5
        (first, *_), made = drain(bench.trained("umaze", "default"))
        assert made == folder and first.startswith("training umaze-default")
        assert read_record(folder) == begun
        after = training_record(folder)
        assert after["updates"] == 12
        assert after["minutes"] >= before["minutes"]
        finished = (folder / STATE).stat().st_mtime_ns
        assert drain(make_bench().trained("umaze", "default")) == ([], folder)
        assert (folder / STATE).stat().st_mtime_ns == finished

    def test_the_papers_recipe_is_trained_as_in_the_paper(self, make_bench):
        bench = make_bench()
        said, folder = drain(bench.trained("umaze", "paper"))
        planner, _ = load_planner(folder)
        record = training_record(folder)
        assert said[0] == "training umaze-paper for 0.01 minutes"
        assert record["preset"]["name"] == "paper" and record["updates"] >= 1
        assert (planner.horizon, planner.spec.stride, planner.sampling.sampler) == (128, 1, "ddpm")
        assert (planner.sampling.steps, planner.sampling.candidates, planner.sampling.select) == (64, 1, "first")
        assert planner.plant is None and planner.returns is None
        assert drain(bench.trained("umaze", "paper"))[0] == []

    def test_a_run_that_was_killed_before_its_first_checkpoint_is_trained_all_the_same(self, make_bench):
        bench, task = make_bench(), find_task("maze2d-umaze")
        folder = bench.work / "umaze-quick"
        config = TrainConfig(steps=3, batch_size=4)
        list(train_run(task, folder, config, preset=find_preset("default", task), only="denoiser"))
        (folder / STATE).unlink()
        drain(bench.trained("umaze", "quick"))
        assert training_record(folder)["updates"] == 3


@pytest.fixture(scope="module", params=["shipped", "tiny"])
def run(request) -> tuple[str, bool]:
    """A run, and whether it has a plant: the shipped one may have none."""
    if request.param == "shipped":
        request.getfixturevalue("data")
        folder = str(SHIPPED)
    else:
        folder = str(request.getfixturevalue("run_folder"))
    return folder, load_planner(folder)[0].plant is not None


def ways(folder: str, name: str, seeds: list[int]):
    """What a planner does from these seeds, asked directly."""
    planner, task = load_planner(folder, task=name)
    *_, done = evaluate(planner, task, episodes=len(seeds), seeds=seeds, references=False, timed=0)
    assert isinstance(done, Evaluation)
    return done


class TestMeasuredCells:
    @pytest.fixture(autouse=True)
    def slow_plans_are_timed_once(self, monkeypatch):
        monkeypatch.setattr(cells, "LONGEST_TIMED", 10)

    def test_measured_is_the_protocol(self, run):
        got = cells.measured(run[0], "multi2d-umaze", 2, 1)
        done = ways(run[0], "multi2d-umaze", episode_seeds(1, 2))
        assert got["success_rate"] == np.mean([r.rewards.any() for r in done.rollouts])
        assert got["return_mean"] == pytest.approx(np.mean([r.rewards.sum() for r in done.rollouts]), abs=1e-3)
        assert got["episodes"] == 2 and got["plans"] == done.plans and got["faults"] == []
        assert got["success_ci95"] == pytest.approx(cells.wilson(got["success_rate"], 2), abs=1e-4)
        json.dumps(got, allow_nan=False)

    def test_quality(self, run):
        folder, plant = run
        got = cells.quality(folder, "multi2d-umaze", 3, 1)
        planner, task = load_planner(folder, task="multi2d-umaze")
        assert got["pairs"] == 3
        assert got["plans_touching_walls"] in [round(n / 3, 4) for n in range(4)]
        assert (got["courses_touching_walls"] is not None) == plant
        assert 0 < got["consistency_data"] < planner.config.consistency_bound
        assert got["consistency_plans"] > got["consistency_data"] or folder == str(SHIPPED)
        again = cells.quality(folder, "multi2d-umaze", 3, 1)
        assert again == got
        json.dumps(got, allow_nan=False)

    def test_cost(self, run):
        got = cells.cost(run[0], "maze2d-umaze", 1, timed=4)
        assert 1 <= got["plans_timed"] <= 4
        planner, _ = load_planner(run[0])
        assert got["parameters"] == sum(p.numel() for p in planner.denoiser.parameters())
        assert 0 < got["plan_ms_median"] <= got["plan_ms_p95"]
        assert got["steps_per_second"] > 1

    def test_gallery(self, run, monkeypatch):
        monkeypatch.setattr(cells, "GALLERY", 2)
        folder, plant = run
        made = cells.gallery(folder, "multi2d-umaze", 1)
        task = find_task("multi2d-umaze")
        assert len(made) == 2
        for pair in made:
            start, goal = np.array(pair["start"]), np.array(pair["goal"])
            for key in ("plan", "course", "driven", "fastest"):
                way = np.array(pair[key])
                assert way.ndim == 2 and way.shape[1] == 2
                np.testing.assert_allclose(way[0], start, atol=0.02)
            assert plant or pair["course"][::2][: len(pair["plan"]) - 1] == pair["plan"][:-1]
            there = np.linalg.norm(np.array(pair["driven"]) - goal, axis=1) <= 0.5
            assert not there[:-1].any()
            assert there[-1] or len(there) == task.episode_steps + 1  # what never arrives is shown whole
            assert float(task.maze.signed_clearance(torch.tensor(pair["fastest"])).min()) > CLEARANCE - 0.01
            assert np.linalg.norm(pair["fastest"][-1] - goal) <= 0.51
        assert len({task.maze.cell(p["start"]) for p in made}) == 2
        json.dumps(made, allow_nan=False)


def test_pairs_of_the_gallery_are_the_farthest_apart(monkeypatch):
    task, seeds = find_task("multi2d-umaze"), episode_seeds(1, 8)
    monkeypatch.setattr(cells, "GALLERY", 3)
    chosen = cells._far_apart(task, seeds)
    with Simulators(task, len(seeds)) as simulators:
        observations, goals = simulators.reset(seeds)
    pairs = [(task.maze.cell(o[:2]), task.maze.cell(g)) for o, g in zip(observations, goals, strict=True)]
    lengths = {s: len(task.maze.route(*p)) for s, p in zip(seeds, pairs, strict=True)}
    assert len(chosen) == 3 and set(chosen) <= set(seeds)
    assert lengths[chosen[0]] == max(lengths.values())
    assert [lengths[s] for s in chosen] == sorted((lengths[s] for s in chosen), reverse=True)


def test_a_plan_that_is_never_renewed_costs_no_more_than_its_episode(run_folder, monkeypatch):
    """A million steps between plans is a word for never: an episode of 300 steps asks for no more references."""
    from diffplan.planner import execution

    asked, real = [], execution._references
    monkeypatch.setattr(execution, "_references", lambda f, count, tempo: asked.append(count) or real(f, count, tempo))
    cells.cost(str(run_folder), "maze2d-umaze", 1, timed=1, **options_of("paper"))
    assert asked == [find_task("maze2d-umaze").episode_steps]


@pytest.mark.parametrize("method", REFERENCES)
def test_references(method):
    got = cells.reference("maze2d-umaze", method, 2, 1)
    assert got["episodes"] == 2
    assert (got["score_strict"] > 100) == (method != "random policy")
    assert ("steps_per_second" in got) == (method != cells.BOUND)


class TestFolders:
    def test_quick_and_full_are_kept_apart(self):
        quick, full = (MazeBenchmark.standard(quick=q) for q in (True, False))
        assert quick.work != full.work
        assert quick.extent == QUICK and quick.quick and not full.quick and quick.extent.episodes < full.extent.episodes

    @pytest.mark.parametrize("quick", [True, False])
    def test_another_number_of_episodes_changes_nothing_else(self, quick):
        usual, other = (MazeBenchmark.standard(quick=quick, episodes=n) for n in (None, 7))
        assert other.work == usual.work
        assert other.extent == replace(usual.extent, episodes=7)

    def test_a_snapshot_is_found_as_a_run_is(self, run_folder, tmp_path, copy_run):
        copy_run(run_folder / "planner", tmp_path / "snapshots" / "1.02")
        assert find_run(tmp_path / "snapshots" / "1.02") == tmp_path / "snapshots" / "1.02"


def test_only_the_mazes_have_a_quick_setting(tmp_path):
    from typer.testing import CliRunner

    from diffplan.cli.main import app

    words = ["bench", "guides", "--quick", "--output", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.stderr.strip() == "Error: benchmark 'guides' has no quick setting; only maze has"
    assert not list(tmp_path.iterdir())
