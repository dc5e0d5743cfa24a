"""Tables of the mazes' benchmark, made from its JSON, and its verdict: which bars were passed.

Strict and latched scores stand in columns of their own and always say which they are. What a report lacks is left out,
or empty in its row.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Table = list[list[str]]

TASKS = tuple(f"{family}-{size}" for family in ("maze2d", "multi2d") for size in ("umaze", "medium", "large"))
OURS, RANDOM, CONTROLLER, BOUND = "diffplan", "random policy", "waypoint controller", "time-optimal bound"
PAPER = "paper (Diffuser's recipe)"

BARS = dict(zip(TASKS, (146.0, 156.0, 206.0, 158.0, 170.0, 216.0), strict=True))
"""The published bar of each task, whatever its protocol: what the strict score is to pass."""
SHARE_OF_BOUND = 0.95  # of the bound's strict score: the last bar
SCORE_HEADER = ["strict score", "latched score", "share of the bound", "success", "steps to goal"]
PUBLISHED = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    """A published score: `spread` as its source prints it, `protocol` "strict", "latched" or "not stated"."""

    method: str
    task: str
    score: float
    spread: float | None
    protocol: str
    source: str

    def __str__(self) -> str:
        kind = {"strict": "", "not stated": ", protocol not stated"}.get(self.protocol, f", {self.protocol}")
        return f"{self.score:.1f} ({self.method}{kind})"


def read_published(path: Path = PUBLISHED) -> list[Published]:
    """The published scores that ship with the package."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_published(**row) for row in csv.DictReader(file)]


def _published(score: str, spread: str, **words: str) -> Published:
    return Published(score=float(score), spread=float(spread) if spread else None, **words)


def best_published(task: str, *, strict: bool) -> Published | None:
    """The highest published score of a task, among the strict ones alone or among all."""
    rows = [p for p in read_published() if p.task == task and (p.protocol == "strict" or not strict)]
    return max(rows, key=lambda p: p.score, default=None)


def in_order(tasks: Iterable[str]) -> list[str]:
    """The benchmark's tasks in its order, then others as they come."""
    return sorted(tasks, key=lambda task: TASKS.index(task) if task in TASKS else len(TASKS))


def row_of(report: Row, task: str, method: str) -> Row:
    """The statistics of a method on a task; empty where it was not measured."""
    return next((row for name, row in _all_rows(report) if (name, row["method"]) == (task, method)), {})


def tables(report: Row) -> dict[str, Table]:
    """Every table (header first) that the report has rows for."""
    made = {name: make(report) for name, make in TABLES.items()}
    return {name: table for name, table in made.items() if len(table) > 1}


def main_rows(report: Row) -> Table:
    """Every method on every task."""
    header = ["task", "method", *SCORE_HEADER]
    return [header, *([task, row["method"], *_scores(row)] for task, row in _all_rows(report))]


def readme_rows(report: Row) -> Table:
    """One row per task: what was published, the references, diffplan, and the bound."""
    header = ["task", "best published, strict", "best published, any protocol", "random (strict)"]
    header += ["waypoint controller (strict)", "paper's recipe (strict)", "**diffplan (strict)**", "diffplan (latched)"]
    header += ["share of the bound", "time-optimal bound (strict)"]
    rows = []
    for task in _tasks(report):
        best = [best_published(task, strict=strict) for strict in (True, False)]
        ours = row_of(report, task, OURS)
        strict = [plus_minus(row_of(report, task, method)) for method in (RANDOM, CONTROLLER, PAPER)]
        mine = plus_minus(ours)
        latched, share = show(ours, "score_latched"), percent(ours, "share_of_bound", 1)
        bound = show(row_of(report, task, BOUND), "score_strict")
        rows.append([task, *(str(b or "") for b in best), *strict, mine and f"**{mine}**", latched, share, bound])
    return [header, *rows]


def cost_rows(report: Row) -> Table:
    """What training and planning take, of the methods that do either."""
    keys = ("training_minutes", "parameters", "plan_ms_median", "plan_ms_p95", "steps_per_second")
    where = _device(report)
    header = ["task", "method", "training", "trained on", "parameters"]
    header += [f"one plan, median{where}", "one plan, 95th percentile", "executed steps / s"]
    rows = [
        [
            task,
            row["method"],
            show(row, "training_minutes", "{:.1f} min"),
            row.get("training_device") or "",
            show(row, "parameters", "{:,.0f}"),
            show(row, "plan_ms_median", "{:,.1f} ms"),
            show(row, "plan_ms_p95", "{:,.1f} ms"),
            show(row, "steps_per_second", "{:,.0f}"),
        ]
        for task, row in _all_rows(report)
        if any(row.get(key) is not None for key in keys)
    ]
    return [header, *rows]


def quality_rows(report: Row) -> Table:
    """Walls that plans and the courses made of them touch, and how well the plans' own dynamics hold."""
    header = ["task", "start-goal pairs", "plans that touch walls", "courses that touch walls"]
    header += ["self-consistency of plans (mean)", "self-consistency of the data (mean)"]
    rows = []
    for task in _tasks(report):
        if quality := report["tasks"][task].get("quality"):
            touched = [percent(quality, f"{what}_touching_walls") for what in ("plans", "courses")]
            held = [show(quality, f"consistency_{what}", "{:.3f} m") for what in ("plans", "data")]
            rows.append([task, show(quality, "pairs", "{:.0f}"), *touched, *held])
    return [header, *rows]


