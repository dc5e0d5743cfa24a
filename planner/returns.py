"""The return model: how much reward a noisy window will have earned.

Shape letters: B batch, H horizon (tokens), D columns of a token, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# ModelMixin must be a name of this module: diffusers finds the loader of a saved component by it.
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample1D, ResidualTemporalBlock1D
from torch import Tensor, nn
from torch.nn import functional as F

from .diffusion import noised
from .normalizer import Normalizer
from .objectives import draw_pins
from .unet import fourier_features
from .windows import Windows


class ReturnModel(ModelMixin, ConfigMixin):
    """Discounted return of a window, read from its noisy state (Janner et al. 2022, section 3.2; J in algorithm 1).

    The first half of a temporal U-Net, pooled over time: once evenly, once with the discount's own weights, so that
    it matters when something happens. Any horizon will do.

    Args:
        columns: D, the width of a token.
        discount: per environment step.
        stride: environment steps per token.
        width: channels of the first level.
        multipliers: channels of each level as multiples of `width`; each level but the last halves time.
        kernel_size: of the temporal convolutions, odd.
        octaves: Fourier features of the input (see `unet`).

    Raises:
        ValueError: the discount does not lie between 0 and 1, or a level's channels are no multiple of 8.
    """

    center: Tensor
    scale: Tensor

    @register_to_config
    def __init__(
        self,
        columns: int,
        *,
        discount: float = 0.99,
        stride: int = 1,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        kernel_size: int = 5,
        octaves: int = 2,
    ) -> None:
        super().__init__()
        channels = [width * m for m in multipliers]
        if not 0 < discount < 1:
            raise ValueError(f"discount={discount} must lie between 0 and 1, both excluded")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        if not channels or columns < 1 or stride < 1 or octaves < 0 or any(c < 8 or c % 8 for c in channels):
            raise ValueError(f"columns={columns}, stride={stride}, octaves={octaves}, channels {channels} do not do")
        embed = 4 * width
        self.octaves, self.keep = octaves, discount**stride
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, embed, act_fn="mish", out_dim=embed)
        ins = [(2 + 2 * octaves) * columns, *channels[:-1]]
        self.blocks = nn.ModuleList(
            ResidualTemporalBlock1D(a, b, embed, kernel_size) for a, b in zip(ins, channels, strict=True)
        )
        self.shrink = nn.ModuleList(Downsample1D(c, use_conv=True) for c in channels[:-1])
        self.head = nn.Sequential(nn.Linear(2 * channels[-1] + embed, embed), nn.Mish(), nn.Linear(embed, 1))
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, sample: Tensor, timestep: Tensor, pinned: Tensor | None = None) -> Tensor:
        """The return in standard deviations of the data's returns, 0 for their mean.

        Args:
            sample: noisy trajectories (B, H, D), normalised.
            timestep: (B,) or a scalar, the training timestep of each.
            pinned: mask (B, H, D) of given entries; None means nothing is given.

        Returns:
            (B,).
        """
        given = torch.zeros_like(sample) if pinned is None else pinned.to(sample.dtype).expand_as(sample)
        x = fourier_features(sample, given, self.octaves).transpose(1, 2)
        t = self.time_embedding(self.time_proj(timestep.expand(len(sample))).to(x.dtype))
        fade = self.keep ** torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
        for index, block in enumerate(self.blocks):
            x = block(x, t)
            if index < len(self.shrink):
                odd = x.shape[-1] % 2
                x = self.shrink[index](F.pad(x, (0, odd), mode="replicate") if odd else x)
                fade = fade[::2]
        pooled = [x.mean(-1), (x * (fade / fade.sum())).sum(-1), t]
        return self.head(torch.cat(pooled, dim=-1)).squeeze(-1)

    def standardize(self, returns: Tensor) -> Tensor:
        """Returns in reward units to what the network says."""
        return (returns - self.center) / self.scale

    def in_reward_units(self, output: Tensor) -> Tensor:
        """Inverse of `standardize`."""
        return output * self.scale + self.center

    def fit_scale(self, windows: Windows, *, samples: int = 8192) -> None:
        """Take mean and deviation of the returns from data."""
        generator = torch.Generator(windows.device).manual_seed(0)
        returns = windows.returns(*windows.draw(samples, generator))
        self.center.copy_(returns.mean())
        self.scale.copy_(returns.std().clamp(min=1e-6))


class Calibration(NamedTuple):
    """Predicted against true returns of held-out windows at one noise level.

    Attributes:
        timestep: training timestep; None for windows without any noise.
        r2: share of the true returns' variance that is explained; 1 is perfect, 0 is their mean.
        predicted, true: (n,) in reward units.
    """

    timestep: int | None
    r2: float
    predicted: Tensor
    true: Tensor


@torch.no_grad()
def calibrate(
    model: ReturnModel,
    windows: Windows,
    normalizer: Normalizer,
    alphas_cumprod: Tensor,
    *,
    samples: int = 2048,
    seed: int = 0,
) -> list[Calibration]:
    """How true the model is, without noise and at each noise level, on windows that it was not trained on."""
    device = windows.device
    generator = torch.Generator(device).manual_seed(seed)
    first, length = windows.draw(samples, generator)
    clean, true = normalizer.normalize(windows.window(first, length)), windows.returns(first, length)
    pinned = draw_pins(windows.spec, length, windows.horizon, generator)
    rows = []
    for level in (None, *range(len(alphas_cumprod))):
        t = torch.full((samples,), level or 0, device=device)
        noisy = clean if level is None else noised(clean, pinned, alphas_cumprod, generator, t)[0]
        said = model.in_reward_units(model(noisy, t, pinned).float())
        r2 = 1 - (said - true).square().mean() / true.var(correction=0).clamp(min=1e-12)
        rows.append(Calibration(level, float(r2), said.cpu(), true.cpu()))
    return rows
