"""The README's tables, made from the committed results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diffplan.envs.tasks.arms import arm_tasks
from diffplan.envs.tasks.ogbench import ogbench_tasks

from . import maze_report, ogbench
from .arm_wishes import wishes_rows
from .arms import skills_rows
from .distilled import distilled_rows
from .growth_report import growth_rows
from .report import guides_table, learned_table, markdown
from .robot_report import control_rows, locomotion_table
from .speed import batch_rows, speed_rows
from .stepping import stepping_rows
from .steps import steps_rows
from .training_speed import training_rows


def _table_of(folder: Path, name: str, make: Callable[[dict[str, Any]], list[list[str]]]) -> str:
    """The table of a benchmark's JSON; nothing where it was not run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return ""
    header, *rows = make(json.loads(path.read_text()))
    return markdown(header, rows)


def _guides_part(part: str) -> Callable[[Path], str]:
    name = "weights" if part == "weights" else "guides"
    return lambda folder: _table_of(folder, name, lambda report: guides_table(report, part))


def _learned_part(name: str) -> Callable[[Path], str]:
    return lambda folder: _table_of(folder, name, learned_table)


def _maze_part(part: str) -> Callable[[Path], str]:
    return lambda folder: _table_of(folder, "maze", maze_report.TABLES[part])


def _together(names: Iterable[str], make: Callable[[list[dict[str, Any]]], list[list[str]]]) -> Callable[[Path], str]:
    """One table of several benchmarks, of those that were run; nothing where none was."""

    def table(folder: Path) -> str:
        paths = [folder / f"{name}.json" for name in names]
        header, *rows = make([json.loads(path.read_text()) for path in paths if path.is_file()])
        return markdown(header, rows) if rows else ""

    return table


TABLES: dict[str, Callable[[Path], str]] = {
    "results": lambda folder: _table_of(folder, "maze", maze_report.readme_rows),
    **{part: _maze_part(part) for part in ("bars", "ablations", "cost", "quality", "giant")},
    **{part: _guides_part(part) for part in ("composition", "weights", "samplers", "ways")},
    **{name: _learned_part(name) for name in ("returns", "roundabout", "stitching")},
    "locomotion": locomotion_table,
    "ogbench": _together(ogbench_tasks(), ogbench.readme_rows),
    "arms": _together(arm_tasks(), skills_rows),
    "wishes": lambda folder: _table_of(folder, "arms", wishes_rows),
    "speed": lambda folder: _table_of(folder, "speed", speed_rows),
    "speed-gpu": lambda folder: _table_of(folder, "speed-cuda", speed_rows),
    "batches": lambda folder: _table_of(folder, "speed", batch_rows),
    "batches-gpu": lambda folder: _table_of(folder, "speed-cuda", batch_rows),
    "steps": lambda folder: _table_of(folder, "steps", steps_rows),
    "distill": lambda folder: _table_of(folder, "distill", distilled_rows),
    "training": lambda folder: _table_of(folder, "training", training_rows),
    "training-gpu": lambda folder: _table_of(folder, "training-cuda", training_rows),
    "growth": lambda folder: _table_of(folder, "growth", growth_rows),
    "stepping": lambda folder: _table_of(folder, "stepping", stepping_rows),
    "control": lambda folder: _table_of(folder, "control", control_rows),
}
"""The README's tables by the marks between which they stand."""


def fill_readme(readme: Path, results: Path) -> None:
    """Put the tables between their marks in the README."""
    text = readme.read_text()
    for mark, table in TABLES.items():
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        if begin not in text:
            continue
        head, rest = text.split(begin)
        text = head + begin + table(results) + end + rest.split(end)[1]
    readme.write_text(text)
