from __future__ import annotations

from typing import get_args

import pytest
import torch

from diffplan.planner.diffusion import (
    Prediction,
    check_prediction,
    denoising_loss,
    noised,
    predict_clean,
    regression_target,
    signal_and_noise,
)
from diffplan.planner.schedulers import make_scheduler

PREDICTIONS = get_args(Prediction)
LEVELS = make_scheduler(train_steps=20).alphas_cumprod


def draw(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Clean, noise, alpha, sigma and the noisy mixture of a batch with every level once."""
    clean = torch.randn(20, 3, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, 3, 2, generator=generator, dtype=torch.float64)
    alpha, sigma = signal_and_noise(LEVELS.double(), torch.arange(20))
    return clean, noise, alpha, sigma, alpha * clean + sigma * noise


def loss_of(network, clean, pinned, prediction, weights=None, seed=0):
    return denoising_loss(
        network,
        clean,
        pinned,
        LEVELS,
        prediction=prediction,
        generator=torch.Generator().manual_seed(seed),
        column_weights=torch.ones(clean.shape[-1]) if weights is None else weights,
    )


def test_signal_and_noise_preserve_variance():
    alpha, sigma = signal_and_noise(LEVELS, torch.arange(20))
    assert alpha.shape == sigma.shape == (20, 1, 1)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(20, 1, 1))
    torch.testing.assert_close(alpha.flatten() ** 2, LEVELS)


class TestNoise:
    def test_pins_stay_clean_and_the_rest_is_the_mixture(self, generator):
        clean = torch.randn(20, 3, 2, generator=generator)
        pinned = torch.rand(clean.shape, generator=generator) < 0.4
        noisy, timestep, noise = noised(clean, pinned, LEVELS, generator)
        alpha, sigma = signal_and_noise(LEVELS, timestep)
        assert torch.equal(noisy[pinned], clean[pinned])
        torch.testing.assert_close(noisy[~pinned], (alpha * clean + sigma * noise)[~pinned])

    @pytest.mark.parametrize("level", [0, 7, 19])
    def test_mean_and_variance_of_a_level(self, generator, level):
        """alpha x and 1 - alpha^2, whatever x is."""
        count, clean = 20_000, torch.tensor([[0.8, -0.3]])
        clean = clean.expand(count, 1, 2)
        timestep = torch.full((count,), level)
        noisy, said, _ = noised(clean, torch.zeros_like(clean).bool(), LEVELS, generator, timestep)
        assert torch.equal(said, timestep)
        alpha, spread = LEVELS[level].sqrt(), (1 - LEVELS[level]).sqrt()
        close = 4.5 * spread.item() / count**0.5
        torch.testing.assert_close(noisy.mean((0, 1)), alpha * clean[0, 0], atol=close, rtol=0)
        torch.testing.assert_close(noisy.std((0, 1)), spread.expand(2), atol=close, rtol=0)

    def test_timesteps_are_drawn_evenly(self, generator):
        clean = torch.zeros(40_000, 1, 1)
        _, timestep, noise = noised(clean, clean.bool(), LEVELS, generator)
        counts = timestep.bincount(minlength=20).double()
        assert len(counts) == 20
        torch.testing.assert_close(counts, torch.full_like(counts, 2000), atol=4.5 * 2000**0.5, rtol=0)
        assert noise.std().item() == pytest.approx(1, abs=0.02)

    def test_all_of_it_comes_from_the_generator(self):
        clean = torch.zeros(8, 3, 2)
        a, b, other = (noised(clean, clean.bool(), LEVELS, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert not torch.equal(a[0], other[0])


@pytest.mark.parametrize("prediction", PREDICTIONS)
class TestEveryPrediction:
    def test_target_and_clean_are_inverse(self, prediction, generator):
        clean, noise, alpha, sigma, noisy = draw(generator)
        target = regression_target(clean, noise, alpha, sigma, prediction)
        torch.testing.assert_close(predict_clean(target, noisy, alpha, sigma, prediction), clean)

    def test_the_same_exact_denoiser_in_any_language(self, prediction, generator, exact_denoiser):
        _, _, alpha, sigma, noisy = draw(generator)
        t, levels = torch.arange(20), LEVELS.double()
        said = exact_denoiser(0.3, 0.4, levels, prediction)(noisy, t)
        want = exact_denoiser(0.3, 0.4, levels, "x0")(noisy, t)
        got = predict_clean(said, noisy, alpha, sigma, prediction)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)

    def test_a_perfect_denoiser_has_no_loss(self, prediction, generator):
        clean = torch.randn(64, 5, 3, generator=generator)
        pinned = torch.rand(clean.shape, generator=generator) < 0.3

        def knows(noisy, timestep, mask):
            assert torch.equal(mask, pinned)
            assert torch.equal(noisy[mask], clean[mask])
            alpha, sigma = signal_and_noise(LEVELS, timestep)
            return regression_target(clean, (noisy - alpha * clean) / sigma, alpha, sigma, prediction)

        loss, info = loss_of(knows, clean, pinned, prediction)
        assert loss == pytest.approx(0, abs=1e-9)
        assert info["clean_error"] == pytest.approx(0, abs=1e-6)

    def test_gradients_flow(self, prediction, generator):
        gain = torch.tensor(0.5, requires_grad=True)
        clean = torch.randn(8, 5, 3, generator=generator)
        loss, info = loss_of(lambda x, t, p: gain * x, clean, torch.zeros_like(clean).bool(), prediction)
        loss.backward()
        assert gain.grad.abs() > 0
        assert not any(v.requires_grad for v in info.values())


def test_pinned_entries_do_not_count_and_columns_are_weighed(generator):
    """Off by 1, 2 and 4 in the columns: a weighted mean of 1, 4 and 16 over the free entries."""
    clean, off = torch.randn(6, 4, 3, generator=generator), torch.tensor([1.0, 2.0, 4.0])
    pinned = torch.zeros_like(clean, dtype=torch.bool)
    pinned[:, :2, 2] = True
    loss, info = loss_of(
        lambda x, t, p: clean + torch.where(p, 100.0, off), clean, pinned, "x0", torch.tensor([0.1, 1.0, 1.0])
    )
    assert loss.item() == pytest.approx((4 * 0.1 * 1 + 4 * 4 + 2 * 16) / (4 * 0.1 + 4 + 2), rel=1e-5)
    assert info["clean_error"].item() == pytest.approx((4 * 1 + 4 * 4 + 2 * 16) / 10, rel=1e-5)


def test_noise_and_timesteps_come_from_the_generator(generator):
    clean = torch.randn(64, 5, 3, generator=generator)
    free = torch.zeros_like(clean, dtype=torch.bool)
    losses = [loss_of(lambda x, t, p: x, clean, free, "eps", seed=s)[0].item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_unknown_prediction_is_refused():
    for known in PREDICTIONS:
        check_prediction(known)
    with pytest.raises(ValueError, match=r"'score'.* x0, eps, v"):
        check_prediction("score")
