"""What learned returns and legs are good for, executed in MuJoCo: no goal given, roundabout data, stitching."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import numpy as np

from diffplan.envs.collect import REACH
from diffplan.envs.datasets import load_episodes
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import MazeTask, Task
from diffplan.planner.execution import Rollout
from diffplan.planner.guides import Guide, learned_return
from diffplan.planner.pipeline import TrajectoryPlanner

from .evaluate import Evaluation, episode_seeds, evaluate
from .metrics import first_touch, mean_interval

Rows = Generator[str, None, list[dict[str, Any]]]

RETURN_WEIGHT = 3.0  # with nothing but the return to lead
PACE_WEIGHT = 0.03  # beside a pinned goal


def returns_alone(run: str | None, episodes: int, seed: int) -> Rows:
    """No goal is pinned: unguided plans wander, plans guided by the learned return find the rewarded place."""
    planner, task = load_planner(run, task="maze2d-umaze")
    guide = _return_guide(planner, task, RETURN_WEIGHT)
    settings: list[tuple[str, dict[str, Any]]] = [
        ("unguided", {}),
        *(
            (f"return@{RETURN_WEIGHT:g}, {way}", {"guide": guide, "guidance": way, "candidates": 16})
            for way in ("both", "gradient", "candidates", "particles")
        ),
    ]
    rows = []
    for label, options in settings:
        row, _ = _episodes(planner, task, episodes, seed, pin_goal=False, **options)
        rows.append({"label": label, **row})
        yield f"{rows[-1]}"
    return rows


def roundabout(run: str | None, episodes: int, seed: int) -> Rows:
    """Half of the data's routes are detours: how many steps until the goal is reached."""
    planner, task = load_planner(run, task="maze2d-umaze-roundabout")
    assert isinstance(task, MazeTask)
    guide = _return_guide(planner, task, PACE_WEIGHT)
    data = load_episodes(task.dataset, task)
    goal = task.maze.center(task.goal_cell or (1, 1))
    ends = data.observations[data.offsets[1:] - 1, :2]
    there = [task.maze.cell(end) == task.goal_cell or np.hypot(*(end - goal)) <= 0.5 for end in ends]
    rows: list[dict[str, Any]] = [
        {
            "label": "the data's episodes that end at the goal",
            "episodes": int(np.sum(there)),
            "steps_to_goal": asdict(mean_interval(data.lengths[there])),
        }
    ]
    settings: list[tuple[str, dict[str, Any]]] = [
        ("unguided, one sample", {"candidates": 1, "select": "first"}),
        ("unguided, most plausible of 8", {}),
        (f"return@{PACE_WEIGHT:g}, one sample", {"guide": guide, "candidates": 1, "select": "first"}),
        (f"return@{PACE_WEIGHT:g}, candidates", {"guide": guide, "guidance": "candidates"}),
        (f"return@{PACE_WEIGHT:g}, both", {"guide": guide}),
    ]
    reached: dict[str, Any] = {}
    for label, options in settings:
        row, steps = _episodes(planner, task, episodes, seed, **options)
        reached[label] = steps
        against = {
            name: asdict(mean_interval(steps - other)) for name, other in reached.items() if "unguided" in name != label
        }
        rows.append({"label": label, **row, "steps_fewer_than": against if "return" in label else {}})
        yield f"{rows[-1]}"
    return rows


def stitching(run: str | None, episodes: int, seed: int) -> Rows:
    """No episode of the data goes farther than a few cells: how often goals beyond that are reached."""
    planner, task = load_planner(run, task="multi2d-umaze-stitch")
    assert isinstance(task, MazeTask)
    seeds, distances = _far_pairs(task, episodes, seed)
    rows = []
    for legs, candidates in ((1, 16), (2, 16)):
        began = time.monotonic()
        row, _ = _episodes(planner, task, episodes, seed, seeds=seeds, legs=legs, candidates=candidates)
        hits = row.pop("reached")
        by_distance = {
            str(d): {"pairs": int((distances == d).sum()), "success_rate": round(float(hits[distances == d].mean()), 3)}
            for d in sorted(set(distances.tolist()))
        }
        rows.append(
            {"label": f"legs {legs}", "candidates": candidates, "reach_cells": REACH, **row, "by_cells": by_distance}
        )
        yield f"{rows[-1]} ({time.monotonic() - began:.0f} s)"
    return rows


def _far_pairs(task: MazeTask, count: int, seed: int) -> tuple[list[int], Any]:
    """Seeds of episodes whose goal lies more cells away than any episode of the data goes, and how many."""
    seeds, distances = [], []
    with Simulators(task, 1) as simulators:
        for candidate in episode_seeds(seed, 20 * count):
            observations, goals = simulators.reset([candidate])
            cells = len(task.maze.route(task.maze.cell(observations[0]), task.maze.cell(goals[0]))) - 1
            if cells > REACH:
                seeds.append(candidate)
                distances.append(cells)
            if len(seeds) == count:
                break
    return seeds, np.array(distances)


def _return_guide(planner: TrajectoryPlanner, task: Task, weight: float) -> Guide:
    if planner.returns is None:
        raise ValueError(
            f"this benchmark needs a return model; add one with: diffplan train {task.name} --only returns --output RUN"
        )
    return weight * learned_return(planner.returns)


def _episodes(
    planner: TrajectoryPlanner, task: Task, episodes: int, seed: int, **options: Any
) -> tuple[dict[str, Any], Any]:
    """One row, and each episode's steps until the goal was reached (all of them where it was not)."""
    for done in evaluate(planner, task, episodes=episodes, seed=seed, references=False, **options):
        if isinstance(done, Evaluation):
            result = done
    steps = np.array([_steps(rollout) for rollout in result.rollouts], dtype=float)
    hits = np.array([first_touch(rollout.rewards) is not None for rollout in result.rollouts])
    strict = result.stats.score_strict
    row = {
        "episodes": episodes,
        "score_strict": round(strict.mean, 2) if strict else None,
        "score_strict_ci95": round(strict.ci95, 2) if strict else None,
        "success_rate": result.stats.success_rate,
        "steps_to_goal": asdict(mean_interval(steps)),
        "plan_seconds_median": round(result.plan_seconds_median, 4),
    }
    return (row | {"reached": hits}) if "seeds" in options else row, steps


def _steps(rollout: Rollout) -> int:
    touched = first_touch(rollout.rewards)
    return len(rollout.rewards) if touched is None else touched + 1
