"""Data with a known answer: every entry is N(MEAN, DEVIATION^2), so the exact denoiser is a formula."""

from __future__ import annotations

import pytest
import torch

from diffplan.planner.sampling import CleanPredictor, Score, Steering, Step, _resample, denoise, draw_noise
from diffplan.planner.schedulers import for_one_plan, make_scheduler

MEAN, DEVIATION, LEVELS = 0.3, 0.5, 100
SHAPE = (4000, 4, 2)
EVERY = [("ddpm", {}), ("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0}), ("dpm++", {})]
NAMES = ["ddpm", "ddim-0", "ddim-1", "dpm++"]
every_sampler = pytest.mark.parametrize(("sampler", "extra"), EVERY, ids=NAMES)


def linear(weight: float) -> Score:
    """Every entry counts alike: N(m, s^2) times exp(w x) is N(m + w s^2, s^2)."""
    return lambda clean, noisy, t: weight * clean.flatten(1).sum(1)


def climb(score: Score, **options) -> Steering:
    return Steering(lambda progress: score, **options)


def sieve(score: Score) -> Steering:
    return Steering(lambda progress: score, gradient=False, particles=True)


@pytest.fixture
def film(exact_denoiser):
    """All steps of sampling the known data."""

    def make(
        sampler="ddim",
        steps=LEVELS,
        *,
        pinned=None,
        values=None,
        prediction="x0",
        clip=None,
        seeds=(0,),
        shape=SHAPE,
        dtype=torch.float32,
        **options,
    ) -> list[Step]:
        scheduler = for_one_plan(make_scheduler("ddim", train_steps=LEVELS), sampler, steps)
        levels = scheduler.alphas_cumprod.to(dtype)
        network = exact_denoiser(MEAN, DEVIATION, levels, prediction)
        predict = CleanPredictor(network, levels, prediction, clip)
        pinned = torch.zeros(shape, dtype=torch.bool) if pinned is None else pinned
        values = torch.zeros(shape, dtype=dtype) if values is None else values
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return list(denoise(predict, scheduler, pinned, values, generators=generators, **options))

    return make


@every_sampler
class TestEverySampler:
    def test_mean_and_deviation_are_the_datas(self, film, sampler, extra):
        result = film(sampler, **extra)[-1].noisy
        assert result.mean().item() == pytest.approx(MEAN, abs=0.02)
        assert result.std().item() == pytest.approx(DEVIATION, rel=0.04)

    @pytest.mark.parametrize("steps", [10, 25, 100])
    def test_a_linear_guide_tilts_by_its_weight_times_the_variance(self, film, sampler, extra, steps):
        weight = 1.2
        free = film(sampler, steps, **extra)[-1].noisy
        tilted = film(sampler, steps, steering=climb(linear(weight)), **extra)[-1].noisy
        assert (tilted - free).mean().item() == pytest.approx(weight * DEVIATION**2, rel=0.1)
        assert tilted.std().item() == pytest.approx(free.std().item(), rel=0.02)

    def test_a_guide_that_likes_all_alike_changes_nothing(self, film, sampler, extra):
        small = {"shape": (3, 4, 2)} | extra
        free = film(sampler, 10, **small)[-1].noisy
        guided = film(sampler, 10, steering=climb(linear(0.0)), **small)[-1].noisy
        assert torch.equal(free, guided)

    def test_a_guide_that_rests_changes_nothing(self, film, sampler, extra):
        small = {"shape": (3, 4, 2)} | extra
        free = film(sampler, 10, **small)[-1].noisy
        assert torch.equal(free, film(sampler, 10, steering=Steering(lambda progress: None), **small)[-1].noisy)

    def test_a_score_of_the_noisy_sample_reaches_it(self, film, sampler, extra):
        """As a return model's does: the gradient g at x_t moves the clean prediction by sigma^2 / alpha g."""
        small = {"shape": (3, 4, 2)} | extra
        steps = [film(sampler, 10, steering=s, **small) for s in (None, climb(lambda c, x, t: 0.3 * x.sum((1, 2))))]
        level = make_scheduler(train_steps=LEVELS).alphas_cumprod[99]
        moved = (steps[1][0].clean - steps[0][0].clean) * level.sqrt() / (1 - level)
        torch.testing.assert_close(moved, torch.full_like(moved, 0.3), atol=1e-3, rtol=0)

    def test_a_guide_sees_what_is_denoised(self, film, sampler, extra):
        seen = []

        def watch(clean, noisy, t):
            seen.append((noisy.detach().clone(), t.tolist()))
            return clean.flatten(1).sum(1)

        steps = film(sampler, 5, shape=(3, 4, 2), steering=climb(watch), **extra)
        assert [t for _, t in seen] == [[s.timestep] * 3 for s in steps]
        assert all(torch.equal(x, s.noisy) for (x, _), s in zip(seen[1:], steps, strict=False))

    def test_pins_are_exact_and_what_is_not_pinned_does_not_leak(self, film, sampler, extra, generator):
        shape = (3, 4, 2)
        pinned = torch.rand(shape, generator=generator) < 0.4
        values = 3 * torch.randn(shape, generator=generator)
        junk = torch.where(pinned, values, 1e3 * torch.randn(shape, generator=generator))
        options = {"steering": climb(linear(1.0)), "clip": 1.0} | extra
        options |= {"shape": shape, "pinned": pinned}
        clean, dirty = (film(sampler, 10, values=v, **options) for v in (values, junk))
        for a, b in zip(clean, dirty, strict=True):
            assert torch.equal(a.noisy[pinned], values[pinned])
            assert torch.equal(a.clean[pinned], values[pinned])
            assert torch.equal(a.noisy, b.noisy)
            assert torch.equal(a.clean, b.clean)

    @pytest.mark.parametrize("prediction", ["eps", "v"])
    def test_any_prediction_samples_the_same(self, film, sampler, extra, prediction):
        options = {"shape": (3, 4, 2), "dtype": torch.float64} | extra
        want, got = (film(sampler, 20, prediction=p, **options)[-1].noisy for p in ("x0", prediction))
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)

    def test_a_problem_is_the_same_alone_and_beside_others(self, film, sampler, extra):
        both = film(sampler, 10, shape=(6, 4, 2), seeds=(5, 7), **extra)[-1].noisy
        for i, seed in enumerate((5, 7)):
            alone = film(sampler, 10, shape=(3, 4, 2), seeds=(seed,), **extra)[-1].noisy
            torch.testing.assert_close(both[3 * i : 3 * i + 3], alone, atol=1e-5, rtol=0)

    def test_a_warm_start_from_the_data_stays_the_data(self, film, sampler, extra):
        warm = MEAN + DEVIATION * torch.randn(SHAPE, generator=torch.Generator().manual_seed(99))
        steps = film(sampler, warm=warm, skip=60, **extra)
        assert len(steps) == LEVELS - 60
        assert steps[-1].noisy.mean().item() == pytest.approx(MEAN, abs=0.02)
        assert steps[-1].noisy.std().item() == pytest.approx(DEVIATION, rel=0.04)

    def test_the_film_counts_down(self, film, sampler, extra):
        steps = film(sampler, 10, shape=(1, 4, 2), **extra)
        assert [s.index for s in steps] == list(range(10))
        assert {s.total for s in steps} == {10}
        assert [s.timestep for s in steps] == list(range(99, 0, -10))
        torch.testing.assert_close(steps[-1].noisy, steps[-1].clean, atol=1e-5, rtol=0)


def test_without_noise_a_plan_is_the_mean(film):
    result = film("ddim", temperature=0.0, shape=(5, 4, 2))[-1].noisy
    torch.testing.assert_close(result, torch.full_like(result, MEAN), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("dpm++", 1.0)])
