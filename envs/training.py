"""Training into run folders, and continuing there."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.options import Sampling
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, Update, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows, check_horizon, consistency, worst_before_arrival

from .datasets import load_episodes, obtain
from .presets import Preset
from .records import write_json
from .runs import STATE, pick_device, read_record, save_planner, versions
from .tasks import Task, find_task

LOG_EVERY = 50  # updates
PICTURES = 8  # of sampled plans, over a whole run


class Interrupted(Exception):
    """Training was stopped from outside, after its state was saved."""


@dataclass(frozen=True)
class Progress:
    """Where a training run stands."""

    stage: Literal["data", "train", "done"]
    fraction: float
    message: str = ""
    update: Update | None = None


def train_run(
    task: Task,
    output: Path,
    config: TrainConfig,
    *,
    preset: Preset,
    dataset: str | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    command: str = "",
) -> Iterator[Progress]:
    """Train a planner into a new folder, yielding progress; missing data is collected first.

    Raises:
        ValueError: the folder holds a run already, or the data, horizon or device do not fit.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    if (output / "run.json").exists():
        raise ValueError(
            f"{str(output)!r} holds a run already; continue it with --resume --output {output}, or name another folder"
        )
    accelerator = _accelerator(output, device)
    task = preset.fit(task)
    yield from _data(task, dataset, accelerator)
    episodes = load_episodes(dataset or task.dataset, task)
    check_horizon(episodes, task.spec, task.horizon)
    record = {
        "task": task.name,
        "dataset": dataset or task.dataset,
        "fingerprint": episodes.fingerprint(),
        "preset": dataclasses.asdict(preset),
        "config": dataclasses.asdict(config),
        "command": command,
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "run.json", record)
    yield from _run(output, task, episodes, config, preset, accelerator, checkpoint_seconds)


def resume_run(
    output: Path,
    *,
    task: Task | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
) -> Iterator[Progress]:
    """Continue a run where its last checkpoint left it; on a CPU the end is bit for bit that of an unbroken run.

    Args:
        output: the run folder.
        task: refuse a run of another task's data.
        steps: a new bound on the updates, in place of the recorded bounds.
        minutes: a new bound on the minutes, likewise.
        device: auto, cpu or cuda.
        checkpoint_seconds: between checkpoints.

    Raises:
        ValueError: no run there, another task's run, a damaged file, or data that has changed since.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    record = read_record(output)
    trained, preset, config = find_task(record["task"]), Preset(**record["preset"]), TrainConfig(**record["config"])
    if task is not None and task.dataset != trained.dataset:
        raise ValueError(
            f"run {str(output)!r} trains {trained.name}, not {task.name}; name that task, or another --output"
        )
    task = preset.fit(trained)
    if steps is not None or minutes is not None:
        config = dataclasses.replace(config, steps=steps, minutes=minutes)
    accelerator = _accelerator(output, device)
    episodes = load_episodes(record["dataset"], task)
    if episodes.fingerprint() != record["fingerprint"]:
        raise ValueError(
            f"dataset {record['dataset']!r} has changed since {str(output)!r} began; restore it, or start a new run"
        )
    yield from _run(output, task, episodes, config, preset, accelerator, checkpoint_seconds)


def _accelerator(output: Path, device: str) -> Accelerator:
    """Hugging Face accelerate's view of the machine: one process here, or one of several under its launcher."""
    place = pick_device(device)
    bf16 = place.type == "cuda" and torch.cuda.is_bf16_supported()
    if "WORLD_SIZE" not in os.environ:  # one process: let a second run choose its own device
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()
    return Accelerator(
        cpu=place.type == "cpu",
        mixed_precision="bf16" if bf16 else "no",
        log_with="tensorboard",
        project_dir=str(output),
    )


def _data(task: Task, dataset: str | None, accelerator: Accelerator) -> Iterator[Progress]:
    if accelerator.is_main_process:
        began = False
        for done, total in obtain(task, dataset):
            message = "" if began else f"dataset {task.dataset} is not here yet: collecting {total:,} steps in MuJoCo"
            began = True
            yield Progress("data", done / total, message)
    accelerator.wait_for_everyone()


