"""What a training run is asked to do: made of a task and settings, or read from a run folder's record."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from diffplan.planner.episodes import Episodes
from diffplan.planner.training import TrainConfig

from .datasets import load_episodes
from .presets import Preset
from .runs import pick_device, read_record
from .tasks import Task, task_of

RETURNS_SHARE = 0.1  # of the minutes, where both parts are trained


@dataclass(frozen=True)
class Job:
    """A run with everything that it needs.

    `returns` is None where there is no return model to train; `distilled` if the denoiser learns from another planner.
    """

    output: Path
    task: Task
    episodes: Episodes
    preset: Preset
    denoiser: TrainConfig
    returns: TrainConfig | None
    accelerator: Accelerator
    checkpoint_seconds: float
    distilled: bool = False

    @property
    def again(self) -> str:
        """The command that continues it."""
        return f"diffplan {'distill' if self.distilled else f'train {self.task.name}'} --resume --output {self.output}"


def recorded(output: Path, task: Task | None, device: str, checkpoint_seconds: float) -> Job:
    """The job that a run folder's record describes."""
    record = read_record(output)
    trained, preset = task_of(record), Preset(**record["preset"])
    if task is not None and trained.name == task.name and trained.record() != task.record():
        raise ValueError(
            f"run {str(output)!r} trains {trained.name} on another map; leave --map out to go on with its own "
            f"(diffplan train {trained.name} --resume --output {output}), or name another --output"
        )
    if task is not None and task.dataset != trained.dataset:
        raise ValueError(
            f"run {str(output)!r} trains {trained.name}, not {task.name}; name that task, or another --output"
        )
    fitted, accelerator = preset.fit(trained), accelerator_for(output, device)
    episodes = load_episodes(record["dataset"], fitted)
    if episodes.fingerprint() != record["fingerprint"]:
        raise ValueError(
            f"dataset {record['dataset']!r} has changed since {str(output)!r} began; restore it, or start a new run"
        )
    denoiser, returns = TrainConfig(**record["config"]), record.get("returns")
    returns = TrainConfig(**returns) if returns else None
    return Job(
        output,
        fitted,
        episodes,
        preset,
        denoiser,
        returns,
        accelerator,
        checkpoint_seconds,
        distilled="distilled_from" in record,
    )


def rewarded(episodes: Episodes) -> bool:
    """Whether there are returns to learn, and episodes to hold out."""
    return episodes.rewards is not None and len(episodes) > 1


def shares(config: TrainConfig, both: bool) -> tuple[TrainConfig, TrainConfig | None]:
    """What each part is to do: minutes are divided, updates are not."""
    if not both or config.minutes is None:
        return config, config if both else None
    own = config.minutes * RETURNS_SHARE
    return replace(config, minutes=config.minutes - own), replace(config, minutes=own)


def fast_in_half(device: torch.device) -> bool:
    """Whether bfloat16 pays: on GPUs that have it, and on CPUs that have tiles for it (elsewhere it is slower)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def accelerator_for(output: Path, device: str) -> Accelerator:
    """Hugging Face accelerate's view of the machine: one process here, or one of several under its launcher."""
    place = pick_device(device)
    precision: str | None = "bf16" if fast_in_half(place) else "no"
    if "ACCELERATE_MIXED_PRECISION" in os.environ:  # its launcher was told
        precision = None
    if "WORLD_SIZE" not in os.environ:  # one process: let a second run choose its own device
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
    return Accelerator(
        cpu=place.type == "cpu",
        mixed_precision=precision,
        log_with="tensorboard",
        project_dir=str(output),
    )
