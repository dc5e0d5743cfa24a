"""What is measured in a maze: each function runs one cell of `diffplan bench maze` and returns its numbers for JSON.

Shape letters: N episodes, P positions, n points of a path.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.control import executor_for
from diffplan.envs.datasets import load_episodes
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import MazeTask, Task, find_task
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.racing import courses
from diffplan.planner.windows import Windows, consistency

from .baselines import policies, run_policy
from .bound import bound_rewards, fastest
from .evaluate import Evaluation, Stats, episode_seeds, evaluate, number, stats_record, summarize
from .metrics import wilson

LONGEST_TIMED = 500  # milliseconds for each plan that is to be timed: of slow ones there are fewer, a quarter at least
GALLERY = 5  # pairs
BOUND = "time-optimal bound"

Numbers = dict[str, Any]


def maze(name: str) -> MazeTask:
    task = find_task(name)
    assert isinstance(task, MazeTask)
    return task


def reference(name: str, method: str, episodes: int, seed: int) -> Numbers:
    """Random policy, waypoint controller or the bound."""
    task, seeds = maze(name), episode_seeds(seed, episodes)
    began = time.monotonic()
    if method == BOUND:
        return stats_of(summarize(method, task, list(bound_rewards(task, seeds))))
    rewards = run_policy(task, policies(task, seeds)[method], seeds=seeds)
    rate = sum(len(r) for r in rewards) / (time.monotonic() - began)
    return stats_of(summarize(method, task, rewards)) | {"steps_per_second": number(rate, 0)}


def measured(run: str, name: str, episodes: int, seed: int, **options: Any) -> Numbers:
    """A planner under the protocol."""
    planner, task = load_planner(run, task=name)
    *_, done = evaluate(planner, task, episodes=episodes, seed=seed, references=False, timed=0, **options)
    assert isinstance(done, Evaluation)
    return stats_of(done.stats) | {"plans": done.plans, "faults": list(done.faults)}


def stats_of(stats: Stats) -> Numbers:
    """Statistics, with Wilson's 95% interval of the success rate (which has one at 0 and 1 too)."""
    assert stats.success_rate is not None
    return stats_record(stats) | {
        "success_ci95": [number(v, 4) for v in wilson(stats.success_rate, stats.episodes)],
        "episodes": stats.episodes,
    }


def cost(run: str, name: str, seed: int, *, timed: int, **options: Any) -> Numbers:
    """Parameters, milliseconds of one plan with its course, and steps per second of one environment, plans included."""
    planner, task = load_planner(run, task=name)
    with Simulators(task, 1) as simulators:
        executor = executor_for(planner, task, simulators, keep_plans=False, **options)
        times, chosen = [], dict[str, Any](executor.options)
        for own in itertools.chain([0], range(timed)):  # the first one warms up
            observations, goals = simulators.reset([own])
            plan = planner.plan(planner.problem(observations[0].tolist(), goals[0].tolist()), **chosen)
            began = time.perf_counter()
            if executor.hasten is not None:
                executor.hasten([plan])
            times.append(1000 * (plan.seconds + time.perf_counter() - began))
            if len(times) > timed / 4 and sum(times) > timed * LONGEST_TIMED:
                break
        began = time.perf_counter()
        moments = list(executor.moments(steps=task.episode_steps, seeds=episode_seeds(seed, 1)))
        rate = (len(moments) - 1) / (time.perf_counter() - began)
    return {
        "parameters": sum(p.numel() for p in planner.denoiser.parameters()),
        "plans_timed": len(times) - 1,
        "plan_ms_median": number(statistics.median(times[1:]), 1),
        "plan_ms_p95": number(float(np.quantile(times[1:], 0.95)), 1),
        "steps_per_second": number(rate, 0),
    }


def quality(run: str, name: str, pairs: int, seed: int) -> Numbers:
    """First plans: how many touch walls, before and after they are smoothed, and how far they agree with themselves."""
    planner, task = load_planner(run, task=name)
    assert isinstance(task, MazeTask)
    *_, plans = _first_plans(planner, task, episode_seeds(seed, pairs))
    laid = courses(planner.plant, plans) if planner.plant is not None else []
    windows = Windows(load_episodes(task.dataset, task), task.spec, horizon=task.horizon)
    seen, lengths = windows.sample(1000, torch.Generator().manual_seed(seed))
    own = [_agreement(planner, torch.from_numpy(p.trajectories[:1]), p.arrivals[:1]) for p in plans]
    return {
        "pairs": pairs,
        "plans_touching_walls": number(float(np.mean([task.maze.touches_wall(p.path()) for p in plans])), 4),
        "courses_touching_walls": number(float(np.mean([task.maze.touches_wall(c.positions) for c in laid])), 4)
        if laid
        else None,
        "consistency_plans": number(float(np.concatenate(own).mean()), 4),
        "consistency_data": number(float(_agreement(planner, seen, lengths.numpy()).mean()), 4),
    }


def _agreement(planner: TrajectoryPlanner, trajectories: torch.Tensor, arrivals: NDArray[np.int64]) -> NDArray[Any]:
    """|position step - mean velocity * time| of every step before arrival, in metres."""
    errors = consistency(planner.spec, trajectories).numpy()
    return np.asarray(errors[np.arange(errors.shape[1]) < np.asarray(arrivals)[:, None]])


def gallery(run: str, name: str, seed: int) -> list[Numbers]:
    """Some pairs: the plan, its course, what was driven, and the fastest way there is."""
    planner, task = load_planner(run, task=name)
    assert isinstance(task, MazeTask)
    seeds = _far_apart(task, episode_seeds(seed, 40))
    observations, goals, plans = _first_plans(planner, task, seeds)
    with Simulators(task, len(seeds)) as simulators:
        executor = executor_for(planner, task, simulators)
        rollouts = executor.run(steps=task.episode_steps, seeds=seeds)
    made = []
    for start, goal, plan, rollout in zip(observations, goals, plans, rollouts, strict=True):
        there = np.flatnonzero(rollout.rewards > 0)
        driven = rollout.states[: there[0] + 2 if len(there) else None, :2]
        laid = courses(planner.plant, [plan])[0].positions if planner.plant is not None else plan.path()
        ways = {
            "plan": plan.path(every=2),
            "course": laid,
            "driven": driven,
            "fastest": fastest(task.maze, start, goal).path,
        }
        points = {key: np.round(np.asarray(way, dtype=float), 3).tolist() for key, way in ways.items()}
        made.append({"start": np.round(start[:2], 3).tolist(), "goal": np.round(goal, 3).tolist(), **points})
    return made


def _far_apart(task: MazeTask, seeds: Sequence[int]) -> list[int]:
    """Seeds of the episodes with the longest ways, no two of which begin in the same cell."""
    with Simulators(task, len(seeds)) as simulators:
        observations, goals = simulators.reset(seeds)
    cells = [(task.maze.cell(o[:2]), task.maze.cell(g)) for o, g in zip(observations, goals, strict=True)]
    order = sorted(range(len(seeds)), key=lambda i: -len(task.maze.route(*cells[i])))
    chosen: dict[Any, int] = {}
    for i in order:
        chosen.setdefault(cells[i][0], seeds[i])
    return list(chosen.values())[:GALLERY]


def _first_plans(
    planner: TrajectoryPlanner, task: Task, seeds: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any], list[Plan]]:
    with Simulators(task, len(seeds)) as simulators:
        observations, goals = simulators.reset(seeds)
    problems = [planner.problem(o.tolist(), g.tolist()) for o, g in zip(observations, goals, strict=True)]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    return observations, goals, planner.plan_many(problems, generators=generators)