def test_temperature_scales_the_deviation(film, sampler, eta):
    """The exact denoiser is linear, so the sample's spread is proportional to the noise put in."""
    warm, cool = (film(sampler, 10, temperature=t, eta=eta)[-1].noisy for t in (1.0, 0.5))
    torch.testing.assert_close(cool - MEAN, 0.5 * (warm - MEAN), atol=1e-3, rtol=0)


@pytest.mark.parametrize("cap", [0.01, 0.5, 100.0])
def test_the_gradient_cap_bounds_the_move_and_keeps_its_direction(film, cap):
    plain = film(steps=10, shape=(5, 4, 2))[0].clean
    free, held = (
        film(steps=10, shape=(5, 4, 2), steering=climb(linear(3.0), gradient_cap=c))[0].clean - plain
        for c in (None, cap)
    )
    size = free.flatten(1).norm(dim=1)
    expected = free * (cap / size).clamp(max=1).reshape(-1, 1, 1)
    torch.testing.assert_close(held, expected, atol=1e-5, rtol=1e-3)


def test_clipping_bounds_what_is_free_alone(film):
    pinned = torch.zeros(50, 4, 2, dtype=torch.bool)
    pinned[:, 0] = True
    values = torch.where(pinned, 5.0, 0.0)
    last = film(steps=10, pinned=pinned, values=values, clip=0.4, shape=(50, 4, 2))[-1]
    assert last.clean[~pinned].abs().max() <= 0.4
    assert (last.noisy[pinned] == 5.0).all()


