"""Training into run folders, and continuing there: inverse dynamics where asked for, the denoiser, the return model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from accelerate import Accelerator
from torch import nn

from diffplan.planner.episodes import Episodes
from diffplan.planner.inverse import InverseDynamics, predicting_actions
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising, predicting_returns
from diffplan.planner.options import Sampling
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plant import Plant
from diffplan.planner.returns import ReturnModel
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import Objective, TrainConfig, TrainState, Update, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows, check_horizon, consistency, worst_before_arrival

from .calibration import report_calibration
from .checkpoints import Interrupted, Saver, Stop
from .datasets import dataset_of, load_episodes, obtain
from .jobs import RETURNS_SHARE, Job, accelerator_for, recorded, rewarded, shares
from .logs import Logger
from .presets import Preset
from .records import write_json
from .runs import INVERSE_STATE, RETURNS_STATE, STATE, read_record, versions
from .tasks import Task

Only = Literal["denoiser", "returns"]
Part = Literal["denoiser", "returns", "inverse"]

HELD_OUT = 0.05  # share of the episodes that the return model does not see
INVERSE_UPDATES, INVERSE_BATCH = 4000, 256  # some ten seconds on a CPU


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
    only: Only | None = None,
    dataset: str | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    command: str = "",
) -> Iterator[Progress]:
    """Train a planner into a new folder, yielding progress; missing data is collected first.

    Args:
        task: what to plan.
        output: the run folder.
        config: bounds and settings. Minutes are shared between the two parts; updates count for each of them.
        preset: network and windows.
        only: "denoiser" leaves the return model out; "returns" trains that alone, for the run in `output`.
        dataset: a Minari id instead of the task's own.
        device: auto, cpu or cuda.
        checkpoint_seconds: between checkpoints.
        command: to be recorded.

    Raises:
        ValueError: the folder holds a run already (or none, for "returns"), or the data, horizon or device do not fit.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    if only not in (None, *get_args(Only)):
        raise ValueError(f"unknown part {only!r}; known: {', '.join(get_args(Only))}")
    if only == "returns":
        yield from _returns_alone(task, output, config, device=device, checkpoint_seconds=checkpoint_seconds)
        return
    check_free(output)
    accelerator = accelerator_for(output, device)
    task = preset.fit(task)
    yield from fetch(task, dataset, accelerator)
    dataset = dataset or dataset_of(task)
    episodes = load_episodes(dataset, task)
    check_horizon(_shown(episodes, task, preset), task.spec, task.horizon)
    denoiser, returns = shares(config, only is None and rewarded(episodes))
    job = Job(output, task, episodes, preset, denoiser, returns, accelerator, checkpoint_seconds)
    open_folder(job, dataset=dataset, command=command)
    yield from _run(job)


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
        ValueError: no run there, another task's or a distilled one, a damaged file, or data that has changed since.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    _check_trained(output)
    job = recorded(output, task, device, checkpoint_seconds)
    if steps is not None or minutes is not None:
        denoiser, returns = shares(replace(job.denoiser, steps=steps, minutes=minutes), job.returns is not None)
        job = replace(job, denoiser=denoiser, returns=returns)
    yield from _run(job)


def _returns_alone(
    task: Task, output: Path, config: TrainConfig, *, device: str, checkpoint_seconds: float
) -> Iterator[Progress]:
    """A return model for a run that has a denoiser; one that was there is replaced."""
    _check_trained(output)
    job = recorded(output, task, device, checkpoint_seconds)
    if not rewarded(job.episodes):
        raise ValueError(f"the data of {job.task.name} has no rewards to learn returns from (or a single episode)")
    if not (output / STATE).is_file():
        raise ValueError(f"{str(output)!r} has no denoiser yet; finish it with --resume --output {output}")
    job = replace(job, returns=config)
    if job.accelerator.is_main_process:
        (output / RETURNS_STATE).unlink(missing_ok=True)
        write_json(output / "run.json", read_record(output) | {"returns": dataclasses.asdict(config)})
    yield from _run(job, only="returns")


def check_free(output: Path) -> None:
    """Refuse a folder that holds a run."""
    if (output / "run.json").exists():
        raise ValueError(
            f"{str(output)!r} holds a run already; continue it with --resume --output {output}, or name another folder"
        )


