"""diffplan data collect | list | info"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Local Minari datasets: made here, or downloaded where the hub answers.", no_args_is_help=True)


@app.command("collect")
def collect(
    task: Annotated[str, typer.Argument(help="Which task's data to make.")],
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Environment steps; the task's own number if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Make a task's dataset in its simulator."""
    import time

    from diffplan.envs.datasets import collect as make
    from diffplan.envs.datasets import describe
    from diffplan.envs.tasks import find_task

    from .screen import progress

    chosen, began = find_task(task), time.monotonic()
    with progress(f"collecting {chosen.dataset}", quiet=quiet) as bar:
        for done, total in make(chosen, steps=steps, seed=seed):
            bar(done / total, f"{done:,} steps")
    info = describe(chosen.dataset)
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
