"""diffplan train"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Part(StrEnum):
    """What to train."""

    denoiser = "denoiser"
    returns = "returns"


class Normalization(StrEnum):
    """How columns are scaled."""

    limits = "limits"
    gaussian = "gaussian"


class Prediction(StrEnum):
    """What the network says."""

    x0 = "x0"
    eps = "eps"
    v = "v"


class Actions(StrEnum):
    """Where the actions of a plan come from."""

    joint = "joint"
    inverse = "inverse"


def train(
    task: Annotated[str, typer.Argument(help="What to plan; see: diffplan tasks")],
    map_file: Annotated[
        Path | None,
        typer.Option("--map", help="A maze of your own for maze2d: a text file of # . G S (see the README)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=10**9, help="Updates to train for.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.001, max=10**6, help="Minutes to train for; with --steps, whichever ends first."),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Named settings: default, quick, gpu (a wide network, large batches), paper.")
    ] = "default",
    only: Annotated[
        Part | None,
        typer.Option(help="Train one part: the denoiser, or the return model of the run in --output (or the newest)."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="A Minari id instead of the task's own data.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; runs/TASK-TIME if left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output, or the task's newest.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of everything random.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Windows per update and process; the task's own if left out.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, max=10, help="Peak learning rate; the task's own if left out.")
    ] = None,
    prediction: Annotated[Prediction, typer.Option(help="What the network predicts.")] = Prediction.x0,
    horizon: Annotated[int | None, typer.Option(min=2, max=4096, help="Tokens per plan.")] = None,
    normalizer: Annotated[
        Normalization | None, typer.Option(help="How columns are scaled: by their limits, or to deviation 1.")
    ] = None,
    actions: Annotated[
        Actions | None,
        typer.Option(help="Planned with the states (joint), or found between them by learned inverse dynamics."),
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a planner, and a model of returns where the task has rewards; missing data is collected first.

    The same command trains on a CPU, a GPU, or several processes:
    accelerate launch --multi_gpu --num_processes 2 -m diffplan.cli.main train TASK
    """
    import dataclasses
    import time

    from diffplan.envs.jobs import RETURNS_SHARE
    from diffplan.envs.presets import find_preset
    from diffplan.envs.runs import RUNS, exact_command, named_task, newest_run
    from diffplan.envs.training import resume_run, train_run
    from diffplan.planner.training import TrainConfig

    from .screen import follow

    chosen = named_task(task, file=map_file, output=output)
    settings = find_preset(preset, chosen)
    if resume:
        folder = output or newest_run(chosen)
        stages = resume_run(
            folder, task=chosen, steps=steps, minutes=minutes, device=device, checkpoint_seconds=checkpoint_seconds
        )
    else:
        settings = settings if horizon is None else dataclasses.replace(settings, horizon=horizon)
        settings = settings if normalizer is None else dataclasses.replace(settings, normalizer=normalizer.value)
        settings = settings if actions is None else dataclasses.replace(settings, actions=actions.value)
        given = {"batch_size": batch_size, "learning_rate": learning_rate}
        config = TrainConfig(
            **chosen.training | settings.training | {k: v for k, v in given.items() if v is not None},
            steps=steps,
            minutes=minutes if steps or minutes else settings.fit(chosen).minutes,
            prediction=prediction.value,
            seed=seed,
        )
        alone = only is Part.returns
        if alone and not (steps or minutes):
            config = dataclasses.replace(config, minutes=settings.fit(chosen).minutes * RETURNS_SHARE)
        folder = output or (newest_run(chosen) if alone else RUNS / f"{chosen.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        stages = train_run(
            chosen,
            folder,
            config,
            preset=settings,
            only=None if only is None else only.value,
            dataset=dataset,
            device=device,
            checkpoint_seconds=checkpoint_seconds,
            command=exact_command(),
        )
    follow(stages, f"training {chosen.name}", quiet=quiet)
