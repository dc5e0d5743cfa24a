"""Environment units to network units and back.

Shape letters: S states, D columns of a token.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from .episodes import Episodes, as_tensor, chunks
from .spec import TrajectorySpec

KINDS = ("limits", "gaussian")


class Normalizer(ModelMixin, ConfigMixin):
    """An affine map per column, its statistics kept as buffers so that they are saved beside the weights.

    Args:
        columns: D.
        kind: "limits" maps each column's range to [-1, 1], "gaussian" to mean 0 and deviation 1.
    """

    center: Tensor
    scale: Tensor

    @register_to_config
    def __init__(self, columns: int, kind: str = "limits") -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"unknown normalizer {kind!r}; known: {', '.join(KINDS)}")
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    @classmethod
    def fit(cls, episodes: Episodes, spec: TrajectorySpec, kind: str = "limits") -> Normalizer:
        """From all states of a dataset. A column that never changes is only shifted, not scaled."""
        widths = episodes.actions.shape[1], episodes.observations.shape[1]
        if sum(widths) != spec.width - 1:
            raise ValueError(
                f"the data has {widths[0]} action and {widths[1]} observation columns, "
                f"the spec {len(spec.action_names)} and {len(spec.observation_names)}"
            )
        made = cls(spec.width, kind=kind)
        if kind == "limits":
            low = functools.reduce(torch.minimum, (rows.amin(0) for rows in _rows(episodes)))
            high = functools.reduce(torch.maximum, (rows.amax(0) for rows in _rows(episodes)))
            center, scale = (high + low) / 2, (high - low) / 2
        else:
            states = len(episodes.observations)
            center = functools.reduce(torch.add, (rows.sum(0) for rows in _rows(episodes))) / states
            squares = (rows.sub_(center).square_().sum(0) for rows in _rows(episodes))
            scale = (functools.reduce(torch.add, squares) / (states - 1)).sqrt()
        made.center[:-1] = center
        made.scale[:-1] = torch.where(scale > 1e-6, scale, 1.0)
        return made

    def normalize(self, trajectory: Tensor) -> Tensor:
        """Environment units (..., D) to network units."""
        return (trajectory - self.center) / self.scale

    def denormalize(self, trajectory: Tensor) -> Tensor:
        """Network units (..., D) to environment units."""
        return trajectory * self.scale + self.center

    def forward(self, trajectory: Tensor) -> Tensor:
        return self.normalize(trajectory)


def _rows(episodes: Episodes) -> Iterator[Tensor]:
    """All states, chunk by chunk, (n, D - 1) in double precision: actions, then observations.

    Each lies where the one before it lay: allocators keep what large tensors leave behind.
    """
    parts = list(chunks(len(episodes.observations)))
    both = as_tensor(episodes.actions), as_tensor(episodes.observations)
    rows = torch.empty(parts[0].stop, sum(part.shape[1] for part in both), dtype=torch.float64)
    for part in parts:
        size = part.stop - part.start
        yield torch.cat([each[part] for each in both], dim=1, out=rows[:size])
