"""diffplan bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark; `list` shows them.")],
    run: Annotated[str | None, typer.Option(help="Measure this run instead of training one.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for NAME.json and its table.")] = Path("benchmarks/results"),
    episodes: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Episodes per row; the benchmark's own number if left out.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of everything, in ten minutes (maze only).")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress lines.")] = False,
) -> None:
    """Run a named benchmark; writes NAME.json and NAME.md."""
    from diffplan.benchmarks.suite import SUITE, run_benchmark

    if name == "list":
        for key, what in SUITE.items():
            print(f"{key}: {what}")
        return
    for line in run_benchmark(name, output=output, run=run, episodes=episodes, quick=quick):
        if not quiet:
            print(line, flush=True)
