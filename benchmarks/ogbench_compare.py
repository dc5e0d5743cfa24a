"""A planner of an OGBench task by its protocol, beside what it learned from and chance."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from diffplan.envs.datasets import describe, load_episodes
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import OgbenchTask

from .baselines import run_policies
from .cloning import CLONE, told_the_goal
from .evaluate import Evaluation, evaluate, stats_record, summarize
from .ogbench import OURS, published
from .trained import setting


def compare_ogbench(run: str, dataset: str, episodes: int, seed: int) -> Generator[str, None, dict[str, Any]]:
    """All rows of one task, yielding a line after each.

    Args:
        run: folder of the planner.
        dataset: that it was trained on, from which the clone learns too.
        episodes: of each row, about the five tasks in turn; the same starts and goals for all.
        seed: of them.
    """
    planner, task = load_planner(run)
    assert isinstance(task, OgbenchTask)
    data, seeds = load_episodes(dataset, task), task.seeds(seed, episodes)
    rows = []
    for name, rewards in run_policies(
        task, seeds, also={CLONE: told_the_goal(data, task.spec.position_indices)}
    ).items():
        rows.append(_row(name, stats_record(summarize(name, task, rewards, seeds=seeds)), episodes))
        yield line(rows[-1])
    began = time.monotonic()
    *_, done = evaluate(planner, task, episodes=episodes, seeds=seeds, references=False)
    assert isinstance(done, Evaluation)
    rows.append(_row(OURS, stats_record(done.stats), episodes))
    rows[-1] |= {"plan_seconds_median": round(done.plan_seconds_median, 5), "plans": done.plans}
    rows[-1] |= {"faults": list(done.faults)}
    yield f"{line(rows[-1])} ({time.monotonic() - began:.0f} s)"
    return {
        **setting(planner, task, seed=seed, episodes=episodes),
        "rows": rows,
        "published": published(task),
        "data": describe(dataset).provenance if "+" not in dataset else {},
        "data_steps": data.steps,
    }


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    low, high = row["success_ci95"]
    tasks = " / ".join(f"{share:.2f}" for share in row["success_by_task"].values())
    return f"{row['method']}: success {row['success_rate']:.2f} [{low:.2f}, {high:.2f}], by task {tasks}"


def _row(name: str, numbers: dict[str, Any], episodes: int) -> dict[str, Any]:
    return {"method": name, **numbers, "episodes": episodes}
