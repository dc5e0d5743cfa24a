"""How often a robot can plan: this planner beside Diffuser's own recipe, in one run on one machine.

Shape letters: B environments.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from diffplan.envs.control import executor_for
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import Task
from diffplan.envs.wishes import parse_wishes
from diffplan.planner.execution import Moment
from diffplan.planner.pipeline import TrajectoryPlanner

from .evaluate import episode_seeds
from .metrics import mean_interval

TOGETHER = (1, 64)  # environments
WARM_UP = {"diffplan": 3, "paper": 1}  # control steps that are not timed: the first has no plan of its own
TURN_SECONDS, TURNS = 5.0, 2  # the two take turns, so that a noisy machine disturbs both alike
MOST_STEPS = 100  # of a turn


def control_frequency(
    runs: dict[str, str], *, seed: int, counts: tuple[int, ...] = TOGETHER
) -> Iterator[str | dict[str, Any]]:
    """Control steps per second of each run and number of environments, yielding a line each and, last, the numbers.

    A control step is everything: planning for all environments, and stepping them.
    """
    planners = {name: load_planner(run) for name, run in runs.items()}
    rows: list[dict[str, Any]] = []
    for count in counts:
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(TURNS):
            for name, (planner, task) in planners.items():
                times[name] += _timed(planner, task, WARM_UP[name], episode_seeds(seed + turn, count))
        for name, seconds in times.items():
            median = statistics.median(seconds)
            rows.append(
                {
                    "preset": name,
                    "environments": count,
                    "hertz": round(1 / median, 3),
                    "milliseconds_median": round(1000 * median, 2),
                    "milliseconds_p10_p90": [round(1000 * float(q), 2) for q in np.quantile(seconds, (0.1, 0.9))],
                    "control_steps": len(seconds),
                    "environment_steps_per_second": round(count / median, 1),
                }
            )
            yield f"{name}, {count} environments: {1000 * median:.1f} ms a control step, {1 / median:.2f} Hz"
    found = {(row["preset"], row["environments"]): row["milliseconds_median"] for row in rows}
    yield {
        "rows": rows,
        "times_faster": {str(n): round(found["paper", n] / found["diffplan", n], 1) for n in counts},
        "device": str(next(iter(planners.values()))[0].device),
        "cpu_threads": torch.get_num_threads(),
    }


def first_steps(runs: dict[str, str], *, seed: int, episodes: int, steps: int) -> Iterator[str | dict[str, Any]]:
    """Returns of each run over the first steps of the same episodes: what the time that planning takes is worth."""
    rows: dict[str, Any] = {"episodes": episodes, "steps": steps}
    earned = {}
    for name, run in runs.items():
        planner, task = load_planner(run)
        began = time.monotonic()
        moments = list(_moments(planner, task, episodes, steps, episode_seeds(seed, episodes)))
        earned[name] = np.sum([m.rewards for m in moments], axis=0)
        interval = mean_interval(earned[name])
        rows[name] = {"return_mean": round(interval.mean, 2), "return_ci95": round(interval.ci95, 2)}
        yield f"{name}: return {interval} over {steps} steps ({time.monotonic() - began:.0f} s)"
    gap = mean_interval(earned["diffplan"] - earned["paper"])
    yield rows | {"difference": {"mean": round(gap.mean, 2), "ci95": round(gap.ci95, 2)}}


def _timed(planner: TrajectoryPlanner, task: Task, warm_up: int, seeds: list[int]) -> list[float]:
    """Seconds of each control step after the warm-up, one at least, until the turn's time is over."""
    stamps: list[float] = []
    for _ in _moments(planner, task, len(seeds), MOST_STEPS, seeds):
        if planner.device.type == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        if len(stamps) > warm_up + 1 and stamps[-1] - stamps[warm_up] > TURN_SECONDS:
            break
    return np.diff(stamps[warm_up:]).tolist()


def _moments(planner: TrajectoryPlanner, task: Task, count: int, steps: int, seeds: list[int]) -> Iterator[Moment]:
    with Simulators(task, count) as simulators:
        guide = parse_wishes(task, planner, guides=task.guides)
        executor = executor_for(planner, task, simulators, replan_every=1, guide=guide, keep_plans=False)
        yield from executor.moments(steps=steps, seeds=seeds)
