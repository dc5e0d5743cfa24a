"""Run folders: training into them, continuing them, and finding the planner to use.

runs/maze2d-umaze-20260131-101500/
    run.json                      what was asked for: task, data, settings, seed, versions, the exact command
    planner/                      the averaged weights, as `TrajectoryPlanner.from_pretrained` reads them
    training_state.safetensors    everything that --resume needs
    logs/                         TensorBoard
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.pipeline import Sampling, TrajectoryPlanner, check_files
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, TrainState, Update, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows, check_horizon, consistency, worst_before_arrival

from .datasets import load_episodes, obtain
from .presets import Preset
from .tasks import Task, find_task

RUNS = Path("runs")
SHIPPED = Path(__file__).parent / "assets" / "maze2d-umaze"
STATE = "training_state.safetensors"
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


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    names = (
        "diffplan",
        "torch",
        "diffusers",
        "accelerate",
        "gymnasium",
        "gymnasium-robotics",
        "mujoco",
        "minari",
        "numpy",
    )
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def exact_command() -> str:
    """The command line that is running."""
    name = Path(sys.argv[0]).name
    return shlex.join([name if name != "main.py" else "diffplan", *sys.argv[1:]])


# ---------------------------------------------------------------------- finding planners


def find_run(run: str | Path | None = None, *, root: Path = RUNS) -> Path:
    """The planner folder that RUN names; without one the newest run's, or else the one that ships with diffplan.

    Raises:
        ValueError: the folder does not exist, is empty, or holds no planner.
    """
    if run is None:
        made = [p for p in root.glob("*/run.json") if (p.parent / "planner" / "model_index.json").is_file()]
        newest = max(made, key=lambda p: p.stat().st_mtime, default=None)
        return newest.parent / "planner" if newest else SHIPPED
    path = Path(run)
    if not path.exists():
        raise ValueError(
            f"run folder {str(path)!r} does not exist; runs here: "
            f"{', '.join(sorted(str(p.parent) for p in root.glob('*/run.json'))) or 'none'}"
        )
    if not path.is_dir() or not any(path.iterdir()):
        raise ValueError(
            f"run {str(path)!r} is {'empty' if path.is_dir() else 'no folder'}; train one with: diffplan train TASK"
        )
    inner = path / "planner" if (path / "planner").is_dir() else path
    check_files(inner)
    return inner


def load_planner(
    run: str | Path | None = None, *, device: str = "auto", task: str | None = None
) -> tuple[TrajectoryPlanner, Task]:
    """The planner of a run on a device, and its task, or another task of the same data and columns.

    Raises:
        ValueError: no such run, a damaged file, or a task that the run was not trained for.
    """
    folder = find_run(run)
    planner = TrajectoryPlanner.from_pretrained(folder)
    trained = find_task(planner.task)
    wanted = trained if task is None else find_task(task)
    if (wanted.dataset, wanted.spec.observation_names) != (trained.dataset, trained.spec.observation_names):
        raise ValueError(
            f"run {str(folder)!r} was trained for {trained.name}, not for {wanted.name}; "
            f"train one with: diffplan train {wanted.name}"
        )
    return planner.to(pick_device(device)), wanted


def pick_device(device: str) -> torch.device:
    """auto, cpu or cuda as a torch device.

    Raises:
        ValueError: cuda without a GPU, or an unknown name.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for and PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


# ---------------------------------------------------------------------- training


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
        _write(output / "run.json", record)
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


def read_record(output: Path) -> dict[str, Any]:
    """run.json of a run folder.

    Raises:
        ValueError: it is missing or damaged; the message names the file.
    """
    path = output / "run.json"
    if not path.is_file():
        raise ValueError(
            f"{str(output)!r} holds no run to continue (no run.json); start one with: "
            f"diffplan train TASK --output {output}"
        )
    try:
        record = json.loads(path.read_text())
        return {key: record[key] for key in ("task", "dataset", "fingerprint", "preset", "config")} | record
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); the run cannot be continued") from error


def newest_run(task: Task, *, root: Path = RUNS) -> Path:
    """The newest run folder of a task, for --resume without a folder."""
    made = [p for p in root.glob("*/run.json") if read_record(p.parent)["task"] == task.name]
    if not made:
        raise ValueError(f"no run of {task.name} under {root}/ to continue; start one with: diffplan train {task.name}")
    return max(made, key=lambda p: p.stat().st_mtime).parent


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


def save_planner(planner: TrajectoryPlanner, folder: Path, *, half: bool = False) -> None:
    """`save_pretrained`, each file moved into place when it is whole.

    Args:
        planner: what to save.
        folder: where.
        half: store the network in half precision; it is read back in single.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as scratch:
        planner.save_pretrained(scratch, safe_serialization=True)
        if half:
            _halve(Path(scratch) / "denoiser" / "diffusion_pytorch_model.safetensors")
        for file in sorted(p for p in Path(scratch).rglob("*") if p.is_file()):
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def _halve(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


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
        import numpy as np

        from .render import plan_picture
        from .simulators import Simulators

        if not self.task.spec.position:
            return
        with Simulators(self.task, 1) as simulators:
            observations, goals = simulators.reset([0])
        if not goals.size:
            return
        plan = self.planner.plan(self.planner.problem(observations[0].tolist(), goals[0].tolist()))
        columns = [self.task.spec.observation_names.index(n) for n in self.task.spec.position]
        picture = plan_picture(self.task, plan, start=observations[0][columns], goal=goals[0], title=f"update {step}")
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


def _write(path: Path, record: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, path)