def test_progress_runs_from_noise_to_plan(film):
    seen = []

    film(steps=5, shape=(1, 4, 2), steering=Steering(seen.append))
    assert seen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_noise_is_each_generators_own():
    def draw(*seeds):
        return draw_noise([torch.Generator().manual_seed(s) for s in seeds], 3, (4, 2), torch.device("cpu"))

    assert torch.equal(draw(1, 2), torch.cat([draw(1), draw(2)]))
    assert not torch.equal(draw(1), draw(2))


class TestParticles:
    @pytest.mark.parametrize(("sampler", "steps"), [("ddim", 10), ("ddim", 50), ("ddpm", 50)])
    def test_a_linear_score_tilts_by_its_weight_times_the_variance(self, film, sampler, steps):
        """As the gradient does, but of what the sampler draws, whose variance few steps shrink."""
        weight = 4.0
        free = film(sampler, steps)[-1].noisy
        tilted = film(sampler, steps, steering=sieve(linear(weight)))[-1].noisy
        assert (tilted - MEAN).mean().item() == pytest.approx(weight * free.var().item(), rel=0.06)
        assert tilted.std().item() == pytest.approx(free.std().item(), rel=0.06)

    def test_what_is_not_scored_is_not_tilted(self, film):
        score = lambda clean, noisy, t: 6.0 * clean[:, 0, 0]  # noqa: E731
        tilted = film(steps=20, steering=sieve(score))[-1].noisy
        assert tilted[:, 0, 0].mean() > MEAN + DEVIATION
        rest = tilted.flatten(1)[:, 1:]
        assert rest.mean().item() == pytest.approx(MEAN, abs=0.04)

    @pytest.mark.parametrize(("sampler", "eta"), [("ddim", 1.0), ("ddim", 0.3), ("ddpm", 1.0)])
    def test_equal_scores_keep_every_particle_in_its_place(self, film, sampler, eta):
        seen = []

        def score(clean, noisy, t):
            seen.append(clean.clone())
            return torch.full((len(clean),), 7.0)

        steps = film(sampler, 10, shape=(6, 4, 2), seeds=(1, 2), eta=eta, steering=sieve(score))
        assert len(seen) == 10
        assert all(torch.equal(step.clean, clean) for step, clean in zip(steps, seen, strict=True))

    def test_the_best_of_a_problem_replace_the_rest_and_never_another_problems(self, film):
        """Only the third problem has a particle worth keeping; the noise that follows sets its copies apart."""
        seen = []

        def score(clean, noisy, t):
            seen.append(clean[:, 0, 1].clone())
            return 50.0 * (torch.arange(9) == 7) if len(seen) == 1 else torch.zeros(9)

        steps = film(steps=10, shape=(9, 4, 2), seeds=(1, 2, 3), steering=sieve(score))
        kept = steps[0].clean[:, 0, 1]
        assert torch.equal(kept, seen[0][[0, 1, 2, 3, 4, 5, 7, 7, 7]])
        assert len(steps[-1].noisy.flatten(1).unique(dim=0)) == 9

    def test_a_problem_is_the_same_alone_and_beside_others(self, film):
        options = {"steps": 10, "steering": sieve(linear(5.0))}
        both = film(shape=(8, 4, 2), seeds=(5, 7), **options)[-1].noisy
        for i, seed in enumerate((5, 7)):
            alone = film(shape=(4, 4, 2), seeds=(seed,), **options)[-1].noisy
            torch.testing.assert_close(both[4 * i : 4 * i + 4], alone, atol=1e-5, rtol=0)


