"""Particles: they take their conditions along, are resampled surely at the end, and keep what a wish has done."""

from __future__ import annotations

import pytest
import torch

from diffplan.planner.guides import Guide
from diffplan.planner.options import Sampling
from diffplan.planner.sampling import CleanPredictor, Score, Steering, Step, _resample, denoise
from diffplan.planner.schedulers import for_one_plan, make_scheduler
from diffplan.planner.steering import Wish

MEAN, DEVIATION, LEVELS, STEPS = 0.3, 0.5, 100, 20
MANY = (4000, 2, 2)


def linear(weight: float) -> Score:
    return lambda clean, noisy, t: weight * clean.flatten(1).sum(1)


def entry(token: int, column: int, weight: float) -> Score:
    return lambda clean, noisy, t: weight * clean[:, token, column]


def plus(*scores: Score) -> Score:
    return lambda clean, noisy, t: sum(s(clean, noisy, t) for s in scores)


def particles(at, carried=None) -> Steering:
    return Steering(at, gradient=False, particles=True, carried=carried)


@pytest.fixture
def film(exact_denoiser):
    def make(steering, shape=MANY, *, pinned=None, values=None, seeds=(0,), steps=STEPS, **options) -> list[Step]:
        scheduler = for_one_plan(make_scheduler("ddim", train_steps=LEVELS), "ddim", steps)
        predict = CleanPredictor(exact_denoiser(MEAN, DEVIATION, scheduler.alphas_cumprod), scheduler.alphas_cumprod)
        pinned = torch.zeros(shape, dtype=torch.bool) if pinned is None else pinned
        values = torch.zeros(shape) if values is None else values
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return list(denoise(predict, scheduler, pinned, values, generators=generators, steering=steering, **options))

    return make


