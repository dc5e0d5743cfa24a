"""What a training run takes, measured in a process of its own."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from diffplan.envs.datasets import load_episodes
from diffplan.envs.presets import Preset
from diffplan.envs.tasks import Task, find_task
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising
from diffplan.planner.plant import Plant
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows

from .memory import Peak, memory_mib
from .synthetic import store_points

WARM_UP = 3  # updates that are not timed


@dataclass(frozen=True)
class Job:
    """A training run.

    Args:
        folder: of datasets, as Minari has one.
        dataset: in it.
        steps: of the data.
        updates: of the denoiser.
        task: whose planner is trained.
    """

    folder: str
    dataset: str
    steps: int
    updates: int
    task: str = "multi2d-umaze"


def write_data(job: Job) -> dict[str, Any]:
    """Make the data, and say what that took."""
    began, before = time.perf_counter(), memory_mib()["anonymous"]
    with Peak() as peak:
        store_points(Path(job.folder), job.dataset, job.steps)
    grown = peak.mib["anonymous"] - before
    return {"seconds_writing": round(time.perf_counter() - began, 2), "mib_writing": round(grown, 1)}


def train_on_data(job: Job) -> dict[str, Any]:
    """Train the denoiser for some updates on a CPU, on data as `diffplan train` looks at it, and say what that took.

    Returns:
        Seconds until training can begin and of an update (median), and the most memory in use, in MiB: anonymous, and
        with the pages of mapped files.
    """
    os.environ["MINARI_DATASETS_PATH"] = job.folder
    task, config = find_task(job.task), TrainConfig(steps=WARM_UP + job.updates)
    began = time.perf_counter()
    with Peak() as peak:
        episodes = load_episodes(job.dataset, task)
        episodes.fingerprint()
        windows = Windows(episodes, task.spec, horizon=task.horizon)
        normalizer, plant = Normalizer.fit(episodes, task.spec, task.normalizer), Plant.of(episodes, task.spec)
        ready, stamps = time.perf_counter() - began, []
        levels = make_scheduler("ddim", train_steps=Preset().noise_levels).alphas_cumprod
        network = fresh_network(task)
        objective = denoising(windows, normalizer, levels, config)
        for update in train(TrainState.begin(network, config), objective, config, accelerator=Accelerator(cpu=True)):
            stamps.append(update.seconds)
    return {
        "seconds_to_begin": ready,
        "seconds": statistics.median(b - a for a, b in itertools.pairwise(stamps[WARM_UP - 1 :])),
        "mib_anonymous": peak.mib["anonymous"],
        "mib_total": peak.mib["total"],
        "plant": plant is not None,
    }


def fresh_network(task: Task) -> TemporalUNet:
    """A task's denoiser as training begins with it."""
    sizes: dict[str, Any] = {"width": task.width, "multipliers": task.multipliers, "octaves": task.octaves}
    return TemporalUNet(task.spec.width, **sizes)
