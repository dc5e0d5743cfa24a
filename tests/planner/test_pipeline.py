from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from diffplan.planner.conditions import Conditions, pass_through
from diffplan.planner.guides import Guide
from diffplan.planner.options import Sampling
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.plant import Plant
from diffplan.planner.racing import courses
from diffplan.planner.schedulers import Sampler
from diffplan.planner.selection import Selection
from diffplan.planner.windows import arrival

EAST = Guide.of(lambda spec, path: -path[:, 3, 2], "east")
START, GOAL = [0.1, -0.2, 0.3, 0.0], [0.7, 0.9]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ask(planner: TrajectoryPlanner, **options) -> Plan:
    return planner.plan(planner.problem(START, GOAL), generator=seeded(5), **options)


@pytest.fixture(scope="module")
def plant(make_plant) -> Plant:
    """Of the point mass, where it may go anywhere near."""
    made = make_plant(dt=0.1, size=20.0, voxel=0.2)
    made.origin[:] -= 10
    return made


@pytest.fixture(scope="module")
def folder(make_planner, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("planner")
    make_planner().save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


class TestPlanning:
    @pytest.mark.parametrize("sampler", get_args(Sampler))
    def test_pins_are_exact(self, planner, sampler):
        way = pass_through(planner.spec, planner.horizon, 3, [5.0, 6.0])
        conditions = planner.problem(START, GOAL) | way
        plan = planner.plan(conditions, generator=seeded(1), sampler=sampler, temperature=1.0)
        mask, values = conditions.mask.numpy(), conditions.values.numpy()
        for path in plan.trajectories:
            np.testing.assert_array_equal(path[mask], values[mask])

    def test_a_seed_is_a_plan(self, planner):
        a, b = ask(planner), ask(planner)
        np.testing.assert_array_equal(a.trajectories, b.trajectories)
        other = planner.plan(planner.problem(START, GOAL), generator=seeded(6))
        assert not np.array_equal(a.trajectories, other.trajectories)

    @pytest.mark.parametrize("select", [s for s in get_args(Selection) if s != "fastest"])  # that needs a plant
    def test_candidates_are_sorted_and_consistent_with_their_numbers(self, make_planner, plant, select):
        planner = make_planner(plant=plant)
        plan = ask(planner, candidates=7, select=select)
        assert plan.trajectories.shape == (7, planner.horizon, planner.spec.width)
        assert (np.diff(plan.scores) <= 0).all()
        arrivals = arrival(planner.spec, torch.from_numpy(plan.trajectories))
        np.testing.assert_array_equal(plan.arrivals, arrivals)

    def test_a_guide_is_recorded_and_sorts(self, planner):
        plan = ask(planner, candidates=7, guide=1e4 * EAST, select="earliest")
        assert plan.guides == ("east@10000",)
        assert (np.diff(plan.observations[:, 3, 0]) <= 0).all()

    @pytest.mark.parametrize("sampler", get_args(Sampler))
    @pytest.mark.parametrize(("guide", "close"), [(None, 5e-5), (EAST, 1e-3)])
    def test_problems_of_a_batch_equal_each_alone(self, planner, sampler, guide, close):
        """A guide's first gradient is weighed by sigma^2 / alpha, where rounding grows."""
        problems = [planner.problem(*p) for p in ((START, GOAL), ([0, 0, 0, 0],), (START, [-1, 0]))]
        options = {"sampler": sampler, "temperature": 1.0, "guide": guide, "select": "first"}
        plans = planner.plan_many(problems, generators=[seeded(i) for i in range(3)], **options)
        for i, problem in enumerate(problems):
            alone = planner.plan(problem, generator=seeded(i), **options)
            np.testing.assert_allclose(plans[i].trajectories, alone.trajectories, atol=close)

    def test_a_feasibility_check_puts_the_refused_last(self, planner):
        free = ask(planner, candidates=5)
        held = ask(planner, candidates=5, feasible=lambda plan: np.array([False, True, False, True, True]))
        np.testing.assert_array_equal(held.trajectories, free.trajectories[[1, 3, 4, 0, 2]])

    def test_warm_starts_keep_the_pins_and_follow_the_plan_before(self, planner):
        before = ask(planner)
        problem = planner.problem([9, 9, 0, 0])
        warm = planner.plan(problem, generator=seeded(5), previous=(before, 2), warm_steps=1)
        cold = planner.plan(problem, generator=seeded(5))
        assert (warm.observations[:, 0] == [9, 9, 0, 0]).all()
        assert not np.array_equal(warm.trajectories, cold.trajectories)

    def test_a_route_visits_its_stops_in_order(self, planner):
        stops = [[0.5, 0.5], [1.0, 0.0], GOAL]
        plan = planner.route(START, stops, generator=seeded(0))
        path = plan.positions[0]
        np.testing.assert_array_equal(plan.observations[0, 0], np.float32(START))
        np.testing.assert_array_equal(path[-1], np.float32(GOAL))
        assert (np.diff(np.flatnonzero(np.isin(path[:, 0], np.float32([s[0] for s in stops])))) > 0).all()


class TestFilm:
    def test_it_ends_with_the_plan(self, planner):
        conditions = planner.problem(START, GOAL)
        frames = list(planner.film(conditions, generator=seeded(5), select="first"))
        plan = planner.plan(conditions, generator=seeded(5), select="first")
        assert len(frames) == planner.sampling.steps + 1
        np.testing.assert_allclose(frames[-1].numpy(), plan.trajectories, atol=1e-5)

    def test_watching_leaves_gradients_on(self, planner):
        """A film is paused between frames; what its watcher computes there is the watcher's business."""
        film = planner.film(planner.problem(START, GOAL))
        try:
            assert [torch.is_grad_enabled() for _ in film] == [True] * (planner.sampling.steps + 1)
        finally:
            film.close()
            torch.set_grad_enabled(True)

    def test_a_guide_bends_the_film_as_it_bends_the_plan(self, planner):
        conditions, options = planner.problem(START, GOAL), {"select": "first", "guide": EAST}
        *_, last = planner.film(conditions, generator=seeded(5), **options)
        plan = planner.plan(conditions, generator=seeded(5), **options)
        free = planner.plan(conditions, generator=seeded(5), select="first")
        np.testing.assert_allclose(last.numpy(), plan.trajectories, atol=1e-5)
        assert abs(plan.trajectories - free.trajectories).max() > 1e-3

    def test_free_ends_are_filmed_with_their_durations(self, planner):
        frames = list(planner.film(planner.problem(START), candidates=3))
        for frame in frames:
            reached = (frame[..., planner.spec.arrived] > 0).float().argmax(1)
            assert reached.tolist() == [1, 4, 7]


class TestRefusals:
    def test_conditions_of_another_shape(self, planner):
        narrow = torch.zeros(planner.horizon, 3)
        for wrong in (Conditions.free(planner.spec, planner.horizon + 1), Conditions(narrow.bool(), narrow)):
            with pytest.raises(ValueError, match="do not fit"):
                planner.plan(wrong)

    def test_another_number_of_generators(self, planner):
        problems = [planner.problem(START, GOAL)] * 2
        for count in (1, 3):
            with pytest.raises(ValueError):
                planner.plan_many(problems, generators=[seeded(i) for i in range(count)])

    @pytest.mark.parametrize(
        "wrong",
        [
            {"candidates": 0},
            {"candidates": 1025},
            {"steps": 0},
            {"steps": 9},
            {"steps": 3},
            {"sampler": "euler"},
            {"select": "best"},
            {"sampler": "ddpm", "temperature": 0.5},
        ],
    )
    def test_options_out_of_range(self, planner, wrong):
        with pytest.raises(ValueError):
            ask(planner, **wrong)

    def test_unknown_options_are_named(self, planner):
        with pytest.raises(TypeError, match=r"'candidate'.*candidates"):
            ask(planner, candidate=3)

    def test_wrong_starts_and_goals(self, planner):
        for start, goal in ((START[:3], GOAL), (START, [1.0]), ([float("nan"), 0, 0, 0], GOAL)):
            with pytest.raises(ValueError):
                planner.problem(start, goal)

    def test_no_spec_and_unknown_prediction(self, planner, make_planner):
        parts = planner.denoiser, planner.normalizer, planner.scheduler
        with pytest.raises(ValueError, match="spec"):
            TrajectoryPlanner(*parts)
        with pytest.raises(ValueError, match="'score'"):
            make_planner(prediction="score")

    def test_none_keeps_the_default(self):
        assert Sampling(steps=5).changed({"steps": None, "candidates": 2}) == Sampling(steps=5, candidates=2)

    def test_a_race_needs_fewer(self):
        own = Sampling(candidates=8, steps=4, select="fastest", raced_candidates=1, raced_steps=2)
        assert own.racing() == {"candidates": 1, "steps": 2}
        assert own.changed({"raced_steps": None, "select": "plausible"}).racing() == {}
        assert Sampling(select="fastest", raced_steps=3).racing() == {"steps": 3}
        with pytest.raises(ValueError, match="raced_candidates=0"):
            Sampling(raced_candidates=0)


class TestSaving:
    def test_config_and_weights_survive(self, planner, folder):
        loaded = TrajectoryPlanner.from_pretrained(folder)
        assert loaded.spec == planner.spec
        assert loaded.sampling == planner.sampling
        for name in ("horizon", "task", "prediction", "clip", "consistency_bound"):
            assert loaded.config[name] == planner.config[name]
        for part in ("denoiser", "normalizer"):
            want, got = getattr(planner, part).state_dict(), getattr(loaded, part).state_dict()
            assert want.keys() == got.keys()
            assert all(torch.equal(want[k], got[k]) for k in want)

    def test_a_return_model_goes_along_where_there_is_one(self, make_planner, make_returns, tmp_path):
        saved = make_planner(returns=make_returns())
        saved.returns.center.fill_(12.0)
        saved.save_pretrained(tmp_path)
        loaded = TrajectoryPlanner.from_pretrained(tmp_path)
        want, got = saved.returns.state_dict(), loaded.returns.state_dict()
        assert want.keys() == got.keys()
        assert all(torch.equal(want[k], got[k]) for k in want)
        assert dict(loaded.returns.config)["discount"] == dict(saved.returns.config)["discount"]
        assert not any(part.training for part in (loaded.returns, loaded.denoiser, saved.returns))
        size = (tmp_path / "returns" / WEIGHTS).stat().st_size
        (tmp_path / "returns" / WEIGHTS).write_bytes(bytes(size))
        assert all(torch.equal(want[k], v) for k, v in loaded.returns.state_dict().items())

    def test_a_plant_goes_along_where_there_is_one(self, make_planner, plant, tmp_path):
        saved = make_planner(plant=plant)
        saved.save_pretrained(tmp_path)
        loaded = TrajectoryPlanner.from_pretrained(tmp_path)
        want, got = plant.state_dict(), loaded.plant.state_dict()
        assert want.keys() == got.keys()
        assert all(torch.equal(want[k], got[k]) for k in want)
        np.testing.assert_array_equal(plant.limits, loaded.plant.limits)
        plans = [ask(p, select="fastest") for p in (saved, loaded)]
        np.testing.assert_array_equal(plans[0].trajectories, plans[1].trajectories)
        size = (tmp_path / "plant" / WEIGHTS).stat().st_size
        (tmp_path / "plant" / WEIGHTS).write_bytes(bytes(size))
        assert all(torch.equal(want[k], v) for k, v in loaded.plant.state_dict().items())

    def test_without_one_there_is_none(self, planner, folder):
        loaded = TrajectoryPlanner.from_pretrained(folder)
        for part in ("returns", "plant"):
            assert getattr(planner, part) is None
            assert not (folder / part).exists()
            assert getattr(loaded, part) is None

    @pytest.mark.parametrize("part", ["returns", "plant"])
    def test_planners_that_were_saved_before_there_were_any_can_be_loaded(self, planner, copy, part):
        index = json.loads((copy / "model_index.json").read_text())
        del index[part]
        (copy / "model_index.json").write_text(json.dumps(index))
        loaded = TrajectoryPlanner.from_pretrained(copy)
        assert getattr(loaded, part) is None
        np.testing.assert_array_equal(ask(loaded).trajectories, ask(planner).trajectories)

    def test_it_changes_no_plan_by_being_there(self, planner, make_planner, make_returns):
        for guide in (None, EAST):
            plain, knowing = (ask(p, guide=guide) for p in (planner, make_planner(returns=make_returns())))
            np.testing.assert_array_equal(knowing.trajectories, plain.trajectories)

    def test_the_same_plan_here_and_in_a_fresh_process(self, planner, folder, tmp_path):
        script = (
            "import sys, numpy, torch; from diffplan.planner.pipeline import TrajectoryPlanner as T;"
            f"torch.set_num_threads(1); p = T.from_pretrained({str(folder)!r});"
            f"plan = p.plan(p.problem({START}, {GOAL}), generator=torch.Generator().manual_seed(5));"
            "numpy.save(sys.argv[1], plan.trajectories)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "plan.npy")],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        fresh = np.load(tmp_path / "plan.npy")
        np.testing.assert_array_equal(fresh, ask(TrajectoryPlanner.from_pretrained(folder)).trajectories)
        np.testing.assert_array_equal(fresh, ask(planner).trajectories)

    def test_half_precision_comes_back_as_float32(self, planner, make_planner, tmp_path):
        make_planner().to(torch.float16).save_pretrained(tmp_path)
        loaded = TrajectoryPlanner.from_pretrained(tmp_path)
        for name, weight in loaded.denoiser.named_parameters():
            assert weight.dtype == torch.float32
            torch.testing.assert_close(weight, planner.denoiser.get_parameter(name), atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(
            ask(loaded, select="first").trajectories, ask(planner, select="first").trajectories, atol=0.05
        )

    def test_a_loaded_planner_outlives_its_files(self, planner, copy):
        """Weights must not stay mapped to a file that a training run may overwrite."""
        loaded = TrajectoryPlanner.from_pretrained(copy)
        size = (copy / "denoiser" / WEIGHTS).stat().st_size
        with open(copy / "denoiser" / WEIGHTS, "r+b") as file:
            file.write(bytes(size))
        for name, weight in loaded.denoiser.state_dict().items():
            assert torch.equal(weight, planner.denoiser.state_dict()[name])


class TestIncumbent:
    """The plan that is being followed competes with the new candidates."""

    def test_what_is_left_of_it_is_one_more_candidate(self, planner, generator):
        problem = planner.problem([0.0, 0.0, 0.0, 0.0], [1.0, 1.0])
        before = planner.plan(problem, generator=generator)
        after = planner.plan(problem, generator=generator, previous=(before, 0))
        assert len(after.trajectories) == planner.sampling.candidates + 1
        gaps = abs(after.trajectories - before.trajectories[0]).max(axis=(1, 2))
        assert np.sort(gaps)[0] < 1e-4 < np.sort(gaps)[1]

    def test_it_can_be_left_out(self, planner, generator):
        problem = planner.problem([0.0, 0.0, 0.0, 0.0], [1.0, 1.0])
        before = planner.plan(problem, generator=generator)
        after = planner.plan(problem, generator=generator, previous=(before, 2), incumbent=False)
        assert len(after.trajectories) == planner.sampling.candidates


class TestTheFastest:
    """Candidates in the order in which their courses arrive."""

    @pytest.fixture(scope="class")
    def knowing(self, make_planner, plant) -> TrajectoryPlanner:
        return make_planner(plant=plant)

    def test_it_needs_a_plant(self, planner):
        with pytest.raises(ValueError, match="'fastest' needs a plant.*another way, such as plausible"):
            ask(planner, select="fastest")

    @pytest.mark.parametrize("legs", [1, 2])
    def test_scores_are_the_seconds_of_each_candidates_course(self, knowing, plant, legs):
        plan = ask(knowing, select="fastest", candidates=5, legs=legs)
        made = courses(plant, [plan.candidate(k) for k in range(len(plan.trajectories))])
        np.testing.assert_allclose(plan.scores, [-c.seconds for c in made], rtol=1e-6)
        assert (np.diff(plan.scores) <= 0).all()

    def test_they_are_the_same_candidates(self, knowing):
        fastest, first = (ask(knowing, select=s, candidates=5) for s in ("fastest", "first"))
        assert sorted(t.tobytes() for t in fastest.trajectories) == sorted(t.tobytes() for t in first.trajectories)

    @pytest.mark.parametrize("has_plant", [True, False])
    def test_with_a_guide_the_denoiser_judges(self, planner, knowing, has_plant):
        asked = knowing if has_plant else planner
        fastest, plausible = (ask(asked, guide=EAST, select=s) for s in ("fastest", "plausible"))
        np.testing.assert_array_equal(fastest.trajectories, plausible.trajectories)
        np.testing.assert_array_equal(fastest.scores, plausible.scores)

    def test_a_guide_that_weighs_nothing_is_none(self, knowing):
        free, weightless = (ask(knowing, guide=g, select="fastest") for g in (None, 0 * EAST))
        np.testing.assert_array_equal(free.trajectories, weightless.trajectories)

    def test_a_feasibility_check_has_the_last_word(self, knowing):
        free = ask(knowing, candidates=5, select="fastest")
        refused = np.array([False, True, False, True, True])
        held = ask(knowing, candidates=5, select="fastest", feasible=lambda plan: refused)
        np.testing.assert_array_equal(held.trajectories, free.trajectories[[1, 3, 4, 0, 2]])

    def test_the_plan_before_competes(self, knowing):
        before = ask(knowing, select="fastest")
        after = ask(knowing, select="fastest", previous=(before, 2))
        assert len(after.trajectories) == knowing.sampling.candidates + 1
        assert (np.diff(after.scores) <= 0).all()