class TestPins:
    SHAPE = (24, 4, 2)

    @pytest.fixture
    def own(self, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Pins of each particle's own, at other places with other values."""
        return torch.rand(self.SHAPE, generator=generator) < 0.4, torch.randn(self.SHAPE, generator=generator)

    @pytest.mark.parametrize("weight", [0.0, 0.5, 30.0])
    def test_what_is_pinned_has_its_values_at_every_step(self, film, own, weight):
        pinned, values = own
        steps = film(particles(lambda p: linear(weight)), self.SHAPE, pinned=pinned, values=values, seeds=(1, 2))
        for step in steps:
            assert torch.equal(step.clean[step.pinned], step.values[step.pinned])
            assert torch.equal(step.noisy[step.pinned], step.values[step.pinned])
        moved = not torch.equal(steps[-1].values, values)
        assert moved == (weight > 0)

    def test_each_keeps_a_pair_of_mask_and_values_of_its_problem(self, film, own):
        pinned, values = own
        last = film(particles(lambda p: linear(30.0)), self.SHAPE, pinned=pinned, values=values, seeds=(1, 2))[-1]
        parents = [
            next(
                j
                for j in range(24)
                if torch.equal(last.values[i], values[j]) and torch.equal(last.pinned[i], pinned[j])
            )
            for i in range(24)
        ]
        assert all((i < 12) == (j < 12) for i, j in enumerate(parents))
        assert len(set(parents)) < 24

    def test_without_particles_they_stay_where_they_are(self, film, own):
        pinned, values = own
        for steering in (None, Steering(lambda p: linear(30.0))):
            last = film(steering, self.SHAPE, pinned=pinned, values=values)[-1]
            assert torch.equal(last.pinned, pinned)
            assert torch.equal(last.values, values)


class TestTheLastStep:
    @pytest.mark.parametrize("weight", [0.15, 0.5, 1.0])
    def test_small_weights_tilt_as_they_should(self, film, weight):
        """Too weak to be due on the way; N(m, s^2) becomes N(m + w s^2, s^2) all the same."""
        free, tilted = (film(particles(lambda p, w=w: linear(w)), steps=50)[-1].noisy for w in (0.0, weight))
        error = 3 * DEVIATION / free.numel() ** 0.5
        want = weight * free.var().item()
        assert (tilted - free).mean().item() == pytest.approx(want, abs=0.1 * want + error)

    def test_a_weak_wish_waits_until_then(self, film):
        seen: list[torch.Tensor] = []

        def score(clean, noisy, t):
            seen.append(clean.clone())
            return 0.3 * clean.flatten(1).sum(1)

        steps = film(particles(lambda p: score))
        assert all(torch.equal(step.clean, clean) for step, clean in zip(steps[:-1], seen[:-1], strict=True))
        assert not torch.equal(steps[-1].clean, seen[-1])

    def test_surely_is_for_every_problem(self):
        scores = torch.tensor([0.0, 0.1, 0.2, 0.3, 5.0, 5.2, 5.1, 5.3])
        generators = [torch.Generator().manual_seed(s) for s in (0, 1)]
        kept, credited = _resample(scores, torch.zeros(8), generators, surely=True)
        assert torch.equal(credited, scores[kept])
        waiting, owed = _resample(scores, torch.zeros(8), generators)
        assert waiting.tolist() == list(range(8))
        assert (owed == 0).all()


class TestWishesThatChange:
    def halves(self, first: Score, second: Score, shared: Score | None) -> Steering:
        """One score until half way, another then, and what both have in common."""

        def carried(before: float, progress: float) -> Score | None:
            if before < 0:
                return linear(0.0)
            return None if (before < 0.5) == (progress < 0.5) else shared or linear(0.0)

        return particles(lambda p: first if p < 0.5 else second, carried)

    def test_a_term_that_ends_keeps_its_effect(self, film):
        """It tilts the x_t where it ends by exp(w E[x_0 | x_t]), so x_0 by w Var E[x_0 | x_t]; with credit for what is
        at work no longer, its effect would be taken back."""
        weight = 12.0
        gone, stays = entry(0, 0, weight), entry(1, 1, 2.0)
        steps = film(None)
        free, level = steps[-1].noisy, make_scheduler(train_steps=LEVELS).alphas_cumprod[steps[9].timestep].item()
        want = weight * DEVIATION**4 * level / (level * DEVIATION**2 + 1 - level)
        kept = film(self.halves(plus(gone, stays), stays, stays))[-1].noisy
        undone = film(particles(lambda p: plus(gone, stays) if p < 0.5 else stays))[-1].noisy
        tilt, back = ((end - free)[:, 0, 0].mean().item() for end in (kept, undone))
        assert tilt == pytest.approx(want, rel=0.2)
        assert tilt > 2 * back

    def test_a_weak_term_that_ends_keeps_its_effect_too(self, film):
        weight, steps = 3.0, film(None)
        kept = film(self.halves(entry(0, 0, weight), linear(0.0), None))[-1].noisy
        level = make_scheduler(train_steps=LEVELS).alphas_cumprod[steps[9].timestep].item()
        want = weight * DEVIATION**4 * level / (level * DEVIATION**2 + 1 - level)
        assert (kept - steps[-1].noisy)[:, 0, 0].mean().item() == pytest.approx(want, rel=0.5)

    @pytest.mark.parametrize("weight", [1.0, 2.0])
    def test_a_term_that_stays_does_not_mind_another_that_begins(self, film, weight):
        stays = entry(1, 1, weight)
        beside = film(self.halves(stays, plus(stays, entry(0, 0, 0.01)), stays))[-1].noisy
        alone = film(particles(lambda p: stays))[-1].noisy
        assert beside[:, 1, 1].mean().item() == pytest.approx(alone[:, 1, 1].mean().item(), abs=0.02)

    def test_it_does_not_touch_what_it_was_not_about(self, film):
        free = film(None)[-1].noisy
        kept = film(self.halves(entry(0, 0, 12.0), entry(0, 0, 0.0), None))[-1].noisy
        assert (kept - free)[:, 1].mean().item() == pytest.approx(0, abs=0.05)

    def test_a_term_that_begins_late_counts_from_nothing(self, film):
        late = self.halves(linear(0.0), entry(1, 1, 3.0), linear(0.0))
        free, tilted = film(None)[-1].noisy, film(late)[-1].noisy
        assert (tilted - free)[:, 1, 1].mean().item() == pytest.approx(3.0 * free.var().item(), rel=0.15)


class TestCarriedByAWish:
    EARLY, ALWAYS = (
        Guide.of(lambda spec, path: -path[:, 2, 2], "early").during(0.0, 0.4),
        3.0 * Guide.of(lambda spec, path: path[:, 1, 3].square(), "always"),
    )

    @pytest.fixture
    def wish(self, planner):
        return Wish(self.EARLY + self.ALWAYS, planner.spec, planner.normalizer)

    @pytest.fixture
    def parts(self, wish, spec, generator):
        clean = torch.randn(4, 6, spec.width, generator=generator)
        pinned = torch.zeros_like(clean, dtype=torch.bool)
        return wish.steering(pinned, Sampling(guidance="particles")), clean

    @pytest.mark.parametrize("progress", [(0.0, 0.2), (0.2, 0.4), (0.5, 0.9)])
    def test_nothing_changes_while_the_same_terms_are_at_work(self, parts, progress):
        assert parts[0].carried(*progress) is None

    def test_at_a_change_it_is_what_both_have(self, parts, wish):
        steering, clean = parts
        t = torch.zeros(4, dtype=torch.long)
        want = self.ALWAYS.value(wish.sight(clean))
        torch.testing.assert_close(steering.carried(0.4, 0.5)(clean, clean, t), want)
        assert abs(want).max() > 1e-3

    def test_at_the_first_step_there_is_no_credit(self, parts):
        steering, clean = parts
        assert steering.carried(-1.0, 0.0)(clean, clean, torch.zeros(4, dtype=torch.long)).tolist() == [0] * 4

    def test_options_reach_the_loop(self, wish):
        made = wish.steering(torch.zeros(1), Sampling(guidance="gradient", gradient_cap=0.3, smoothing=1.5))
        assert (made.gradient, made.particles, made.gradient_cap, made.smoothing) == (True, False, 0.3, 1.5)
        assert wish.steering(torch.zeros(1), Sampling(guidance="candidates")) is None
