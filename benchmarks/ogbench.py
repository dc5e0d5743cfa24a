"""OGBench's own protocol in numbers: success per task, with an interval, beside what others published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffplan.envs.tasks import OgbenchTask
from diffplan.envs.tasks.ogbench import TASKS

from .cloning import CLONE
from .maze_report import read_published
from .metrics import wilson
from .trained import training_words

OURS, RANDOM = "diffplan", "random policy"
HEADER = ["method", "success", "95% interval", *(f"task {n}" for n in range(1, TASKS + 1)), "steps to goal"]


def success_by_task(task: OgbenchTask, seeds: Sequence[int], rewards: Sequence[Any]) -> dict[str, float]:
    """Share of successes among the episodes of each of the five tasks that had any.

    Args:
        task: whose episodes.
        seeds: of the episodes, which say which task each was about.
        rewards: (T,) of each episode; one is paid in the step of success, which ends it, and none elsewhere. So this
            is the mean of the last step's `info["success"]`, as OGBench's own evaluation takes it.
    """
    numbers = np.array([task.task_number(seed) for seed in seeds])
    succeeded = np.array([bool(task.achieved(r).any()) for r in rewards])
    return {f"task{n}": float(succeeded[numbers == n].mean()) for n in sorted(set(numbers.tolist()))}


def protocol_record(share: float, episodes: int, by_task: dict[str, float]) -> dict[str, Any]:
    """Success as JSON: with Wilson's 95% interval, and by task."""
    return {
        "success_ci95": [round(end, 4) for end in wilson(share, episodes)],
        "success_by_task": {name: round(value, 4) for name, value in by_task.items()},
    }


def published(task: OgbenchTask) -> dict[str, float]:
    """Published shares of success on the same data and protocol, by method."""
    return {p.method: p.score / 100 for p in read_published() if p.task == f"ogbench-{task.published_name}"}


def table_row(name: str, numbers: dict[str, Any]) -> list[str]:
    """A row under `HEADER`."""
    low, high = numbers["success_ci95"]
    tasks = [numbers["success_by_task"].get(f"task{n}") for n in range(1, TASKS + 1)]
    steps = numbers.get("steps_to_goal_mean")
    return [
        name,
        f"{numbers['success_rate']:.1%}",
        f"{low:.1%} to {high:.1%}",
        *("" if share is None else f"{share:.0%}" for share in tasks),
        "" if steps is None else f"{steps:.0f}",
    ]


def method_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first) of one task's benchmark: every method, and what was published."""
    return [HEADER, *(table_row(row["method"], row) for row in report["rows"]), *published_rows(report)]


def published_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """What was published, as rows under `HEADER`."""
    found = numbers.get("published", {})
    return [[f"{method} (published)", f"{share:.1%}", *[""] * (len(HEADER) - 2)] for method, share in found.items()]


def readme_rows(reports: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Table (header first) of several tasks' benchmarks: one row for each."""
    header = ["task", "data", "episodes", "**diffplan**", "95% interval", "tasks 1 / 2 / 3 / 4 / 5", "cloning"]
    header += ["random", "published (OGBench's own data)", "training", "one plan"]
    return [header, *map(_readme_row, reports)]


def _readme_row(report: dict[str, Any]) -> list[str]:
    rows = {row["method"]: row for row in report["rows"]}
    ours = table_row(OURS, rows[OURS])
    return [
        report["task"],
        f"{report['data'].get('source', '')}, {report['data_steps'] / 1e6:.2g} M steps".removeprefix(", "),
        str(report["episodes"]),
        f"**{ours[1]}**",
        ours[2],
        " / ".join(ours[3 : 3 + TASKS]),
        *(f"{rows[name]['success_rate']:.1%}" for name in (CLONE, RANDOM)),
        ", ".join(f"{method} {100 * share:g}%" for method, share in report["published"].items()),
        training_words(report["training"]),
        f"{1000 * rows[OURS]['plan_seconds_median']:.0f} ms ({report['device']})",
    ]
