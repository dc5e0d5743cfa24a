"""Named settings of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .tasks import Task


@dataclass(frozen=True)
class Preset:
    """Network, windows and noise of a run; None keeps what the task says.

    Args:
        name: as typed after --preset.
        minutes: of training where neither --steps nor --minutes is given.
        horizon: tokens per plan.
        stride: environment steps per token.
        width: channels of the network's first level.
        multipliers: channels of each level as multiples of it.
        noise_levels: training steps of the diffusion.
        octaves: Fourier features of the denoiser's input.
        normalizer: "limits" or "gaussian".
        sampling: defaults of `planner.options.Sampling`.
        actions: "joint" plans them with the states; "inverse" plans states alone, and learned inverse dynamics find the
            actions between them.
        fixed: plans always last the whole horizon, as in Diffuser: windows run on from goal to goal.
        training: settings of `planner.training.TrainConfig`, over the task's own.
    """

    name: str = "default"
    minutes: float | None = None
    horizon: int | None = None
    stride: int | None = None
    width: int | None = None
    multipliers: Sequence[int] | None = None
    noise_levels: int = 32
    octaves: int | None = None
    normalizer: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    fixed: bool = False
    actions: Literal["joint", "inverse"] = "joint"
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.actions not in ("joint", "inverse"):
            raise ValueError(f"unknown actions {self.actions!r}; known: joint, inverse")

    def fit(self, task: Task) -> Task:
        """The task with this preset's windows."""
        spec = task.spec if self.stride is None else replace(task.spec, stride=self.stride)
        return replace(
            task,
            spec=spec,
            horizon=self.horizon or task.horizon,
            minutes=self.minutes or task.minutes,
            width=self.width or task.width,
            multipliers=tuple(self.multipliers or task.multipliers),
            octaves=task.octaves if self.octaves is None else self.octaves,
            normalizer=self.normalizer or task.normalizer,
        )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(),
        Preset("quick", minutes=2.0),
        Preset("gpu", minutes=3.0, width=64, training={"batch_size": 512, "ema_decay": 0.999}),
        Preset(
            "paper",
            stride=1,
            horizon=128,
            multipliers=(1, 4, 8),
            noise_levels=64,
            fixed=True,
            sampling={
                "sampler": "ddpm",
                "steps": 64,
                "warm_steps": 64,
                "temperature": 1.0,
                "candidates": 1,
                "select": "first",
            },
        ),
    )
}


def find_preset(name: str, task: Task | None = None) -> Preset:
    """A preset by name, as a task means it.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name] if task is None else replace(PRESETS[name], **task.presets.get(name, {}))
