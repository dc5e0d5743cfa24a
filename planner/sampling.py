"""The reverse process: from noise to trajectories, one visible loop.

Shape letters: P problems, K candidates of each, B = P * K batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from .diffusion import Denoiser, Prediction, predict_clean, signal_and_noise
from .schedulers import Scheduler

Score = Callable[[Tensor, float], Tensor]
"""A guide as the loop sees it: clean trajectories (B, H, D), normalised, and the progress 0..1, to scores (B,)."""


@dataclass(frozen=True)
class Step:
    """One step of the film from noise to plan.

    Attributes:
        index: 0 for the first step taken.
        total: steps of the whole film.
        timestep: training timestep that was denoised.
        clean: predicted clean trajectories (B, H, D), normalised, pins exact.
        noisy: the next, less noisy sample (B, H, D); after the last step the result.
    """

    index: int
    total: int
    timestep: int
    clean: Tensor
    noisy: Tensor


@dataclass(frozen=True)
class CleanPredictor:
    """A denoiser of any kind, read as the predicted clean trajectory."""

    denoiser: Denoiser
    alphas_cumprod: Tensor
    prediction: Prediction = "x0"
    clip: float | None = None

    def __call__(self, noisy: Tensor, timestep: Tensor, pinned: Tensor, values: Tensor) -> Tensor:
        """(B, H, D) at timesteps (B,); free entries are clipped, pinned ones take their values."""
        alpha, sigma = signal_and_noise(self.alphas_cumprod, timestep)
        clean = predict_clean(self.denoiser(noisy, timestep, pinned), noisy, alpha, sigma, self.prediction)
        clean = clean if self.clip is None else clean.clamp(-self.clip, self.clip)
        return torch.where(pinned, values, clean)


def draw_noise(generators: Sequence[torch.Generator], each: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """`each` standard normal samples of `shape` from every generator: a problem's noise is its own in any batch."""
    parts = [torch.randn((each, *shape), generator=g, device=g.device) for g in generators]
    return torch.cat(parts).to(device)


def denoise(
    predict: CleanPredictor,
    scheduler: Scheduler,
    pinned: Tensor,
    values: Tensor,
    *,
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    eta: float = 1.0,
    guide: Score | None = None,
    gradient_cap: float | None = None,
    warm: Tensor | None = None,
    skip: int = 0,
) -> Iterator[Step]:
    """Sample trajectories under conditions, yielding every step.

    Args:
        predict: the network, read as a clean predictor.
        scheduler: set to its steps, and used for this plan alone (`schedulers.for_one_plan`).
        pinned: (B, H, D) bool.
        values: (B, H, D) normalised values of the pinned entries.
        generators: P of them, B a multiple of P.
        temperature: scales the standard deviation of all noise put in; below 1 gives likelier, less varied plans.
        eta: of DDIM (Song et al. 2021, eq. 16): 0 is deterministic, 1 has DDPM's variance.
        guide: score to climb; its gradient enters at x_t with weight sigma_t^2 / alpha_t, the same for every sampler
            (from Tweedie's formula: adding g to the score of x_t moves the predicted x_0 by sigma_t^2 / alpha_t * g).
        gradient_cap: largest norm, over H and D, by which guidance may move one clean trajectory in a step.
        warm: (B, H, D) normalised trajectories to begin from instead of pure noise.
        skip: steps left out at the noisy end; `warm` is noised to the first level that remains.

    Raises:
        ValueError: a temperature other than 1 with DDPM, whose noise is drawn inside diffusers; a skip out of range.
    """
    steps = scheduler.timesteps.tolist()
    if not 0 <= skip < len(steps) or (skip and warm is None):
        raise ValueError(f"skip={skip} needs a warm start and must be below the {len(steps)} steps")
    if isinstance(scheduler, DDPMScheduler) and temperature != 1:
        raise ValueError(
            f"ddpm samples at temperature 1 only, got {temperature}; use ddim, which with eta=1 is the same"
        )
    if len(pinned) % len(generators):
        raise ValueError(f"{len(pinned)} trajectories cannot be shared evenly by {len(generators)} generators")
    each, device = len(pinned) // len(generators), values.device
    noisy = temperature * draw_noise(generators, each, values.shape[1:], device)
    if warm is not None:
        alpha, sigma = signal_and_noise(predict.alphas_cumprod, torch.tensor(steps[skip]))
        noisy = alpha.to(device) * warm + sigma.to(device) * noisy
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skip)
    noisy = torch.where(pinned, values, noisy)
    for index, timestep in enumerate(steps[skip:]):
        t = torch.full((len(noisy),), timestep, device=device)
        if guide is None:
            clean = predict(noisy, t, pinned, values)
        else:
            clean = _guided(predict, noisy, t, pinned, values, guide, index / (len(steps) - skip), gradient_cap)
        noisy = _advance(scheduler, clean, timestep, noisy, generators, temperature, eta)
        noisy = torch.where(pinned, values, noisy)
        yield Step(index, len(steps) - skip, timestep, clean, noisy)


def _advance(
    scheduler: Scheduler,
    clean: Tensor,
    timestep: int,
    noisy: Tensor,
    generators: Sequence[torch.Generator],
    temperature: float,
    eta: float,
) -> Tensor:
    """One step of a diffusers scheduler: each kind asks for its noise in its own way."""
    each = len(noisy) // len(generators)
    extra: dict[str, object] = {}
    if isinstance(scheduler, DDIMScheduler):
        drawn = draw_noise(generators, each, noisy.shape[1:], noisy.device) if eta > 0 else None
        extra = {"eta": eta, "variance_noise": None if drawn is None else temperature * drawn}
    elif isinstance(scheduler, DDPMScheduler):
        extra = {"generator": [g for g in generators for _ in range(each)]}
    return scheduler.step(clean, timestep, noisy, return_dict=False, **extra)[0]


def _guided(
    predict: CleanPredictor,
    noisy: Tensor,
    t: Tensor,
    pinned: Tensor,
    values: Tensor,
    guide: Score,
    progress: float,
    cap: float | None,
) -> Tensor:
    """The clean prediction, moved up the guide's gradient."""
    with torch.enable_grad():
        x = noisy.detach().requires_grad_(True)
        clean = predict(x, t, pinned, values)
        gradient = torch.autograd.grad(guide(clean, progress).sum(), x)[0]
    alpha, sigma = signal_and_noise(predict.alphas_cumprod, t)
    move = torch.where(pinned, 0.0, sigma**2 / alpha * gradient)
    if cap is not None:
        norm = move.flatten(1).norm(dim=1).clamp(min=1e-12)
        move = move * (cap / norm).clamp(max=1.0).reshape(-1, 1, 1)
    moved = clean.detach() + move
    return moved if predict.clip is None else torch.where(pinned, values, moved.clamp(-predict.clip, predict.clip))
