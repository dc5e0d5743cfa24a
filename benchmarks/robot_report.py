"""Tables of the robots' benchmarks, made from their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .report import markdown
from .trained import training_words

ROBOTS, QUALITIES = ("hopper", "halfcheetah", "walker2d", "ant"), ("medium", "medium-replay", "medium-expert")
METHODS = ("the data", "behaviour cloning", "diffplan, unguided", "diffplan")


def locomotion_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first) of one task: every method."""
    header = ["method", "episodes", "return", "normalised (own data)", "steps", "did not fall", "diffplan is above by"]
    rows = []
    for row in report["rows"]:
        gap = report["above"][row["method"]]
        rows.append(
            [
                row["method"],
                str(row["episodes"]),
                plus_minus(row),
                _score(row),
                f"{row['steps_mean']:.0f}",
                f"{100 * row['upright_rate']:.0f}%",
                "" if row["method"] == "diffplan" else _gap(gap),
            ]
        )
    return [header, *rows]


def locomotion_table(folder: Path) -> str:
    """The README's table: one row per robot and kind of data that was measured."""
    header = ["task", *METHODS, "normalised (own data)", "times the data", "training"]
    rows = []
    for robot in ROBOTS:
        for quality in QUALITIES:
            path = folder / f"{robot}-{quality}.json"
            if not path.is_file():
                continue
            report = json.loads(path.read_text())
            by_name = {row["method"]: row for row in report["rows"]}
            rows.append(
                [
                    report["task"],
                    *(plus_minus(by_name[name]) for name in METHODS),
                    _score(by_name["diffplan"]),
                    f"{report['above']['the data']['ratio']:.2f}",
                    training_words(report["training"]),
                ]
            )
    return markdown(header, rows) if rows else ""


def control_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first) of control frequencies."""
    rows = [
        [
            row["preset"],
            str(row["environments"]),
            f"{row['milliseconds_median']:.0f} ms",
            f"{row['hertz']:.3g} Hz",
            f"{row['environment_steps_per_second']:.3g}",
            plus_minus(report["first_steps"][row["preset"]]),
        ]
        for row in report["rows"]
    ]
    first = report["first_steps"]
    earned = f"return over {first['steps']} steps ({first['episodes']} episodes)"
    return [["preset", "environments", "one control step", "frequency", "environment steps / s", earned], *rows]


def _gap(gap: dict[str, Any]) -> str:
    return plus_minus({"return_mean": gap["mean"], "return_ci95": gap["ci95"]})


def plus_minus(row: dict[str, Any], name: str = "return", digits: int = 0) -> str:
    """A mean with its 95% interval; of one episode the mean alone."""
    mean, half = row[f"{name}_mean" if name == "return" else name], row[f"{name}_ci95"]
    return f"{mean:.{digits}f}" if half is None else f"{mean:.{digits}f} ± {half:.{digits}f}"


def _score(row: dict[str, Any]) -> str:
    score = row["score_normalized_own_data"]
    return "" if score is None else plus_minus(row, "score_normalized_own_data", 1)
