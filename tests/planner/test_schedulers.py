from __future__ import annotations

from itertools import zip_longest
from typing import get_args

import pytest
import torch
from diffusers.schedulers import DDPMScheduler, EulerDiscreteScheduler

from diffplan.planner.sampling import CleanPredictor, denoise
from diffplan.planner.schedulers import Sampler, for_one_plan, make_scheduler, sampler_of

SAMPLERS = get_args(Sampler)


def shrink(sample: torch.Tensor, timestep: torch.Tensor, pinned: torch.Tensor | None = None) -> torch.Tensor:
    return torch.tanh(sample) * 0.7


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    def test_name_and_levels_survive(self, sampler):
        made = make_scheduler(sampler, train_steps=12)
        assert sampler_of(made) == sampler
        fresh = for_one_plan(made, None, 6)
        assert sampler_of(fresh) == sampler
        torch.testing.assert_close(fresh.alphas_cumprod, made.alphas_cumprod)

    def test_levels_are_the_squared_cosine(self, sampler):
        """Nichol & Dhariwal 2021, eq. 17, with their bound of 0.999 on each beta."""
        t = torch.arange(21, dtype=torch.float64) / 20
        f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
        expected = torch.cumprod((f[1:] / f[:-1]).clamp(min=0.001), 0).float()
        torch.testing.assert_close(make_scheduler(sampler, train_steps=20).alphas_cumprod, expected)

    def test_two_interleaved_plans_equal_two_separate_ones(self, sampler):
        def film(seed):
            levels = make_scheduler(sampler, train_steps=12)
            pinned, values = torch.zeros(3, 4, 2, dtype=torch.bool), torch.zeros(3, 4, 2)
            yield from denoise(
                CleanPredictor(shrink, levels.alphas_cumprod),
                for_one_plan(one, None, 6),
                pinned,
                values,
                generators=[torch.Generator().manual_seed(seed)],
            )

        one = make_scheduler(sampler, train_steps=12)
        alone = [[s.noisy for s in film(seed)] for seed in (0, 1)]
        mixed = list(zip_longest(film(0), film(1)))
        for i in range(2):
            assert all(torch.equal(pair[i].noisy, want) for pair, want in zip(mixed, alone[i], strict=True))

    @pytest.mark.parametrize("steps", [-1, 0, 13])
    def test_steps_out_of_range(self, sampler, steps):
        with pytest.raises(ValueError, match=f"steps={steps} "):
            for_one_plan(make_scheduler(sampler, train_steps=12), None, steps)


@pytest.mark.parametrize("levels", [12, 32])
def test_dpm_takes_every_number_of_steps(levels):
    for steps in range(1, levels + 1):
        times = for_one_plan(make_scheduler("dpm++", train_steps=levels), None, steps).timesteps
        assert len(times) == steps
        assert times[0] == levels - 1
        assert (times >= 0).all()
        assert (times.diff() < 0).all()


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("steps", [5, 7, 8, 11])
def test_steps_that_do_not_divide_are_refused(sampler, steps):
    with pytest.raises(ValueError, match=rf"steps={steps} does not divide .*\[1, 2, 3, 4, 6, 12\]"):
        for_one_plan(make_scheduler("dpm++", train_steps=12), sampler, steps)


@pytest.mark.parametrize("steps", [4, 12])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_one_step_is_the_posterior(sampler, steps, generator):
    """Mean and variance of q(x_s | x_t, x_0), Ho et al. 2020, eq. 7, and DDIM's eq. 12 and 16 at eta = 1."""
    scheduler = for_one_plan(make_scheduler(sampler, train_steps=12), None, steps)
    bar, jump, count = scheduler.alphas_cumprod.double(), 12 // steps, 40_000
    for t in scheduler.timesteps.tolist():
        now, then = bar[t], bar[t - jump] if t >= jump else torch.tensor(1.0, dtype=torch.float64)
        x, clean = torch.full((count, 1, 1), 0.8), torch.full((count, 1, 1), -0.3)
        extra = {"eta": 1.0} if sampler == "ddim" else {}
        got = scheduler.step(clean, t, x, generator=generator, return_dict=False, **extra)[0].double()
        mean = then.sqrt() * (1 - now / then) * -0.3 + (now / then).sqrt() * (1 - then) * 0.8
        mean = mean / (1 - now)
        deviation = ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()
        assert got.mean() == pytest.approx(mean.item(), abs=5 * deviation.item() / count**0.5 + 1e-5)
        assert got.std() == pytest.approx(deviation.item(), rel=0.02, abs=1e-5)


def test_a_plans_levels_are_those_it_was_trained_on():
    trained = DDPMScheduler(12, beta_schedule="linear", prediction_type="sample", clip_sample=False)
    torch.testing.assert_close(for_one_plan(trained, "ddim", 6).alphas_cumprod, trained.alphas_cumprod)


def test_refusals():
    with pytest.raises(ValueError, match="'euler'"):
        make_scheduler("euler")
    with pytest.raises(ValueError, match="train_steps=1 "):
        make_scheduler(train_steps=1)
    with pytest.raises(ValueError, match="EulerDiscreteScheduler"):
        sampler_of(EulerDiscreteScheduler())
