"""Tables made from the JSON that evaluations write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import ogbench

HEADER = ["method", "strict score", "latched score", "success", "steps to goal", "return"]


ROBOT_HEADER = ["method", "return", "normalised (own data)", "steps", "did not fall"]
HELD_HEADER = ["method", "success (held at the end)", "95% interval", "ever there", "steps to goal"]
HAND_HEADER = ["method", "normalised (D4RL)", "success", "steps to success", "return"]


def header_of(numbers: dict[str, Any]) -> list[str]:
    """What the columns of `table_rows` say."""
    if "upright_rate" in numbers:
        return ROBOT_HEADER
    if "success_by_task" in numbers:
        return ogbench.HEADER
    if "success_ever_rate" in numbers:
        return HELD_HEADER
    if "score_normalized" in numbers:
        return HAND_HEADER
    return HEADER if _scored(numbers) else [name for name in HEADER if not name.endswith("score")]


def table_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """The planner's row and its references' of one evaluation."""
    others = [_row(name, row) for name, row in numbers.get("references", {}).items()]
    return [_row("diffplan", numbers), *others, *ogbench.published_rows(numbers)]


def share_of(row: dict[str, Any] | None, name: str, bounds: str) -> str:
    """A share with its interval, by their names in a row; nothing where there is no row."""
    if row is None:
        return ""
    low, high = row[bounds]
    return f"{row[name]:.0%} ({low:.0%} to {high:.0%})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _row(name: str, numbers: dict[str, Any]) -> list[str]:
    def show(key: str, form: str = "{:.1f}") -> str:
        return "" if numbers.get(key) is None else form.format(numbers[key])

    if "upright_rate" in numbers:
        return [
            name,
            show("return_mean", "{:.0f}") + show("return_ci95", " ± {:.0f}"),
            show("score_normalized_own_data"),
            show("steps_mean", "{:.0f}"),
            show("upright_rate", "{:.0%}"),
        ]
    if "success_by_task" in numbers:
        return ogbench.table_row(name, numbers)
    if "success_ever_rate" in numbers:
        low, high = numbers["success_ci95"]
        ever, steps = show("success_ever_rate", "{:.0%}"), show("steps_to_goal_mean", "{:.0f}")
        return [name, show("success_rate", "{:.0%}"), f"{100 * low:.0f} to {100 * high:.0f}%", ever, steps]
    goals = [show("success_rate", "{:.0%}"), show("steps_to_goal_mean", "{:.0f}")]
    earned = show("return_mean") + show("return_ci95", " ± {:.1f}")
    if "score_normalized" in numbers:
        return [name, show("score_normalized") + show("score_normalized_ci95", " ± {:.1f}"), *goals, earned]
    if not _scored(numbers):
        return [name, *goals, earned]
    return [name, _pm(numbers), show("score_latched"), *goals, show("return_mean")]


def _scored(numbers: dict[str, Any]) -> bool:
    """Whether there is a published range to score in; else returns alone are told."""
    return numbers.get("score_strict") is not None


def _pm(numbers: dict[str, Any]) -> str:
    return f"{numbers['score_strict']:.1f} ± {numbers['score_strict_ci95'] or float('nan'):.1f}"


def guides_table(report: dict[str, Any], part: str) -> list[list[str]]:
    """A table (header first) of the guides' benchmarks: composition, weights, samplers or ways."""
    return {"composition": _composition, "weights": _weights, "samplers": _samplers, "ways": _ways}[part](report[part])


def _composition(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    shares = ("touched", "slow_enough", "passed", "reached", "all_kept")
    head = ["where", "asked for", "candidates", "touch the disc", "slow enough", "pass the via", "reach the goal"]
    return [
        [*head, "all that was asked", "steps"],
        *(
            [
                row["where"],
                row["wish"],
                str(row["candidates"]),
                *(f"{100 * row[share]:.0f}%" for share in shares),
                f"{row['steps']:.0f}",
            ]
            for row in rows
        ),
    ]


def _weights(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [
        ["guide", "quantity", "weights", "mean quantity"],
        *(
            [
                row["guide"],
                row["unit"],
                " / ".join(f"{w:g}" for w in row["weights"]),
                " / ".join(map(_short, row["quantity"])),
            ]
            for row in rows
        ),
    ]


def _samplers(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    kinds = ("ddim", "ddpm", "dpm++")
    return [
        ["guide", *kinds],
        *(
            [
                f"{row['guide']}@{row['weight']:g}",
                *(f"{_short(mean)} ± {_short(half)}" for mean, half in (row["quantity"][kind] for kind in kinds)),
            ]
            for row in rows
        ),
    ]


def _ways(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    return [
        ["guide", "candidates", "guidance", "mean quantity", "one plan"],
        *(
            [
                f"{row['guide']} ({row['unit']})",
                str(row["candidates"]),
                row["guidance"],
                f"{_short(row['quantity'])} ± {_short(row['quantity_ci95'])}",
                f"{1000 * row['plan_seconds_median']:.0f} ms",
            ]
            for row in rows
        ),
    ]


def learned_table(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first) of episodes led by returns, or made of legs."""
    rows = []
    for row in report["rows"]:
        steps = row["steps_to_goal"]
        fewer = [
            f"{-d['mean']:.1f} ± {d['ci95']:.1f} fewer than {name}"
            for name, d in row.get("steps_fewer_than", {}).items()
        ]
        success = "" if "success_rate" not in row else f"{100 * row['success_rate']:.0f}%"
        by = [
            f"{cells} cells: {100 * v['success_rate']:.0f}% of {v['pairs']}"
            for cells, v in row.get("by_cells", {}).items()
        ]
        rows.append(
            [
                row["label"],
                str(row["episodes"]),
                _pm(row) if row.get("score_strict") is not None else "",
                success,
                f"{steps['mean']:.1f} ± {steps['ci95']:.1f}",
                "; ".join(fewer + by),
            ]
        )
    return [["", "episodes", "strict score", "success", "steps to the goal", ""], *rows]


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