class TestResampling:
    COUNT = 50

    def drawn(self, scores: torch.Tensor, credited: torch.Tensor, seed: int = 0, problems: int = 1):
        generators = [torch.Generator().manual_seed(seed + i) for i in range(problems)]
        return _resample(scores, credited, generators)

    def test_each_goes_on_as_often_as_its_share_says(self, generator):
        """Systematic: the whole part of K p copies, and one more with the chance of what is left of it."""
        scores = 2.0 * torch.randn(self.COUNT, generator=generator)
        expected = self.COUNT * torch.softmax(scores, 0)
        copies = torch.stack(
            [self.drawn(scores, torch.zeros(self.COUNT), seed)[0].bincount(minlength=self.COUNT) for seed in range(500)]
        ).double()
        assert (copies >= expected.floor()).all()
        assert (copies <= expected.ceil()).all()
        spread = 0.5 / 500**0.5
        torch.testing.assert_close(copies.mean(0), expected.double(), atol=4.5 * spread, rtol=0)

    def test_they_keep_their_order(self, generator):
        kept, _ = self.drawn(5.0 * torch.randn(self.COUNT, generator=generator), torch.zeros(self.COUNT))
        assert (kept.diff() >= 0).all()
        assert len(kept.unique()) < self.COUNT

    def test_equal_rises_change_nothing(self, generator):
        credited = torch.randn(self.COUNT, generator=generator)
        kept, after = self.drawn(credited + 3.0, credited)
        assert kept.tolist() == list(range(self.COUNT))
        assert torch.equal(after, credited)

    @pytest.mark.parametrize(("liked", "due"), [(26, False), (24, True)])
    def test_they_are_due_when_fewer_than_half_would_count(self, liked, due):
        scores = torch.where(torch.arange(self.COUNT) < liked, 30.0, 0.0)
        kept, credited = self.drawn(scores, torch.zeros(self.COUNT))
        assert (kept.tolist() != list(range(self.COUNT))) == due
        assert torch.equal(credited, scores[kept] if due else torch.zeros(self.COUNT))

    def test_what_was_credited_does_not_count_again(self, generator):
        scores = 5.0 * torch.randn(self.COUNT, generator=generator)
        kept, credited = self.drawn(scores, torch.zeros(self.COUNT))
        assert torch.equal(credited, scores[kept])
        again, _ = self.drawn(scores[kept], credited)
        assert again.tolist() == list(range(self.COUNT))

    def test_problems_are_resampled_each_by_itself(self, generator):
        scores = torch.stack([5.0 * torch.randn(self.COUNT, generator=generator), torch.zeros(self.COUNT)]).flatten()
        kept, credited = self.drawn(scores, torch.zeros(2 * self.COUNT), seed=4, problems=2)
        alone, own = self.drawn(scores[: self.COUNT], torch.zeros(self.COUNT), seed=4)
        assert torch.equal(kept[: self.COUNT], alone)
        assert torch.equal(credited[: self.COUNT], own)
        assert kept[self.COUNT :].tolist() == list(range(self.COUNT, 2 * self.COUNT))
        assert (credited[self.COUNT :] == 0).all()


@pytest.mark.parametrize(
    ("sampler", "wrong", "says"),
    [
        ("ddpm", {"temperature": 0.5}, "temperature"),
        ("ddim", {"skip": 1}, "skip=1"),
        ("ddim", {"skip": 10, "warm": torch.zeros(1, 4, 2)}, "skip=10"),
        ("ddim", {"skip": -1, "warm": torch.zeros(1, 4, 2)}, "skip=-1"),
        ("ddim", {"seeds": (1, 2)}, "evenly"),
        ("ddim", {"steering": sieve(linear(1.0)), "eta": 0.0}, "noise between the steps"),
        ("dpm++", {"steering": sieve(linear(1.0))}, "noise between the steps"),
    ],
)
def test_refusals(film, sampler, wrong, says):
    with pytest.raises(ValueError, match=says):
        film(sampler, 10, shape=(1, 4, 2), **wrong)