def _check_trained(output: Path) -> None:
    """Refuse a run that was not trained but distilled."""
    if "distilled_from" in read_record(output):
        raise ValueError(
            f"run {str(output)!r} is distilled, not trained; continue it with: diffplan distill --resume "
            f"--output {output}, or name another folder"
        )


def open_folder(job: Job, *, dataset: str, command: str, **more: Any) -> None:
    """Begin a run's folder: its record says what was asked for, and `more`."""
    record = {
        **job.task.record(),
        "dataset": dataset,
        "fingerprint": job.episodes.fingerprint(),
        "preset": dataclasses.asdict(job.preset),
        "config": dataclasses.asdict(job.denoiser),
        "returns": job.returns and dataclasses.asdict(job.returns),
        "command": command,
        "device": job.accelerator.device.type,
        "precision": job.accelerator.mixed_precision,
        "cpu_threads": torch.get_num_threads(),
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }
    if job.accelerator.is_main_process:
        job.output.mkdir(parents=True, exist_ok=True)
        write_json(job.output / "run.json", record)


def fetch(task: Task, dataset: str | None, accelerator: Accelerator) -> Iterator[Progress]:
    """Collect or download data that is not here."""
    if accelerator.is_main_process:
        said = None
        for now in obtain(task, dataset):
            words = now.words or f"dataset {task.dataset} is not here yet: collecting {now.total:,} steps in MuJoCo"
            yield Progress("data", now.done / now.total, "" if said == words else words)
            said = words
    accelerator.wait_for_everyone()


def _shown(episodes: Episodes, task: Task, preset: Preset) -> Episodes:
    """The episodes as windows see them: fixed ones run on from goal to goal."""
    return episodes.joined() if preset.fixed and task.spec.position else episodes


def windows_of(job: Job) -> Windows:
    """What a run's denoiser learns from."""
    shown = _shown(job.episodes, job.task, job.preset)
    return Windows(
        shown,
        job.task.spec,
        horizon=job.task.horizon,
        device=job.accelerator.device,
        fixed=shown is not job.episodes,
        state_only=job.preset.actions == "inverse",
        stays_within=job.task.stays_within,
    )


def _run(job: Job, *, only: Only | None = None) -> Iterator[Progress]:
    """Train what is left to train of each part, the denoiser first."""
    device, task, windows = job.accelerator.device, job.task, windows_of(job)
    alone = windows.state_only
    scheduler = make_scheduler("ddim", train_steps=job.preset.noise_levels)
    levels, normalizer = scheduler.alphas_cumprod, Normalizer.fit(job.episodes, task.spec, task.normalizer)
    network = begin(job, job.denoiser, lambda: _denoiser(job), STATE)
    few = min(INVERSE_UPDATES, job.denoiser.steps or INVERSE_UPDATES)
    short = replace(job.denoiser, steps=few, minutes=None, batch_size=INVERSE_BATCH)
    follows = begin(job, short, lambda: _inverse(job), INVERSE_STATE) if alone or task.follow_states else None
    planner = TrajectoryPlanner(
        cast(TemporalUNet, network.ema),
        normalizer,
        scheduler,
        plant=None if windows.fixed else Plant.of(job.episodes, task.spec),
        spec=task.spec.to_config(),
        horizon=task.horizon,
        task=task.name,
        prediction=job.denoiser.prediction,
        clip=1.0 if task.normalizer == "limits" else None,
        consistency_bound=_consistency_bound(windows),
        sampling=dataclasses.asdict(Sampling(**{**task.sampling, **job.preset.sampling})),
        inverse=None if follows is None else cast(InverseDynamics, follows.ema),
        state_only=alone,
    )
    if job.returns is not None and (job.output / RETURNS_STATE).exists():  # keep it while the denoiser goes on
        planner.register_modules(returns=begin(job, job.returns, lambda: _return_model(job), RETURNS_STATE).ema)
    job.accelerator.init_trackers("logs")
    ahead = 1.0 if job.returns is None else 1 - RETURNS_SHARE
    ahead = 0.0 if only == "returns" else ahead  # of the whole, which is the denoiser's
    if follows is not None:  # a small part, trained before the others
        objective = predicting_actions(job.episodes, short, device)
        yield from fit(job, planner, follows, objective, short, INVERSE_STATE, "inverse", (0.0, 0.0))
    if only != "returns":
        objective = denoising(windows, normalizer, levels, job.denoiser)
        yield from fit(job, planner, network, objective, job.denoiser, STATE, "denoiser", (0.0, ahead))
    words = f"{network.step:,} updates in {network.seconds / 60:.1f} minutes of training"
    if job.returns is not None:
        out = job.episodes.held_out(HELD_OUT)
        known = {"horizon": task.horizon, "device": device, "discount": task.discount, "state_only": alone}
        seen, held = (Windows(job.episodes, task.spec, **known, only=which) for which in (~out, out))
        judge = begin(job, job.returns, lambda: _return_model(job, seen), RETURNS_STATE)
        model = cast(ReturnModel, judge.ema)
        planner.register_modules(returns=model)
        objective = predicting_returns(seen, normalizer, levels, job.returns, standardize=model.standardize)
        yield from fit(job, planner, judge, objective, job.returns, RETURNS_STATE, "returns", (ahead, 1.0))
        if job.accelerator.is_main_process:
            r2 = report_calibration(job.output, model, held, normalizer.to(device), levels.to(device))
            words += f"; return model: {judge.step:,} updates, R2 {r2:.2f} on held-out windows"
    job.accelerator.end_training()
    yield Progress("done", 1.0, f"{words}; run folder {job.output}")


