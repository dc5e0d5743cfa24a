"""Tables made from the JSON that evaluations write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEADER = ["method", "strict score", "latched score", "success", "steps to goal", "return"]


def table_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """The planner's row and its references' of one evaluation."""
    return [_row("diffplan", numbers)] + [_row(name, row) for name, row in numbers.get("references", {}).items()]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def results_table(folder: Path) -> str:
    """The README's table: one row per maze evaluation committed in a results folder."""
    rows = []
    for size in ("umaze", "medium", "large"):
        path = folder / f"maze2d-{size}.json"
        if not path.is_file():
            continue
        report = json.loads(path.read_text())
        for numbers in report["evaluations"]:
            references = numbers["references"]
            rows.append(
                [
                    numbers["task"],
                    _pm(numbers),
                    f"{numbers['score_latched']:.1f}",
                    f"{100 * numbers['success_rate']:.0f}%",
                    _pm(references["waypoint controller"]),
                    _pm(references["random policy"]),
                    f"{report['training']['minutes']:.1f} min",
                    f"{1000 * numbers['plan_seconds_median']:.0f} ms",
                ]
            )
    header = [
        "task",
        "strict score",
        "latched",
        "success",
        "controller that made the data (strict)",
        "random (strict)",
        "training, 2 cores",
        "one plan",
    ]
    return markdown(header, rows)


def _row(name: str, numbers: dict[str, Any]) -> list[str]:
    def show(key: str, form: str = "{:.1f}") -> str:
        return "" if numbers.get(key) is None else form.format(numbers[key])

    strict = _pm(numbers) if numbers.get("score_strict") is not None else ""
    return [
        name,
        strict,
        show("score_latched"),
        show("success_rate", "{:.0%}"),
        show("steps_to_goal_mean", "{:.0f}"),
        show("return_mean"),
    ]


def _pm(numbers: dict[str, Any]) -> str:
    return f"{numbers['score_strict']:.1f} ± {numbers['score_strict_ci95'] or float('nan'):.1f}"


def execution_table(folder: Path) -> str:
    """The README's table of controllers and replanning intervals."""
    path = folder / "execution.json"
    if not path.is_file():
        return ""
    evaluations = json.loads(path.read_text())["evaluations"]
    rows = [[e["label"], _pm(e), f"{100 * e['success_rate']:.0f}%"] for e in evaluations]
    return markdown(["following the plan, maze2d-umaze", "strict score", "success"], rows)


def fill_readme(readme: Path, results: Path) -> None:
    """Put the tables between their marks in the README."""
    text = readme.read_text()
    for mark, table in (("results", results_table), ("execution", execution_table)):
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        head, rest = text.split(begin)
        text = head + begin + table(results) + end + rest.split(end)[1]
    readme.write_text(text)
