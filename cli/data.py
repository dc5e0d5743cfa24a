"""diffplan data collect | list | info"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Algorithm(StrEnum):
    """How a behaviour policy is trained."""

    sac = "sac"
    ppo = "ppo"


app = typer.Typer(help="Local Minari datasets: made here, or downloaded where the hub answers.", no_args_is_help=True)


@app.command("collect")
def collect(
    task: Annotated[str, typer.Argument(help="Which task's data to make.")],
    map_file: Annotated[
        Path | None,
        typer.Option("--map", help="A maze of your own for maze2d: a text file of # . G S (see the README)."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Environment steps; the task's own number if left out.")
    ] = None,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="Of a robot's behaviour policy: sac, or ppo where minutes matter more.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Make it here, without asking the Minari hub or OGBench's server.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random; 0 if left out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Get a task's dataset: from the Minari hub where that has it, or else made in its simulator.

    Robots' data begins with training a policy; that can be stopped and goes on where it was.
    """
    import time

    from diffplan.envs.datasets import collect as make
    from diffplan.envs.datasets import describe, from_hub, is_local
    from diffplan.envs.runs import named_task
    from diffplan.envs.tasks import OgbenchTask, RobotTask

    from .screen import progress

    chosen, began = named_task(task, file=map_file), time.monotonic()
    options: dict[str, Any] = {"algorithm": algorithm.value} if isinstance(chosen, RobotTask) and algorithm else {}
    own = local or steps or algorithm or seed is not None  # the hub has no choice of these
    if isinstance(chosen, OgbenchTask):
        options["local"] = bool(own)
    if chosen.hub and not (own or is_local(chosen.dataset)):
        print(f"asking the Minari hub for {' and '.join(chosen.hub)}", flush=True)
        if from_hub(chosen):
            for part in chosen.hub:
                print(f"{part}: {describe(part).steps:,} steps, from the hub")
            return
        print("the hub did not give it: making it here", flush=True)
    with progress(f"collecting {chosen.dataset}", quiet=quiet) as bar:
        for now in make(chosen, steps=steps, seed=seed or 0, **options):
            bar(now.done / now.total, now.words or f"{now.done:,} steps")
    info = describe(chosen.dataset)
    for level, reached in info.provenance.get("policy", {}).get("reached", {}).items():
        if not reached["reached"]:
            print(
                f"warning: the {level} policy stopped at a return of {reached['recent_return']:.0f} after "
                f"{reached['steps']:,} steps, below the {info.provenance['policy']['wanted_return'][level]:.0f} wanted"
            )
    print(
        f"{info.id}: {info.episodes:,} episodes, {info.steps:,} steps, {info.megabytes:.0f} MB, "
        f"made in {time.monotonic() - began:.0f} s"
    )


@app.command("list")
def list_datasets() -> None:
    """Local datasets."""
    from diffplan.envs.datasets import datasets_folder, list_local

    from .screen import table

    rows = [[i.id, f"{i.episodes:,}", f"{i.steps:,}", f"{i.megabytes:.0f}"] for i in list_local()]
    if rows:
        table(f"Datasets in {datasets_folder()}", ["dataset", "episodes", "steps", "MB"], rows)
    else:
        print(f"no datasets in {datasets_folder()}; make one with: diffplan data collect maze2d")


@app.command("info")
def info(dataset: Annotated[str, typer.Argument(help="Minari id.")]) -> None:
    """What is known of a local dataset: sizes and how it was made."""
    import json

    from diffplan.envs.datasets import describe

    known = describe(dataset)
    print(f"{known.id}: {known.episodes:,} episodes, {known.steps:,} steps, {known.megabytes:.0f} MB")
    print(
        json.dumps(known.provenance, indent=2) if known.provenance else "its metadata says nothing of how it was made"
    )
