"""What networks are trained to say: clean windows, and their returns.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .diffusion import denoising_loss, noised
from .normalizer import Normalizer
from .spec import TrajectorySpec
from .training import Objective, TrainConfig
from .windows import Windows


def denoising(windows: Windows, normalizer: Normalizer, alphas_cumprod: Tensor, config: TrainConfig) -> Objective:
    """To predict clean windows from noisy ones (see `diffusion.denoising_loss`)."""
    device = windows.device
    normalizer, alphas_cumprod = normalizer.to(device), alphas_cumprod.to(device)
    weights = entry_weights(windows.spec, windows.horizon, config, state_only=windows.state_only).to(device)

    def objective(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        clean, length = windows.sample(config.batch_size, generator)
        return denoising_loss(
            model,
            normalizer.normalize(clean),
            draw_pins(windows.spec, length, windows.horizon, generator, state_only=windows.state_only),
            alphas_cumprod,
            prediction=config.prediction,
            column_weights=weights,
            generator=generator,
        )

    return objective


def predicting_returns(
    windows: Windows,
    normalizer: Normalizer,
    alphas_cumprod: Tensor,
    config: TrainConfig,
    *,
    standardize: Callable[[Tensor], Tensor],
) -> Objective:
    """To predict the return of windows from their noisy states, as they look while plans are sampled.

    The model is called with noisy windows (B, H, D), timesteps (B,) and the mask of what is pinned, and answers
    standardised returns (B,).
    """
    device = windows.device
    normalizer, alphas_cumprod = normalizer.to(device), alphas_cumprod.to(device)

    def objective(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        first, length = windows.draw(config.batch_size, generator)
        clean = normalizer.normalize(windows.window(first, length))
        pinned = draw_pins(windows.spec, length, windows.horizon, generator, state_only=windows.state_only)
        noisy, timestep, _ = noised(clean, pinned, alphas_cumprod, generator)
        target = standardize(windows.returns(first, length))
        loss = (model(noisy, timestep, pinned).float() - target).square().mean()
        explained = 1 - loss.detach() / target.var().clamp(min=1e-6)
        return loss, {"return_loss": loss.detach(), "return_r2": explained}

    return objective


def entry_weights(spec: TrajectorySpec, horizon: int, config: TrainConfig, *, state_only: bool = False) -> Tensor:
    """(H, D) weight of each entry in the loss; of states alone the second stands for the first action."""
    weights = torch.ones(horizon, spec.width)
    weights[:, spec.actions] = config.action_weight
    if config.first_action_weight is not None:
        weights[0, spec.actions] = config.first_action_weight
        if state_only:
            weights[1, spec.observations] = config.first_action_weight
    return weights * config.token_discount ** torch.arange(horizon)[:, None]


def draw_pins(
    spec: TrajectorySpec, length: Tensor, horizon: int, generator: torch.Generator, *, state_only: bool = False
) -> Tensor:
    """Random questions for a batch, (B, H, D) bool, so that every question asked later is in distribution.

    The start always; the end's position and arrival mostly, its velocity sometimes; a waypoint, all actions or all
    states now and then. Tasks whose goal is about no column are asked with the end free. Where windows show states
    alone, actions are always pinned (to zero), as they are when such plans are asked for.
    """
    batch, device = len(length), length.device
    chance = torch.rand(5, batch, generator=generator, device=device)
    token = (torch.rand(batch, generator=generator, device=device) * horizon).long()
    pins = torch.zeros(batch, horizon, spec.width, dtype=torch.bool, device=device)
    pins[:, 0, spec.observations] = True
    if spec.position:
        end = chance[0] < 0.9
        pins[:, -1, spec.arrived] = end
        way = (torch.arange(horizon, device=device) == token[:, None]) & (chance[2] < 0.1)[:, None]  # (B, H)
        for column in spec.velocity_columns:
            pins[:, -1, column] = end & (chance[1] < 0.2)
        for column in spec.position_columns:
            pins[:, -1, column] = end
            pins[:, :, column] |= way
    pins[:, :, spec.actions] |= (chance[3] < 0.05)[:, None, None] | state_only
    pins[:, :, spec.observations] |= (chance[4] < 0.05)[:, None, None]
    return pins