def fit(
    job: Job,
    planner: TrajectoryPlanner,
    state: TrainState,
    objective: Objective,
    config: TrainConfig,
    file: str,
    part: Part,
    share: tuple[float, float],
) -> Iterator[Progress]:
    """One part of a run, with logs and checkpoints; its progress covers a share of the whole."""
    logger = Logger(job.accelerator, planner, job.task, config.batch_size, part=part)
    save = Saver(job.output / file, state, planner, job.accelerator, job.checkpoint_seconds)
    with Stop() as stop:
        save.now()
        for update in train(state, objective, config, accelerator=job.accelerator):
            logger.log(update)
            save.when_due()
            if stop.asked:
                save.now()
                raise Interrupted(f"stopped at update {update.step} of the {part}; continue with: {job.again}")
            yield Progress("train", share[0] + (share[1] - share[0]) * update.fraction, update=update)
    save.now()


def begin(job: Job, config: TrainConfig, make: Any, file: str) -> TrainState:
    """A part's state: as its last checkpoint left it, or new."""
    with torch.random.fork_rng():  # diffusers' blocks initialise from the global generator
        torch.manual_seed(config.seed)
        model: nn.Module = make()
    state = TrainState.begin(model.to(job.accelerator.device), config)
    if (job.output / file).exists():
        state.load(job.output / file)
    return state


def _denoiser(job: Job) -> TemporalUNet:
    task, spec = job.task, job.task.spec
    places = [n for n in spec.observation_names if n not in spec.velocity + spec.rates]
    anchored = spec.columns(*places) if task.anchored and job.denoiser.prediction == "x0" else []
    return TemporalUNet(
        columns=task.spec.width,
        width=task.width,
        multipliers=task.multipliers,
        octaves=task.octaves,
        anchored=anchored,
    )


def _inverse(job: Job) -> InverseDynamics:
    model = InverseDynamics(len(job.task.spec.observation_names), len(job.task.spec.action_names))
    model.fit_scale(job.episodes)
    return model


def _return_model(job: Job, windows: Windows | None = None) -> ReturnModel:
    """A new one; without windows its scale has still to be loaded."""
    spec = job.task.spec
    model = ReturnModel(columns=spec.width, discount=job.task.discount, stride=spec.stride)
    if windows is not None:
        model.fit_scale(windows)
    return model


def _consistency_bound(windows: Windows) -> float:
    """What 99% of the data's own windows stay below."""
    sample, _ = windows.sample(4096, torch.Generator(windows.device).manual_seed(0))
    return float(torch.quantile(worst_before_arrival(windows.spec, sample, consistency(windows.spec, sample)), 0.99))
