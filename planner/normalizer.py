"""Environment units to network units and back.

Shape letters: S states, D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable

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
            low = _each(episodes, lambda rows: rows.amin(0)).amin(0)
            high = _each(episodes, lambda rows: rows.amax(0)).amax(0)
            center, scale = (high + low) / 2, (high - low) / 2
        else:
            states = len(episodes.observations)
            center = _each(episodes, lambda rows: rows.sum(0)).sum(0) / states
            squares = _each(episodes, lambda rows: (rows - center).square().sum(0)).sum(0)
            scale = (squares / (states - 1)).sqrt()
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


def _each(episodes: Episodes, look: Callable[[Tensor], Tensor]) -> Tensor:
    """What is seen in each chunk of the states, a row (D - 1,) each: actions, then observations."""
    both = episodes.actions, episodes.observations
    return torch.stack(
        [
            look(torch.cat([as_tensor(array[part]) for array in both], dim=1).double())
            for part in chunks(len(episodes.observations))
        ]
    )
