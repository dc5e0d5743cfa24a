"""Guides' moves are smoothed over time: a linear average that leaves alone what is constant."""

from __future__ import annotations

import pytest
import torch

from diffplan.planner.diffusion import signal_and_noise
from diffplan.planner.options import Sampling
from diffplan.planner.sampling import CleanPredictor, Score, Steering, denoise, smoothed
from diffplan.planner.schedulers import for_one_plan, make_scheduler

LEVELS, SHAPE = 100, (3, 9, 2)
WINDOWS = pytest.mark.parametrize("tokens", [0.3, 1.0, 2.0, 50.0])


def moves(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@WINDOWS
class TestSmoothed:
    def test_it_is_linear(self, tokens):
        a, b = moves(1), moves(2)
        want = 2.0 * smoothed(a, tokens) - 0.5 * smoothed(b, tokens)
        torch.testing.assert_close(smoothed(2.0 * a - 0.5 * b, tokens), want)

    def test_constants_are_preserved(self, tokens):
        constant = moves(1)[:, :1].expand(SHAPE)
        torch.testing.assert_close(smoothed(constant, tokens), constant)

    def test_it_is_the_gaussian_average(self, tokens):
        """Token by token, in plain numbers."""
        path, got = moves(3), smoothed(moves(3), tokens)
        for here in range(SHAPE[1]):
            weights = [2.718281828459045 ** (-0.5 * ((here - j) / tokens) ** 2) for j in range(SHAPE[1])]
            want = sum(w * path[:, j] for j, w in enumerate(weights)) / sum(weights)
            torch.testing.assert_close(got[:, here], want)

    def test_it_never_leaves_the_range_and_calms(self, tokens):
        path = moves(4, 5, 40, 3)
        got = smoothed(path, tokens)
        assert (got <= path.amax(1, keepdim=True) + 1e-12).all()
        assert (got >= path.amin(1, keepdim=True) - 1e-12).all()
        assert got.diff(dim=1).square().mean() < path.diff(dim=1).square().mean()

    def test_columns_and_trajectories_are_smoothed_each_by_itself(self, tokens):
        path = moves(5)
        for b in range(SHAPE[0]):
            for d in range(SHAPE[2]):
                alone = smoothed(path[b : b + 1, :, d : d + 1], tokens)
                torch.testing.assert_close(smoothed(path, tokens)[b : b + 1, :, d : d + 1], alone)


@pytest.fixture
def first_clean(exact_denoiser):
    """The clean prediction of the first step, guided and not."""

    def make(score: Score | None, *, pinned=None, **options) -> torch.Tensor:
        scheduler = for_one_plan(make_scheduler("ddim", train_steps=LEVELS), "ddim", 10)
        levels = scheduler.alphas_cumprod
        predict = CleanPredictor(exact_denoiser(0.0, 0.5, levels), levels)
        steering = None if score is None else Steering(lambda progress: score, **options)
        free = torch.zeros(SHAPE, dtype=torch.bool)
        pinned = free if pinned is None else pinned
        film = denoise(
            predict, scheduler, pinned, torch.zeros(SHAPE), generators=[torch.Generator()], steering=steering
        )
        return next(film).clean

    return make


def alike(clean: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Likes all tokens alike: its gradient is constant in time."""
    return 0.4 * clean.sum((1, 2))


def jagged(clean: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Likes single tokens of the noisy sample: its gradient is known, and jagged."""
    return 3.0 * noisy[:, 4, 0] - 2.0 * noisy[:, 1, 1]


class TestInTheLoop:
    def test_a_move_that_is_constant_in_time_is_unchanged(self, first_clean):
        held, plain = (first_clean(alike, smoothing=s) for s in (3.0, 0.0))
        assert not torch.allclose(plain, first_clean(None), atol=1e-3)
        torch.testing.assert_close(held, plain, atol=1e-5, rtol=1e-5)

    def test_without_smoothing_the_move_is_the_gradient_itself(self, first_clean):
        """Weight sigma^2 / alpha, token by token; the guide reads the noisy sample, so the gradient is exact."""
        alpha, sigma = signal_and_noise(make_scheduler("ddim", train_steps=LEVELS).alphas_cumprod, torch.tensor(99))
        want = torch.zeros(SHAPE)
        want[:, 4, 0], want[:, 1, 1] = 3.0, -2.0
        moved = first_clean(jagged, smoothing=0.0) - first_clean(None)
        torch.testing.assert_close(moved, sigma**2 / alpha * want, rtol=1e-3, atol=1e-3)
        assert Steering(lambda progress: jagged).smoothing == 0.0

    @pytest.mark.parametrize("tokens", [0.7, 2.0])
    def test_with_smoothing_it_is_the_smoothed_one(self, first_clean, tokens):
        free, plain, held = (first_clean(s, smoothing=n) for s, n in ((None, 0), (jagged, 0.0), (jagged, tokens)))
        torch.testing.assert_close(held - free, smoothed(plain - free, tokens), rtol=1e-3, atol=1e-3)

    def test_pinned_entries_do_not_move(self, first_clean):
        pinned = torch.zeros(SHAPE, dtype=torch.bool)
        pinned[:, 3:6] = True
        held = first_clean(alike, pinned=pinned, smoothing=2.0)
        assert (held[pinned] == 0).all()
        assert (held[~pinned] != 0).all()

    def test_the_cap_bounds_the_smoothed_move(self, first_clean):
        free, held = first_clean(None), first_clean(jagged, smoothing=2.0, gradient_cap=0.5)
        norms = (held - free).flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, 0.5), rtol=1e-4, atol=1e-4)


def test_plans_are_smoothed_by_default():
    assert Sampling().smoothing > 0
