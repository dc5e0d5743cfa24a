"""What users see: lines, bars, tables, and one-line errors."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import typer
from typer.core import TyperGroup

ROOMY = 120  # characters of a line
CONTROLLERS = (
    "auto, racing, retimed (racing, not smoothed), tracking, actions (the planned ones), or inverse (found between "
    "planned states by learned inverse dynamics)."
)
"""What --controller takes."""


class Bar(Protocol):
    def __call__(self, fraction: float, text: str = "") -> None: ...


class Commands(TyperGroup):
    """Turns exceptions into one line and an exit code: 2 for bad input, 1 for a failed job; --debug shows more."""

    debug = False

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        self.debug = "--debug" in words
        return super().main([w for w in words if w != "--debug"], *rest, **extra)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException as error:
            if isinstance(error, (typer.Exit, typer.Abort, SystemExit)) or self.debug:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            code, text = explain(error)
            print(f"Error: {text}", file=sys.stderr)
            raise typer.Exit(code) from error


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for any exception."""
    text = " ".join(str(error).split())
    if hasattr(error, "format_message"):  # a usage error of the command line itself
        command = getattr(getattr(error, "ctx", None), "command_path", "diffplan")
        return 2, f"{' '.join(error.format_message().split())} (see: {command} --help)"
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, ValueError) or type(error).__name__ == "Interrupted":  # the latter: saved, and can be resumed
        return 2, text
    return 1, f"{type(error).__name__}: {text or 'no details'} (run again with --debug to see where)"


@contextlib.contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar with the time left; nothing where the output is no terminal."""
    if quiet or not sys.stdout.isatty():
        yield lambda fraction, text="": None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, transient=True) as bars:
        bar = bars.add_task(label, total=1.0, text="")
        yield lambda fraction, text="": bars.update(bar, completed=fraction, text=text)


def follow(stages: Iterable[Any], label: str, *, quiet: bool = False) -> None:
    """Run a training to its end: a line for what it says, a bar with the updates and their rate for the rest."""
    quiet = quiet or os.environ.get("LOCAL_RANK", "0") != "0"
    with progress(label, quiet=quiet) as bar:
        for stage in stages:
            update = stage.update
            if stage.message and not quiet:
                print(stage.message, flush=True)
            rate = (
                ""
                if update is None or update.step % 20
                else f"{update.step:,} updates, {update.step / update.seconds:.0f}/s"
            )
            bar(stage.fraction, rate) if rate or update is None else bar(stage.fraction)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, whole: str = "") -> None:
    """A table, plain text where the output is no terminal; the column `whole` is not folded where there is room."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 140)
    grid = Table(title=title, title_justify="left")
    for name in header:
        grid.add_column(name, overflow="fold", no_wrap=name == whole and console.width >= ROOMY)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
