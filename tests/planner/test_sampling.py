"""Data with a known answer: every entry is N(MEAN, DEVIATION^2), so the exact denoiser is a formula."""

from __future__ import annotations

import pytest
import torch

from diffplan.planner.sampling import CleanPredictor, Step, denoise, draw_noise
from diffplan.planner.schedulers import for_one_plan, make_scheduler

MEAN, DEVIATION, LEVELS = 0.3, 0.5, 100
SHAPE = (4000, 4, 2)
EVERY = [("ddpm", {}), ("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0}), ("dpm++", {})]
NAMES = ["ddpm", "ddim-0", "ddim-1", "dpm++"]
every_sampler = pytest.mark.parametrize(("sampler", "extra"), EVERY, ids=NAMES)


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
        """N(m, s^2) times exp(w x) is N(m + w s^2, s^2), whatever the sampler and its steps."""
        weight = 1.2
        free = film(sampler, steps, **extra)[-1].noisy
        guide = lambda clean, _: weight * clean.flatten(1).sum(1)  # noqa: E731
        tilted = film(sampler, steps, guide=guide, **extra)[-1].noisy
        assert (tilted - free).mean().item() == pytest.approx(weight * DEVIATION**2, rel=0.1)
        assert tilted.std().item() == pytest.approx(free.std().item(), rel=0.02)

    def test_a_guide_that_likes_all_alike_changes_nothing(self, film, sampler, extra):
        small = {"shape": (3, 4, 2)} | extra
        free = film(sampler, 10, **small)[-1].noisy
        guided = film(sampler, 10, guide=lambda clean, _: 0 * clean.flatten(1).sum(1), **small)[-1].noisy
        assert torch.equal(free, guided)

    def test_pins_are_exact_and_what_is_not_pinned_does_not_leak(self, film, sampler, extra, generator):
        shape = (3, 4, 2)
        pinned = torch.rand(shape, generator=generator) < 0.4
        values = 3 * torch.randn(shape, generator=generator)
        junk = torch.where(pinned, values, 1e3 * torch.randn(shape, generator=generator))
        options = {"guide": lambda clean, _: clean.flatten(1).sum(1), "clip": 1.0} | extra
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
    options = {"shape": (5, 4, 2), "guide": lambda clean, _: 3 * clean.flatten(1).sum(1)}
    plain = film(steps=10, **options | {"guide": None})[0].clean
    free, held = (film(steps=10, gradient_cap=c, **options)[0].clean - plain for c in (None, cap))
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

    def watch(clean, progress):
        seen.append(progress)
        return clean.flatten(1).sum(1)

    film(steps=5, shape=(1, 4, 2), guide=watch)
    assert seen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_noise_is_each_generators_own():
    def draw(*seeds):
        return draw_noise([torch.Generator().manual_seed(s) for s in seeds], 3, (4, 2), torch.device("cpu"))

    assert torch.equal(draw(1, 2), torch.cat([draw(1), draw(2)]))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(
    ("sampler", "wrong", "says"),
    [
        ("ddpm", {"temperature": 0.5}, "temperature"),
        ("ddim", {"skip": 1}, "skip=1"),
        ("ddim", {"skip": 10, "warm": torch.zeros(1, 4, 2)}, "skip=10"),
        ("ddim", {"skip": -1, "warm": torch.zeros(1, 4, 2)}, "skip=-1"),
    ],
)
def test_refusals(film, sampler, wrong, says):
    with pytest.raises(ValueError, match=says):
        film(sampler, 10, shape=(1, 4, 2), **wrong)
