"""Robots led by returns, beside what they learned from: the data, its clone, and the same planner without a guide.

Shape letters: N episodes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.envs.datasets import describe, load_episodes
from diffplan.envs.runs import load_planner
from diffplan.envs.tasks import RobotTask
from diffplan.envs.wishes import parse_wishes
from diffplan.planner.episodes import Episodes
from diffplan.planner.pipeline import TrajectoryPlanner

from .baselines import run_policy
from .cloning import ClonedPolicy, clone
from .evaluate import Evaluation, episode_seeds, evaluate, number
from .metrics import mean_interval, normalized_score
from .robot_report import plus_minus


def compare(run: str, dataset: str, episodes: int, seed: int) -> Generator[str, None, dict[str, Any]]:
    """All rows of one task, yielding a line after each."""
    planner, task = load_planner(run)
    assert isinstance(task, RobotTask)
    data = load_episodes(dataset, task)
    seeds = episode_seeds(seed, episodes)
    returns = {"the data": recorded_returns(task, data)}
    rows = [row("the data", task, returns["the data"], data.lengths.astype(float))]
    yield _line(rows[-1])
    policy = _cloned(data)
    run_rewards = run_policy(task, policy, seeds=seeds)
    returns["behaviour cloning"] = np.array([r.sum() for r in run_rewards])
    rows.append(row("behaviour cloning", task, returns["behaviour cloning"], _lengths(run_rewards)))
    yield _line(rows[-1])
    for name, guides in (("diffplan, unguided", ()), ("diffplan", task.guides)):
        began = time.monotonic()
        done = _episodes(planner, task, guides, seeds)
        returns[name] = np.array([r.rewards.sum() for r in done.rollouts])
        rows.append(row(name, task, returns[name], _lengths([r.rewards for r in done.rollouts])))
        rows[-1] |= {"guides": list(guides), "faults": list(done.faults)}
        yield f"{_line(rows[-1])} ({time.monotonic() - began:.0f} s)"
    return {
        "task": task.name,
        "seed": seed,
        "episodes": episodes,
        "rows": rows,
        "above": {name: above(returns["diffplan"], returns[name], paired=name != "the data") for name in returns},
        "data": describe(dataset).provenance if "+" not in dataset else {},
        "sampling": dataclasses.asdict(planner.sampling),
        "device": str(planner.device),
    }


def recorded_returns(task: RobotTask, episodes: Episodes) -> NDArray[np.float64]:
    """Undiscounted returns (N,) of a task's recorded episodes, without what a fall costs in training."""
    assert episodes.rewards is not None and episodes.terminated is not None
    paid = np.add.reduceat(episodes.rewards.astype(np.float64), episodes.offsets[:-1])
    return paid + task.fall_penalty * episodes.terminated


def row(name: str, task: RobotTask, returns: NDArray[np.float64], lengths: NDArray[np.float64]) -> dict[str, Any]:
    """One method's numbers."""
    interval = mean_interval(returns)
    scores = None if task.score_range is None else mean_interval(normalized_score(returns, *task.score_range))
    return {
        "method": name,
        "episodes": len(returns),
        "return_mean": number(interval.mean, 2),
        "return_ci95": number(interval.ci95, 2),
        "score_normalized_own_data": None if scores is None else number(scores.mean, 2),
        "score_normalized_own_data_ci95": None if scores is None else number(scores.ci95, 2),
        "steps_mean": round(float(lengths.mean()), 1),
        "upright_rate": round(float((lengths == task.episode_steps).mean()), 4),
    }


def above(ours: NDArray[np.float64], others: NDArray[np.float64], *, paired: bool) -> dict[str, Any]:
    """How far our returns lie above others', with the 95% interval of the difference; pairs share their seeds."""
    if paired:
        gap = mean_interval(ours - others)
        mean, half = gap.mean, gap.ci95
    else:
        a, b = mean_interval(ours), mean_interval(others)
        mean, half = a.mean - b.mean, float(np.hypot(a.ci95, b.ci95))
    ratio = round(float(ours.mean() / others.mean()), 3) if others.mean() > 0 else None
    return {"mean": number(mean, 2), "ci95": number(half, 2), "significant": bool(mean > half), "ratio": ratio}


def _cloned(data: Episodes) -> ClonedPolicy:
    *_, made = clone(data)
    assert isinstance(made, ClonedPolicy)
    return made


def _episodes(planner: TrajectoryPlanner, task: RobotTask, guides: Sequence[str], seeds: list[int]) -> Evaluation:
    guide = parse_wishes(task, planner, guides=guides)
    *_, done = evaluate(planner, task, episodes=len(seeds), seeds=seeds, guide=guide, references=False)
    assert isinstance(done, Evaluation)
    return done


def _lengths(rewards: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    return np.array([float(len(r)) for r in rewards])


def _line(made: dict[str, Any]) -> str:
    return f"{made['method']}: return {plus_minus(made)}, {made['steps_mean']:.0f} steps"