def _run(
    output: Path,
    task: Task,
    episodes: Episodes,
    config: TrainConfig,
    preset: Preset,
    accelerator: Accelerator,
    checkpoint_seconds: float,
) -> Iterator[Progress]:
    windows = Windows(episodes, task.spec, horizon=task.horizon, device=accelerator.device)
    with torch.random.fork_rng():  # diffusers' blocks initialise from the global generator
        torch.manual_seed(config.seed)
        model = TemporalUNet(columns=task.spec.width, width=preset.width, multipliers=preset.multipliers)
    model = model.to(accelerator.device)
    normalizer, state = Normalizer.fit(episodes, task.spec, preset.normalizer), TrainState.begin(model, config)
    scheduler = make_scheduler("ddim", train_steps=preset.noise_levels)
    if (output / STATE).exists():
        state.load(output / STATE)
    sampling = Sampling(**{**task.sampling, **preset.sampling})
    planner = TrajectoryPlanner(
        cast(TemporalUNet, state.ema),
        normalizer,
        scheduler,
        spec=task.spec.to_config(),
        horizon=task.horizon,
        task=task.name,
        prediction=config.prediction,
        clip=1.0 if preset.normalizer == "limits" else None,
        consistency_bound=_consistency_bound(windows),
        sampling=dataclasses.asdict(sampling),
    )
    logger = _Logger(accelerator, output, planner, task, config.batch_size)
    save = _Saver(output, state, planner, accelerator, checkpoint_seconds)
    with _Stop() as stop:
        save.now()
        loop = train(state, windows, normalizer, scheduler.alphas_cumprod, config, accelerator=accelerator)
        for update in loop:
            logger.log(update)
            save.when_due()
            if stop.asked:
                save.now()
                raise Interrupted(
                    f"stopped at update {update.step}; continue with: diffplan train {task.name} --resume "
                    f"--output {output}"
                )
            yield Progress("train", update.fraction, update=update)
    save.now()
    accelerator.end_training()
    yield Progress(
        "done", 1.0, f"{state.step:,} updates in {state.seconds / 60:.1f} minutes of training; run folder {output}"
    )


def _consistency_bound(windows: Windows) -> float:
    """What 99% of the data's own windows stay below."""
    sample, _ = windows.sample(4096, torch.Generator(windows.starts.device).manual_seed(0))
    return float(torch.quantile(worst_before_arrival(windows.spec, sample, consistency(windows.spec, sample)), 0.99))


class _Saver:
    """Writes checkpoints atomically, when due."""

    def __init__(
        self, output: Path, state: TrainState, planner: TrajectoryPlanner, accelerator: Accelerator, every: float
    ) -> None:
        self.output, self.state, self.planner, self.accelerator, self.every = output, state, planner, accelerator, every
        self.last = time.monotonic()

    def when_due(self) -> None:
        if time.monotonic() - self.last > self.every:
            self.now()

    def now(self) -> None:
        if self.accelerator.is_main_process:
            self.state.save(self.output / STATE)
            save_planner(self.planner, self.output / "planner")
        self.last = time.monotonic()


class _Logger:
    """TensorBoard through accelerate: numbers every `LOG_EVERY` updates, and a picture of plans now and then."""

    def __init__(
        self, accelerator: Accelerator, output: Path, planner: TrajectoryPlanner, task: Task, batch: int
    ) -> None:
        accelerator.init_trackers("logs")
        self.accelerator, self.planner, self.task = accelerator, planner, task
        self.batch = batch * accelerator.num_processes
        self.seconds, self.step, self.pictures = 0.0, 0, 0

    def log(self, update: Update) -> None:
        if update.step % LOG_EVERY and update.fraction < 1:
            return
        spent, done = update.seconds - self.seconds, update.step - self.step
        self.seconds, self.step = update.seconds, update.step
        values = {k: float(v) for k, v in update.info.items()} | {
            "learning_rate": update.learning_rate,
            "samples_per_second": self.batch * done / max(spent, 1e-9),
        }
        self.accelerator.log(values, step=update.step)
        if self.accelerator.is_main_process and update.fraction * PICTURES >= self.pictures + 1:
            self.pictures = int(update.fraction * PICTURES)
            self._picture(update.step)

    def _picture(self, step: int) -> None:
        from .render import plan_picture
        from .simulators import Simulators

        if not self.task.spec.position:
            return
        with Simulators(self.task, 1) as simulators:
            observations, goals = simulators.reset([0])
        if not goals.size:
            return
        plan = self.planner.plan(self.planner.problem(observations[0].tolist(), goals[0].tolist()))
        picture = plan_picture(
            self.task,
            plan,
            start=observations[0][self.task.spec.position_indices],
            goal=goals[0],
            title=f"update {step}",
        )
        tracker = self.accelerator.get_tracker("tensorboard", unwrap=True)
        tracker.add_image("plans", np.asarray(picture), step, dataformats="HWC")


class _Stop:
    """Turns SIGINT and SIGTERM into a request that the loop honours between updates; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
