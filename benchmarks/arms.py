"""The arm's planner beside what it learned from: the scripted expert, a clone of the data, chance."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.envs.datasets import describe, load_episodes
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import ArmTask

from .baselines import policies, run_policy
from .cloning import CLONE, told_the_goal
from .evaluate import Evaluation, evaluate, stats_record, summarize
from .report import share_of
from .trained import setting, training_words

JOINT, INVERSE = "diffplan", "diffplan, states alone with inverse dynamics"
WIDE = "diffplan, preset gpu"  # a joint planner that was trained so, where one was measured beside the task's own
Rows = list[dict[str, Any]]


def compare_arms(runs: dict[str, str], episodes: int, seed: int) -> Generator[str, None, dict[str, Any]]:
    """All rows of one task, yielding a line after each.

    Args:
        runs: folders by method, `JOINT` first.
        episodes: of each row; the same starts and goals for all.
        seed: of them.
    """
    planner, task = load_planner(runs[JOINT])
    assert isinstance(task, ArmTask)
    seeds = task.seeds(seed, episodes)
    rows: Rows = []
    for name, policy in (
        policies(task, seeds) | {CLONE: told_the_goal(load_episodes(task.dataset, task), task.spec.position_indices)}
    ).items():
        rows.append({"method": name, **_stats(name, task, run_policy(task, policy, seeds=seeds))})
        yield line(rows[-1])
    sampling: dict[str, Any] = {}
    for name, run in runs.items():
        began = time.monotonic()
        planner, _ = load_planner(run)
        sampling[name] = dataclasses.asdict(planner.sampling)
        *_, done = evaluate(planner, task, episodes=episodes, seeds=seeds, references=False)
        assert isinstance(done, Evaluation)
        made = stats_record(done.stats) | {"plan_seconds_median": round(done.plan_seconds_median, 5)}
        rows.append({"method": name, **made, "episodes": episodes, "faults": list(done.faults)})
        yield f"{line(rows[-1])} ({time.monotonic() - began:.0f} s)"
    return {
        **setting(planner, task, seed=seed, episodes=episodes),
        "rows": rows,
        "data": describe(task.dataset).provenance,
        "data_steps": describe(task.dataset).steps,
        "sampling": sampling,
    }


def _stats(name: str, task: ArmTask, rewards: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    return stats_record(summarize(name, task, rewards)) | {"episodes": len(rewards)}


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    low, high = row["success_ci95"]
    rates = f"{row['success_rate']:.2f} [{low:.2f}, {high:.2f}], ever {row['success_ever_rate']:.2f}"
    return f"{row['method']}: success {rates}"


def arm_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first) of one task: every method."""
    header = [
        "method",
        "episodes",
        "success (held at the end)",
        "95% interval",
        "ever there",
        "steps to goal",
        "one plan",
    ]
    rows = []
    for row in report["rows"]:
        low, high = row["success_ci95"]
        steps, seconds = row.get("steps_to_goal_mean"), row.get("plan_seconds_median")
        rows.append(
            [
                row["method"],
                str(row["episodes"]),
                f"{100 * row['success_rate']:.0f}%",
                f"{100 * low:.0f} to {100 * high:.0f}%",
                f"{100 * row['success_ever_rate']:.0f}%",
                "" if steps is None else f"{steps:.0f}",
                "" if seconds is None else f"{1000 * seconds:.0f} ms",
            ]
        )
    return [header, *rows]


def skills_rows(reports: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The README's table (header first): a row for each skill, success held at the end with its 95% interval."""
    header = [
        "task",
        "random",
        "scripted expert",
        "goal-conditioned cloning",
        "diffplan",
        "diffplan, states alone",
        "steps to goal (expert)",
        "training",
        "one plan",
    ]
    rows = []
    for report in reports:
        by_name = {row["method"]: row for row in report["rows"]}
        method = WIDE if WIDE in by_name else JOINT
        own, expert = by_name[method], by_name["scripted expert"]
        names = ("random policy", "scripted expert", CLONE, method, INVERSE)
        rows.append(
            [
                report["task"],
                *(share_of(by_name.get(name), "success_rate", "success_ci95") for name in names),
                f"{own['steps_to_goal_mean']:.0f} ({expert['steps_to_goal_mean']:.0f})",
                training_words(report["training"][method]),
                "" if own["plan_seconds_median"] is None else f"{1000 * own['plan_seconds_median']:.0f} ms",
            ]
        )
    return [header, *rows]