def ablation_rows(report: Row) -> Table:
    """What one change alone does."""
    header = ["task", "change", *SCORE_HEADER]
    return [header, *([row["task"], row["change"], *_scores(row)] for row in report.get("ablations") or [])]


def giant_rows(report: Row) -> Table:
    """The giant maze, whose scores nobody has published a range for: success and return."""
    header = ["task", "method", "start-goal pairs", "success", "95% interval", "steps to goal", "return"]
    rows = []
    for row in (report.get("giant") or {}).get("rows") or []:
        interval = " to ".join(f"{100 * end:.0f}%" for end in row.get("success_ci95") or [])
        pairs = show(row, "pairs" if "pairs" in row else "episodes", "{:.0f}")
        success, steps = percent(row, "success_rate"), show(row, "steps_to_goal_mean", "{:.0f}")
        task, gained = row.get("task") or "giant", plus_minus(row, "return")
        rows.append([task, row["method"], pairs, success, interval, steps, gained])
    return [header, *rows]


def bars(report: Row) -> dict[str, Row]:
    """The verdict on every task that diffplan was measured on.

    The lower end of diffplan's 95% interval, strict, is held against the published bar, the waypoint controller's mean
    and 95% of the bound's score. A bar is passed by what is above it: touching it is not enough.

    Returns:
        By task `lower`, and under "published", "controller" and "bound" a `bar`, the `gap` above it and whether it was
        `passed`; all three are None where a number is missing.
    """
    made = {}
    for task in _tasks(report):
        ours, bound = row_of(report, task, OURS), row_of(report, task, BOUND).get("score_strict")
        if ours.get("score_strict") is None:
            continue
        half = ours.get("score_strict_ci95")
        lower = None if half is None else round(ours["score_strict"] - half, 6)
        made[task] = {
            "lower": lower,
            "published": _verdict(lower, BARS.get(task)),
            "controller": _verdict(lower, row_of(report, task, CONTROLLER).get("score_strict")),
            "bound": _verdict(lower, None if bound is None else SHARE_OF_BOUND * bound),
        }
    return made


def bars_rows(report: Row) -> Table:
    """Table (header first) of `bars`."""
    header = ["task", "diffplan (strict), lower end", "published bar", "waypoint controller (strict)"]
    rows = []
    for task, verdict in bars(report).items():
        cells = [_told(verdict[name]) for name in ("published", "controller", "bound")]
        rows.append([task, show(verdict, "lower"), *cells])
    return [[*header, f"{SHARE_OF_BOUND:.0%} of the bound (strict)"], *rows]


TABLES: dict[str, Callable[[Row], Table]] = {
    "main": main_rows,
    "readme": readme_rows,
    "cost": cost_rows,
    "quality": quality_rows,
    "ablations": ablation_rows,
    "giant": giant_rows,
    "bars": bars_rows,
}


def show(row: Row, key: str, form: str = "{:.1f}") -> str:
    """A number in a form; empty where it is missing."""
    return "" if row.get(key) is None else form.format(row[key])


def percent(row: Row, key: str, digits: int = 0) -> str:
    """A share in percent; empty where it is missing."""
    return show(row, key, f"{{:.{digits}%}}")


def plus_minus(row: Row, name: str = "score_strict") -> str:
    """A mean with its 95% interval; alone where that is missing."""
    mean = show(row, f"{name}_mean" if name == "return" else name)
    return mean and mean + show(row, f"{name}_ci95", " ± {:.1f}")


def _scores(row: Row) -> list[str]:
    """Cells of `SCORE_HEADER`."""
    share, success = percent(row, "share_of_bound", 1), percent(row, "success_rate")
    return [plus_minus(row), show(row, "score_latched"), share, success, show(row, "steps_to_goal_mean", "{:.0f}")]


def _tasks(report: Row) -> list[str]:
    """Tasks that were measured."""
    return in_order(report.get("tasks") or {})


def _all_rows(report: Row) -> Iterator[tuple[str, Row]]:
    for task in _tasks(report):
        for row in report["tasks"][task].get("rows") or []:
            yield task, row


def _device(report: Row) -> str:
    """Where plans were timed, in brackets."""
    device, threads = report.get("device"), report.get("cpu_threads")
    if not device:
        return ""
    cores = f", {threads} thread{'s' * (threads != 1)}" if device == "cpu" and threads else ""
    return f" ({device}{cores})"


def _verdict(lower: float | None, bar: float | None) -> Row:
    if lower is None or bar is None:
        return {"bar": bar, "gap": None, "passed": None}
    gap = round(lower - bar, 6)  # what is left after the noise of floating point
    return {"bar": round(bar, 6), "gap": gap, "passed": gap > 0}


def _told(verdict: Row) -> str:
    """A bar, whether it was passed, and by how much."""
    if verdict["passed"] is None:
        return show(verdict, "bar")
    return f"{verdict['bar']:.1f}: {'passed' if verdict['passed'] else 'not passed'} ({verdict['gap']:+.2f})"
