"""Guides at work in a planner: what they see, what each kind of guidance does, and plans whose end is free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from diffplan.planner.guides import Guide, avoid, effort, goal, learned_return, length, smooth, speed, via
from diffplan.planner.options import Guidance, Sampling
from diffplan.planner.pipeline import SPEED_RESERVE, TrajectoryPlanner
from diffplan.planner.plan import SLOWEST, Plan
from diffplan.planner.sampling import CleanPredictor
from diffplan.planner.selection import GUIDE_SHARE
from diffplan.planner.steering import FAR, REMEMBERED, Wish
from diffplan.planner.windows import arrival

START, GOAL = [0.1, -0.2, 0.3, 0.0], [0.7, 0.9]
EAST = Guide.of(lambda spec, path: -path[:, 3, 2], "east")
EVERY = get_args(Guidance)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ask(planner: TrajectoryPlanner, **options) -> Plan:
    options = {"candidates": 7, "temperature": 1.0} | options
    return planner.plan(planner.problem(START, GOAL), generator=seeded(5), **options)


DEVIATION = 0.3  # of the data that the next planner knows, in normalised units


@pytest.fixture
def gaussian(make_planner, exact_denoiser) -> Callable[..., TrajectoryPlanner]:
    """A planner that knows its data perfectly: every entry is N(0, DEVIATION^2), normalised, each by itself."""

    def make(**options) -> TrajectoryPlanner:
        planner = make_planner(clip=None, **options)
        levels = planner.scheduler.alphas_cumprod
        planner.predict = CleanPredictor(exact_denoiser(0.0, DEVIATION, levels), levels)
        return planner

    return make


def as_set(plan: Plan) -> np.ndarray:
    """The candidates in an order that does not depend on how they were ranked."""
    rows = plan.trajectories.reshape(len(plan.trajectories), -1)
    return rows[np.lexsort(rows.T)]


class TestWhatGuidesSee:
    @pytest.fixture
    def wish(self, planner):
        return Wish(EAST, planner.spec, planner.normalizer)

    @pytest.fixture
    def clean(self, spec, generator):
        return torch.randn(4, 6, spec.width, generator=generator)

    def test_environment_units_and_what_is_noisy(self, wish, clean, generator):
        noisy, t, pinned = torch.randn(clean.shape, generator=generator), torch.arange(4), clean > 0
        seen = wish.sight(clean, noisy, t, pinned)
        torch.testing.assert_close(wish.normalizer.normalize(seen.clean), clean)
        assert (seen.noisy, seen.timestep, seen.pinned) == (noisy, t, pinned)
        assert seen.spec == wish.spec

    @pytest.mark.parametrize("tempo", [0.5, 2.0, 3.0])
    def test_velocities_and_durations_as_executed(self, wish, clean, tempo):
        plain, fast = wish.sight(clean), replace(wish, tempo=tempo).sight(clean)
        spec, moving = wish.spec, torch.zeros(wish.spec.width, dtype=torch.bool)
        moving[spec.velocity_columns] = True
        torch.testing.assert_close(fast.clean[..., moving], tempo * plain.clean[..., moving])
        assert torch.equal(fast.clean[..., ~moving], plain.clean[..., ~moving])
        assert fast.spec == replace(spec, dt_seconds=spec.dt_seconds / tempo)

    def test_a_tempo_without_velocities_is_one_of_durations(self, wish, clean):
        bare = replace(wish, spec=replace(wish.spec, velocity=()))
        fast = replace(bare, tempo=2.0).sight(clean)
        assert torch.equal(fast.clean, bare.sight(clean).clean)
        assert fast.spec.token_seconds == wish.spec.token_seconds / 2

    def test_each_problem_sees_its_own_past(self, wish, clean, generator):
        past = [torch.randn(n, 4, generator=generator).numpy() for n in (3, 90)]
        seen = replace(wish, past=past).sight(clean).past
        for i, own in enumerate((past[0], past[0], past[1], past[1])):
            count = min(len(own), REMEMBERED)
            np.testing.assert_array_equal(seen[i, [0, count - 1]], own[[0, -1], :2])
            assert len(np.unique(seen[i, :count], axis=0)) == count  # each once
            assert np.isin(seen[i, :count], own[:, :2]).all()
            assert (seen[i, count:] == FAR).all()
        assert wish.sight(clean).past is None

    def test_a_first_observation_counts_once(self, wish, clean):
        """Standing at the start is no longer past than one token there: nothing of it is repeated."""
        here = np.array([[0.5, -0.5, 0.0, 0.0]])
        seen = replace(wish, past=[here, np.repeat(here, 3, axis=0)]).sight(clean).past
        assert (seen[:2, 0] == torch.tensor([0.5, -0.5])).all()
        assert (seen != FAR).all(-1).sum(1).tolist() == [1, 1, 3, 3]

    def test_a_past_that_is_far_changes_no_wish(self, planner, clean):
        """Padding is nowhere: a via is judged as without a past, and one that was passed long ago is done."""
        wish = Wish(via(1.0, 1.0), planner.spec, planner.normalizer)
        far, done = (np.array([[x, y, 0.0, 0.0]]) for x, y in ((900.0, 0.0), (1.0, 1.0)))
        free = wish.liking(clean)
        torch.testing.assert_close(replace(wish, past=[far]).liking(clean), free)
        assert (replace(wish, past=[done]).liking(clean) >= -1e-4).all()
        assert (free < -1e-2).any()

    @pytest.mark.parametrize("tempo", [0.5, 2.0])
    @pytest.mark.parametrize(
        ("guide", "same", "power"),
        [
            (lambda c: speed(0.4), lambda c: speed(0.4 / c), 2),
            (lambda c: length(), lambda c: length(), -1),
            (lambda c: smooth(), lambda c: smooth(), 4),
            (lambda c: effort(), lambda c: effort(), 0),
            (lambda c: goal(1, 1), lambda c: goal(1, 1), 0),
            (lambda c: via(1, 1), lambda c: via(1, 1), 0),
            (lambda c: avoid(0.4, 0.4, radius=1), lambda c: avoid(0.4, 0.4, radius=1), 0),
        ],
        ids=["speed", "length", "smooth", "effort", "goal", "via", "avoid"],
    )
    def test_what_a_tempo_means(self, planner, tempo, guide, same, power):
        """c times as fast: speeds grow by c, accelerations by c^2, durations shrink by c, and places stay."""
        plan = ask(planner)
        want = tempo**power * planner.score(same(tempo), plan)
        assert abs(want).max() > 1e-3
        np.testing.assert_allclose(planner.score(guide(tempo), plan, tempo=tempo), want, rtol=1e-3, atol=1e-5)


class TestScore:
    def test_it_is_the_guides_of_the_trajectories(self, planner):
        plan, guide = ask(planner), 2.0 * EAST + 3.0 * effort().during(0.0, 0.1)
        want = guide.score(planner.spec, torch.from_numpy(plan.trajectories))
        np.testing.assert_allclose(planner.score(guide, plan), want, rtol=1e-4, atol=1e-5)

    def test_functions_and_nothing_can_be_asked_too(self, planner):
        plan = ask(planner)
        np.testing.assert_allclose(
            planner.score(lambda spec, path: path[:, 2, 2], plan), -plan.trajectories[:, 2, 2], atol=1e-5
        )
        assert planner.score(0 * EAST, plan).tolist() == [0] * 7

    @pytest.mark.parametrize("guidance", EVERY)
    def test_beside_doubt_it_is_what_the_candidates_were_ranked_by(self, planner, guidance):
        plan = ask(planner, guide=0.1 * EAST, guidance=guidance)
        liked = 0 if guidance == "gradient" else GUIDE_SHARE * planner.score(0.1 * EAST, plan)
        np.testing.assert_allclose(plan.scores, liked - plan.implausibility, rtol=1e-4, atol=1e-4)
        assert (np.diff(plan.scores) <= 0).all()

    def test_returns_are_those_of_the_return_model(self, make_planner, make_returns):
        model = make_returns()
        model.center.fill_(4.0)
        model.scale.fill_(2.0)
        planner = make_planner(returns=model)
        plan = ask(planner)
        with torch.no_grad():
            clean = planner.normalizer.normalize(torch.from_numpy(plan.trajectories))
            pinned = planner.problem(START).mask  # as in training, the start is always known
            want, blind = (model.in_reward_units(model(clean, torch.tensor(0), p)) for p in (pinned, None))
        assert not torch.allclose(want, blind, rtol=1e-4)
        np.testing.assert_allclose(planner.score(2.0 * learned_return(model), plan), 2 * want, rtol=1e-5)


class TestEveryGuidance:
    @pytest.mark.parametrize("guidance", EVERY)
    @pytest.mark.parametrize("zero", [0 * EAST, 0.0 * (EAST + effort()), Guide(())])
    def test_a_weight_of_zero_is_no_guide_at_all(self, planner, guidance, zero):
        free, guided = ask(planner), ask(planner, guide=zero, guidance=guidance)
        np.testing.assert_array_equal(guided.trajectories, free.trajectories)
        np.testing.assert_array_equal(guided.scores, free.scores)
        assert guided.guides == ()

    @pytest.mark.parametrize("guidance", EVERY)
    def test_a_function_is_a_guide(self, planner, guidance):
        def east(spec, path):
            return -path[:, 3, 2]

        own, made = (ask(planner, guide=g, guidance=guidance) for g in (east, EAST))
        np.testing.assert_array_equal(own.trajectories, made.trajectories)
        assert own.guides == made.guides == ("east@1",)

    @pytest.mark.parametrize("guidance", ["both", "gradient", "particles"])
    def test_it_tilts_the_data_by_its_weight_times_the_variance(self, gaussian, guidance):
        """In environment units: x of token 3 is N(m, s^2) with s = DEVIATION * scale, and becomes N(m + w s^2, s^2)."""
        planner, weight = gaussian(), 3.0
        options = {"candidates": 1000, "steps": 8, "gradient_cap": 1e3, "select": "first", "smoothing": 0.0}
        free, guided = (ask(planner, guide=g, guidance=guidance, **options) for g in (None, weight * EAST))
        x = planner.spec.columns("x")[0]
        spread = DEVIATION * planner.normalizer.scale[x].item()
        drawn = free.trajectories[:, 3, x].std() if guidance == "particles" else spread  # few steps draw less than all
        tilt = guided.trajectories[:, 3, x].mean() - planner.normalizer.center[x].item()
        assert tilt == pytest.approx(weight * drawn**2, rel=0.12)
        others = guided.trajectories[:, [2, 4], x] - planner.normalizer.center[x].item()
        assert abs(others.mean()) < 0.1 * tilt

    def test_the_best_by_score_is_chosen(self, planner):
        free, guided = ask(planner), ask(planner, guide=100.0 * EAST, guidance="candidates")
        assert planner.score(EAST, guided)[0] == pytest.approx(planner.score(EAST, free).max(), abs=1e-6)

    @pytest.mark.parametrize("guidance", EVERY)
    @pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
    def test_pins_are_exact(self, planner, guidance, sampler):
        plan = ask(planner, guide=5.0 * EAST, guidance=guidance, sampler=sampler)
        conditions = planner.problem(START, GOAL)
        for path in plan.trajectories:
            np.testing.assert_array_equal(path[conditions.mask], conditions.values[conditions.mask])

    @pytest.mark.parametrize("guidance", EVERY)
    @pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
    def test_problems_of_a_batch_equal_each_alone(self, planner, guidance, sampler):
        problems = [planner.problem(*p) for p in ((START, GOAL), ([0, 0, 0, 0], [-1, 0]), (START, [-1, 0]))]
        options = {"guide": 2.0 * EAST, "guidance": guidance, "sampler": sampler}
        options |= {"temperature": 1.0, "candidates": 6}
        plans = planner.plan_many(problems, generators=[seeded(i) for i in range(3)], **options)
        for i, problem in enumerate(problems):
            alone = planner.plan(problem, generator=seeded(i), **options)
            np.testing.assert_allclose(as_set(plans[i]), as_set(alone), atol=2e-3)

    def test_choosing_leaves_the_set_as_it_is(self, planner):
        free, chosen = ask(planner), ask(planner, guide=100.0 * EAST, guidance="candidates")
        np.testing.assert_array_equal(as_set(chosen), as_set(free))
        assert not np.array_equal(chosen.trajectories, free.trajectories)
        assert (np.diff(planner.score(EAST, chosen)) <= 0).all()

    def test_both_is_the_gradients_set_in_the_guides_order(self, planner):
        both, bent = (ask(planner, guide=100.0 * EAST, guidance=g) for g in ("both", "gradient"))
        np.testing.assert_array_equal(as_set(both), as_set(bent))
        assert (np.diff(planner.score(EAST, both)) <= 0).all()
        assert (np.diff(bent.implausibility) >= 0).all()

    def test_a_cap_of_nothing_leaves_the_set_as_it_is(self, planner):
        free, held = ask(planner), ask(planner, guide=100.0 * EAST, guidance="gradient", gradient_cap=0.0)
        np.testing.assert_array_equal(held.trajectories, free.trajectories)

    @pytest.mark.parametrize("guidance", EVERY)
    def test_a_guide_that_never_gets_its_turn_only_chooses(self, planner, guidance):
        """Four steps are at 0, 1/4, 1/2 and 3/4 of the way."""
        late = (100.0 * EAST).during(0.8, 1.0)
        free, guided = ask(planner), ask(planner, guide=late, guidance=guidance)
        np.testing.assert_array_equal(as_set(guided), as_set(free))
        chosen = (np.diff(planner.score(EAST, guided)) <= 0).all()
        assert chosen == (guidance != "gradient")

    def test_particles_are_descendants_of_few(self, planner):
        """Under a strong wish one path begins them all, and only the last noises set them apart."""
        plan = ask(planner, guide=1e4 * EAST, guidance="particles", candidates=16)
        free = ask(planner, candidates=16)
        assert planner.score(EAST, plan).std() < 0.5 * planner.score(EAST, free).std()

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"guidance": "hope"}, "'hope'.*both, gradient, candidates, particles"),
            ({"guidance": "particles", "sampler": "dpm++"}, "noise between the steps"),
            ({"guidance": "particles", "eta": 0.0}, "noise between the steps"),
        ],
    )
    def test_refusals(self, planner, wrong, says):
        with pytest.raises(ValueError, match=says):
            ask(planner, guide=EAST, **wrong)

    def test_no_gradients_are_left_behind(self, planner):
        ask(planner, guide=EAST)
        assert torch.is_grad_enabled()
        assert all(p.grad is None for p in planner.denoiser.parameters())


class TestSpeedLimits:
    @pytest.mark.parametrize("tempo", [1.0, 2.0])
    @pytest.mark.parametrize("limit", [0.05, 0.25, 100.0])
    def test_a_plan_that_is_too_fast_all_the_same_is_followed_more_slowly(self, planner, tempo, limit):
        wish = speed(limit) + 0.5 * speed(limit + 1)
        plan = ask(planner, guide=wish, tempo=tempo)
        fastest = tempo * replace(plan, tempo=1.0).top_speed()  # as executed; at least 0.3, the start's
        assert plan.tempo == pytest.approx(max(SLOWEST, min(1.0, SPEED_RESERVE * limit / fastest)))
        assert (plan.tempo < 1) == (limit < 1)
        assert plan.tempo * fastest < limit or plan.tempo == SLOWEST

    def test_other_guides_and_none_leave_the_tempo(self, planner):
        for wish in (None, EAST, 0 * speed(0.1)):
            assert ask(planner, guide=wish).tempo == 1.0


class KnownReturn:
    """Exact for the Gaussian planner: the return is x of token 3, normalised, and this is what noise leaves of it."""

    def __init__(self, denoiser: Callable[..., torch.Tensor]) -> None:
        self.denoiser = denoiser

    def __call__(self, noisy, timestep, pinned):
        return self.denoiser(noisy, timestep)[:, 3, 2]

    def in_reward_units(self, output):
        return 10.0 * output


class TestLearnedReturns:
    @pytest.mark.parametrize("guidance", ["both", "gradient", "particles"])
    def test_what_reads_the_noise_itself_tilts_by_the_same_rule(self, gaussian, guidance):
        """A weight of w / 10 on ten times x is w on x: N(0, s^2) becomes N(w s^2, s^2)."""
        planner, weight = gaussian(), 8.0
        wish = weight / 10 * learned_return(KnownReturn(planner.predict.denoiser))
        options = {"candidates": 1000, "steps": 8, "gradient_cap": 1e3, "select": "first", "guidance": guidance}
        options["smoothing"] = 0.0
        free, guided = (
            planner.normalizer.normalize(torch.from_numpy(ask(planner, guide=g, **options).trajectories))[:, 3, 2]
            for g in (None, wish)
        )
        drawn = free.std().item() if guidance == "particles" else DEVIATION
        assert guided.mean().item() == pytest.approx(weight * drawn**2, rel=0.12)

    def test_choosing_takes_the_highest_as_the_model_sees_it(self, gaussian, make_returns):
        """With the mask of what is given, as it was trained."""
        planner = gaussian(returns=make_returns())
        wish = 1e4 * learned_return(planner.returns)
        plan = ask(planner, guide=wish, guidance="candidates", candidates=32)
        pinned = planner.problem(START, GOAL).mask
        with torch.no_grad():
            clean = planner.normalizer.normalize(torch.from_numpy(plan.trajectories))
            said = planner.returns(clean, torch.tensor(0), pinned)
        assert (said.diff() <= 1e-6).all()
        assert said[0] > said[-1] + 0.01
        assert plan.guides == ("return@10000",)


class TestFreeEnds:
    @pytest.fixture
    def problem(self, planner):
        return planner.problem(START)

    @pytest.mark.parametrize("candidates", [2, 3, 7, 12])
    def test_durations_are_spread_evenly_and_starts_are_exact(self, planner, problem, candidates):
        plan = planner.plan(problem, generator=seeded(1), candidates=candidates)
        want = np.linspace(1, planner.horizon - 1, candidates).round()
        assert sorted(plan.arrivals) == want.tolist()
        np.testing.assert_array_equal(
            plan.observations[:, 0], np.tile(np.asarray(START, dtype=np.float32), (candidates, 1))
        )
        reached = np.arange(planner.horizon) >= plan.arrivals[:, None]
        np.testing.assert_array_equal(plan.trajectories[..., planner.spec.arrived], np.where(reached, 1.0, -1.0))

    def test_a_single_candidate_takes_the_whole_horizon(self, planner, problem):
        plan = planner.plan(problem, generator=seeded(1), candidates=1)
        assert plan.arrivals.tolist() == [planner.horizon - 1]

    def test_without_it_durations_are_the_models_own(self, planner, problem):
        plan = planner.plan(problem, generator=seeded(1), candidates=9, spread=False)
        flags = plan.trajectories[..., planner.spec.arrived]
        assert (abs(flags) < 1).any()
        np.testing.assert_array_equal(plan.arrivals, arrival(planner.spec, torch.from_numpy(plan.trajectories)))

    def test_a_pinned_end_is_left_to_the_model(self, planner):
        a, b = ask(planner), ask(planner, spread=False)
        np.testing.assert_array_equal(a.trajectories, b.trajectories)

    def test_free_and_pinned_ends_share_a_batch(self, planner, problem):
        problems = [planner.problem(START, GOAL), problem]
        plans = planner.plan_many(problems, generators=[seeded(1), seeded(2)], candidates=5)
        for i, plan in enumerate(plans):
            alone = planner.plan(problems[i], generator=seeded(i + 1), candidates=5)
            np.testing.assert_allclose(as_set(plan), as_set(alone), atol=1e-4)
        assert sorted(plans[1].arrivals) == [1, 2, 4, 6, 7]

    def test_the_plan_before_keeps_its_own_duration(self, planner, problem):
        before = planner.plan(problem, generator=seeded(1), candidates=3)
        best = int(before.arrivals[0])
        after = planner.plan(problem, generator=seeded(2), candidates=3, previous=(before, 0))
        assert sorted(after.arrivals) == sorted([1, 4, 7, best])

    def test_a_task_without_positions_has_no_arrival_to_spread(self, planner, spec):
        bare = replace(spec, position=(), velocity=())
        other = TrajectoryPlanner(
            planner.denoiser, planner.normalizer, planner.scheduler, spec=bare.to_config(), horizon=planner.horizon
        )
        options = {"steps": 4, "candidates": 5}
        a, b = (other.plan(other.problem(START), generator=seeded(1), spread=s, **options) for s in (True, False))
        np.testing.assert_array_equal(a.trajectories, b.trajectories)

    def test_guides_pull_where_nothing_is_pinned(self, gaussian, problem):
        planner, wish = gaussian(), goal(3.0, 3.0)
        free, pulled = (
            planner.plan(problem, generator=seeded(1), candidates=50, guide=g, gradient_cap=1e3)
            for g in (None, 2.0 * wish)
        )
        assert sorted(pulled.arrivals) == sorted(free.arrivals)
        before, after = planner.score(wish, free), planner.score(wish, pulled)
        assert after.mean() > before.mean() + before.std()


@pytest.mark.parametrize(
    "wrong",
    [
        {"guidance": "hope"},
        {"warm_steps": 0},
        {"candidates": 0},
        {"legs": 0},
        {"legs": 17},
        {"smoothing": -1.0},
        {"smoothing": float("inf")},
        {"smoothing": float("nan")},
    ],
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
