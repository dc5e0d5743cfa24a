"""Noise in, clean trajectories out: the training loss, and one language for every kind of network.

Whatever a network predicts (the clean trajectory, the noise, or the velocity of Salimans & Ho 2022), `predict_clean`
turns it into the clean trajectory; conditions, guides and samplers act on that alone.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

Prediction = Literal["x0", "eps", "v"]


class Denoiser(Protocol):
    """Any network (or function) of noisy trajectories (B, H, D), timesteps (B,) and the mask of given entries."""

    def __call__(self, sample: Tensor, timestep: Tensor, pinned: Tensor | None = None) -> Tensor: ...


def check_prediction(prediction: str) -> None:
    """Refuse an unknown kind of network."""
    if prediction not in get_args(Prediction):
        raise ValueError(f"unknown prediction {prediction!r}; known: {', '.join(get_args(Prediction))}")


def signal_and_noise(alphas_cumprod: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of x_t = alpha_t x_0 + sigma_t noise, each (B, 1, 1)."""
    level = alphas_cumprod.to(timestep.device)[timestep].reshape(-1, 1, 1)
    return level.sqrt(), (1 - level).sqrt()


def predict_clean(output: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The clean trajectory (B, H, D) that a network's output stands for."""
    if prediction == "eps":
        return (noisy - sigma * output) / alpha
    if prediction == "v":
        return alpha * noisy - sigma * output
    return output


def regression_target(clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """What the network is trained to say: the inverse of `predict_clean` at the true clean trajectory."""
    if prediction == "eps":
        return noise
    if prediction == "v":
        return alpha * noise - sigma * clean
    return clean


def noised(
    clean: Tensor, pinned: Tensor, alphas_cumprod: Tensor, generator: torch.Generator, timestep: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean trajectories (B, H, D) with noise on their free entries, the timesteps (B,), and the noise (B, H, D).

    Timesteps are drawn evenly where none are given.
    """
    device = clean.device
    if timestep is None:
        timestep = torch.randint(len(alphas_cumprod), (len(clean),), generator=generator, device=device)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    alpha, sigma = signal_and_noise(alphas_cumprod, timestep)
    return torch.where(pinned, clean, alpha * clean + sigma * noise), timestep, noise


def denoising_loss(
    denoiser: Denoiser,
    clean: Tensor,
    pinned: Tensor,
    alphas_cumprod: Tensor,
    *,
    prediction: Prediction,
    column_weights: Tensor,
    generator: torch.Generator,
    snr_cap: float = 10.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error over the free entries (Ho et al. 2020, eq. 14, with inpainted conditions).

    Args:
        denoiser: the network.
        clean: trajectories (B, H, D), normalised.
        pinned: (B, H, D) bool; these entries stay clean in the input and do not count in the loss.
        alphas_cumprod: (T,) of the scheduler.
        prediction: what the network says.
        column_weights: (D,) or (H, D) weight of each entry's error.
        generator: source of timesteps and noise.
        snr_cap: an x0 error counts min(SNR + 1, cap) times: as a velocity error would (Salimans & Ho 2022), up to a
            bound (Hang et al. 2023). Plain x0 errors hardly see the low noise levels, where walls are decided.

    Returns:
        The loss and its parts: "loss" and "clean_error", the unweighted error of the clean trajectory.
    """
    noisy, timestep, noise = noised(clean, pinned, alphas_cumprod, generator)
    alpha, sigma = signal_and_noise(alphas_cumprod, timestep)
    output = denoiser(noisy, timestep, pinned).float()
    error = output - regression_target(clean, noise, alpha, sigma, prediction)
    free = (~pinned).float()
    weights = free * column_weights
    if prediction == "x0":
        weights = weights * (1 / sigma.square()).clamp(max=snr_cap)  # SNR + 1 = 1 / sigma^2
    loss = (error.square() * weights).sum() / weights.sum()
    with torch.no_grad():
        guess = predict_clean(output, noisy, alpha, sigma, prediction)
        clean_error = ((guess - clean).square() * free).sum() / free.sum()
    return loss, {"loss": loss.detach(), "clean_error": clean_error}
