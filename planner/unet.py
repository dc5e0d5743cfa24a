"""The temporal U-Net: a denoiser of whole trajectories, made of diffusers' one-dimensional blocks.

Shape letters: B batch, H horizon (tokens), D columns of a token, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# ModelMixin must be a name of this module: diffusers finds the loader of a saved component by it.
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample1D, ResidualTemporalBlock1D, Upsample1D
from torch import Tensor, nn
from torch.nn import functional as F

from .constants import constant


class TemporalUNet(ModelMixin, ConfigMixin):
    """U-Net over time after Janner et al. 2022 (Diffuser, appendix C), for any horizon.

    The input is the noisy trajectory beside the mask of its pinned entries, so the network knows which values are
    given and which it has to find. What is given of the first and the last token, start and goal above all, also
    reaches every block beside the timestep: a route depends on both of its ends at once. Horizons that the
    down-sampling does not divide are padded by repeating the last token and cropped again.

    Args:
        columns: D, the width of a token.
        width: channels of the first level.
        multipliers: channels of each level as multiples of `width`; each level but the last halves time.
        blocks: residual blocks per level and direction.
        kernel_size: of the temporal convolutions, odd.
        octaves: Fourier features of the input, sin and cos of pi 2^k x for k below this (Variational Diffusion Models,
            Kingma et al. 2021, appendix C): they let a small network tell which side of a wall a point is on.
        anchored: columns of which what is given of the first token is added to the output at every token, so that the
            network says how far a trajectory strays from where it begins: what stays put (an object that nobody
            touches) is free. For networks that predict x0.

    Raises:
        ValueError: a size is not positive, or a level's channels are no multiple of 8 (its norm groups).
    """

    @register_to_config
    def __init__(
        self,
        columns: int,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        kernel_size: int = 5,
        octaves: int = 4,
        anchored: Sequence[int] = (),
    ) -> None:
        super().__init__()
        channels = [width * m for m in multipliers]
        if columns < 1 or blocks < 1 or not channels or octaves < 0:
            raise ValueError(
                f"columns={columns}, blocks={blocks}, multipliers={multipliers}, octaves={octaves}: must be positive"
            )
        if any(c < 8 or c % 8 for c in channels):
            raise ValueError(f"channels {channels} of the levels must be positive multiples of 8; change width")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        embed = 4 * width
        self.time_proj = Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(width, embed, act_fn="mish", out_dim=embed)
        features = (2 + 2 * octaves) * columns
        self.ends = nn.Sequential(nn.Linear(2 * features, embed), nn.Mish(), nn.Linear(embed, embed))
        self.octaves, self.factor = octaves, 2 ** (len(channels) - 1)
        if not all(0 <= c < columns for c in anchored):
            raise ValueError(f"anchored columns {list(anchored)} must lie below {columns}")
        self.anchors = sorted(set(anchored))

        def level(into: int, out: int) -> nn.ModuleList:
            sizes = [into] + [out] * blocks
            pairs = zip(sizes, sizes[1:], strict=False)
            return nn.ModuleList(ResidualTemporalBlock1D(a, b, embed, kernel_size) for a, b in pairs)

        ins = [features, *channels[:-1]]
        self.down = nn.ModuleList(level(a, b) for a, b in zip(ins, channels, strict=True))
        self.shrink = nn.ModuleList(Downsample1D(c, use_conv=True) for c in channels[:-1])
        self.middle = level(channels[-1], channels[-1])
        pairs = list(zip(channels[::-1], channels[-2::-1], strict=False))
        self.grow = nn.ModuleList(Upsample1D(a, use_conv_transpose=True) for a, _ in pairs)
        self.up = nn.ModuleList(level(a + b, b) for a, b in pairs)
        self.head = nn.Sequential(
            nn.Conv1d(width * multipliers[0], width, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(8, width),
            nn.Mish(),
            nn.Conv1d(width, columns, 1),
        )

    def forward(self, sample: Tensor, timestep: Tensor, pinned: Tensor | None = None) -> Tensor:
        """The network's raw prediction.

        Args:
            sample: noisy trajectories (B, H, D), normalised.
            timestep: (B,) or a scalar, the training timestep of each.
            pinned: mask (B, H, D) of given entries; None means nothing is given.

        Returns:
            (B, H, D): clean trajectory, noise or velocity, as the run was trained.
        """
        horizon = sample.shape[1]
        given = torch.zeros_like(sample) if pinned is None else pinned.to(sample.dtype).expand_as(sample)
        dtype = cast(nn.Linear, self.ends[0]).weight.dtype  # a network of half precision is asked in single
        x = fourier_features(sample, given, self.octaves).transpose(1, 2).to(dtype)  # (B, 2D + 2D octaves, H)
        padding = math.ceil(horizon / self.factor) * self.factor - horizon
        x = F.pad(x, (0, padding), mode="replicate") if padding else x
        t = self.time_embedding(self.time_proj(timestep.expand(len(sample))).to(x.dtype))
        first, last = (fourier_features(sample[:, i] * given[:, i], given[:, i], self.octaves) for i in (0, -1))
        t = t + self.ends(torch.cat([first, last], dim=1).to(dtype))  # what is given of the first and the last token
        skips, shifts = [], iter(self._shifts(t))
        for index, blocks in enumerate(self.down):
            x = _through(blocks, x, shifts)
            if index < len(self.shrink):
                skips.append(x)
                x = self.shrink[index](x)
        x = _through(self.middle, x, shifts)
        for grow, blocks in zip(self.grow, self.up, strict=True):
            x = _through(blocks, torch.cat([grow(x), skips.pop()], dim=1), shifts)
        made: Tensor = self.head(x)[:, :, :horizon].transpose(1, 2).to(sample.dtype)
        if self.anchors:
            anchored = constant([float(c in self.anchors) for c in range(made.shape[-1])], made)
            made = made + (sample * given)[:, :1] * anchored
        return made


    def _shifts(self, t: Tensor) -> Sequence[Tensor]:
        """What each block adds for a time embedding (B, E), each (B, C, 1), in the order in which they are met.

        In one product: as many small ones as there are blocks take longer than the blocks' convolutions.
        """
        levels = [*self.down, self.middle, *self.up]
        maps = [cast(nn.Linear, block.time_emb) for blocks in levels for block in cast(nn.ModuleList, blocks)]
        weight, bias = torch.cat([m.weight for m in maps]), torch.cat([m.bias for m in maps])
        return F.linear(F.mish(t), weight, bias).unsqueeze(-1).split([m.out_features for m in maps], dim=1)


def fourier_features(values: Tensor, given: Tensor, octaves: int) -> Tensor:
    """Values (..., D) beside their mask and sin and cos of pi 2^k values, (..., 2D + 2D octaves)."""
    if octaves == 0:
        return torch.cat([values, given], dim=-1)
    turns = constant([math.pi * 2**k for k in range(octaves)], values)
    angles = values.unsqueeze(-2) * turns[:, None]  # (..., octaves, D)
    waves = torch.stack([angles.sin(), angles.cos()], dim=-2)  # of each octave the sines, then the cosines
    return torch.cat([values, given, waves.flatten(-3)], dim=-1)


def _through(blocks: Any, x: Tensor, shifts: Iterator[Tensor]) -> Tensor:
    """Residual blocks, as their own `forward` has them but for the shifts, which are made for all blocks at once."""
    for block in blocks:
        inner = _convolved(block.conv_in, x) + next(shifts)
        x = _convolved(block.conv_out, inner) + block.residual_conv(x)
    return x


def _convolved(block: Any, x: Tensor) -> Tensor:
    return F.mish(block.group_norm(block.conv1d(x)))
