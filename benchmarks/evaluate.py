"""The measuring protocol: episodes of a task under a planner, beside references in the same run."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffplan.envs.control import executor_for
from diffplan.envs.simulators import side_by_side
from diffplan.envs.tasks import HandTask, MazeTask, OgbenchTask, RobotTask, Task
from diffplan.envs.tasks.task import episode_seeds as episode_seeds
from diffplan.planner.execution import Rollout
from diffplan.planner.guides import Cost, Guide
from diffplan.planner.pipeline import TrajectoryPlanner

from .baselines import run_policies
from .metrics import Interval, first_touch, latched_returns, mean_interval, normalized_score, strict_returns, wilson
from .ogbench import protocol_record, published, success_by_task

TIMED_PLANS = 20


@dataclass(frozen=True)
class Stats:
    """What N episodes came to; scores are None for tasks without a published range.

    Mazes have strict and latched scores, success and steps to the goal; robots a normalised score, which for data of
    our own is no more than a scale, and the share of episodes that did not end in a fall; hands D4RL's normalised score
    and success. Where a goal has to be held at the end, that is success, and `ever_rate` counts who was ever there.
    """

    name: str
    episodes: int
    returns: Interval
    score_strict: Interval | None = None
    score_latched: Interval | None = None
    success_rate: float | None = None
    steps_to_goal: float | None = None
    normalized: Interval | None = None
    steps: float = 0.0
    upright: float | None = None
    by_task: dict[str, float] = field(default_factory=dict)
    ever_rate: float | None = None


def summarize(name: str, task: Task, rewards: Sequence[Any], *, seeds: Sequence[int] = ()) -> Stats:
    """Statistics over the rewards (T,) of each episode; its seed says which task of OGBench's five it was about."""
    steps = float(np.mean([len(r) for r in rewards]))
    strict, touches = strict_returns(rewards), [first_touch(task.achieved(r)) for r in rewards]
    if isinstance(task, RobotTask):
        return Stats(
            name,
            len(rewards),
            mean_interval(strict),
            normalized=task.score_range and mean_interval(normalized_score(strict, *task.score_range)),
            steps=steps,
            upright=float(np.mean([len(r) == task.episode_steps for r in rewards])),
        )
    hits = [t + 1 for t in touches if t is not None]
    ever = len(hits) / len(rewards)
    held = float(np.mean([bool(task.achieved(r)[-1]) for r in rewards]))
    scores: list[Interval | None] = [None, None]
    if isinstance(task, MazeTask) and task.score_range is not None:
        scores = [mean_interval(normalized_score(r, *task.score_range)) for r in (strict, latched_returns(rewards))]
    return Stats(
        name,
        len(rewards),
        mean_interval(strict),
        scores[0],
        scores[1],
        held if task.held_at_end else ever,
        float(np.mean(hits)) if hits else None,
        normalized=mean_interval(normalized_score(strict, *task.score_range)) if isinstance(task, HandTask) else None,
        steps=steps,
        by_task=success_by_task(task, seeds, rewards) if isinstance(task, OgbenchTask) and seeds else {},
        ever_rate=ever if task.held_at_end else None,
    )


@dataclass(frozen=True)
class Evaluation:
    """The planner's statistics, its references', and how fast it planned."""

    stats: Stats
    references: tuple[Stats, ...]
    rollouts: tuple[Rollout, ...]
    plan_seconds_median: float
    plans: int
    faults: tuple[str, ...] = ()


def evaluate(
    planner: TrajectoryPlanner,
    task: Task,
    *,
    episodes: int = 100,
    seed: int = 0,
    replan_every: int | None = None,
    controller: str = "auto",
    tempo: float | None = None,
    guide: Guide | Cost | None = None,
    pin_goal: bool = True,
    references: bool = True,
    seeds: Sequence[int] | None = None,
    timed: int = TIMED_PLANS,
    **options: Any,
) -> Iterator[float | Evaluation]:
    """Run the protocol, yielding the share done and, last, the `Evaluation`.

    Args:
        planner: under test.
        task: its environment.
        episodes: run side by side, planned in one batch, as far as the task's memory allows.
        seed: of starts, goals and noise.
        replan_every: environment steps between plans; None takes the task's.
        controller: see `envs.control.controller_for`.
        tempo: how much faster than planned plans are followed; None takes the task's.
        guide: what plans should prefer.
        pin_goal: give the planner the goal; without it only the guide leads there.
        seeds: of the episodes, instead of those that `seed` makes.
        references: also run the policies that set the scale.
        timed: single plans that are timed; none leaves their median out (NaN).
        **options: fields of `options.Sampling`.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    seeds = task.seeds(seed, episodes) if seeds is None else list(seeds)
    if len(seeds) != episodes:
        raise ValueError(f"{episodes} episodes need as many seeds, got {len(seeds)}")
    rollouts: list[Rollout] = []
    faults: list[str] = []
    for simulators, group in side_by_side(task, seeds):
        executor = executor_for(
            planner,
            task,
            simulators,
            controller=controller,
            tempo=tempo,
            guide=guide,
            pin_goal=pin_goal,
            replan_every=replan_every,
            keep_plans=False,
            **options,
        )
        moments = []
        for moment in executor.moments(steps=task.episode_steps, seeds=group):
            moments.append(moment)
            yield (len(rollouts) + len(group) * moment.step / task.episode_steps) / episodes
        rollouts += executor.rollouts(moments)
        faults += simulators.faults.values()
    others = run_policies(task, seeds) if references else {}
    yield Evaluation(
        summarize("diffplan", task, [r.rewards for r in rollouts], seeds=seeds),
        tuple(summarize(name, task, rewards, seeds=seeds) for name, rewards in others.items()),
        tuple(rollouts),
        _one_plan_seconds(planner, rollouts[:timed], guide, pin_goal, executor.options, timed),
        sum(len(r.plan_steps) for r in rollouts),
        tuple(faults),
    )


def stats_record(stats: Stats) -> dict[str, Any]:
    """Statistics as JSON values; infinite and missing ones become null."""
    numbers = {
        **_interval("score_strict", stats.score_strict),
        "score_latched": number(None if stats.score_latched is None else stats.score_latched.mean),
        "success_rate": stats.success_rate,
        "steps_to_goal_mean": number(stats.steps_to_goal),
        "return_mean": number(stats.returns.mean),
        "return_ci95": number(stats.returns.ci95),
    }
    if stats.ever_rate is not None and stats.success_rate is not None:
        return numbers | {
            "success_ci95": [number(v, 4) for v in wilson(stats.success_rate, stats.episodes)],
            "success_ever_rate": stats.ever_rate,
        }
    if stats.by_task and stats.success_rate is not None:
        return numbers | protocol_record(stats.success_rate, stats.episodes, stats.by_task)
    if stats.upright is None:
        return numbers | (_interval("score_normalized", stats.normalized) if stats.normalized else {})
    return numbers | {
        **_interval("score_normalized_own_data", stats.normalized),
        "steps_mean": number(stats.steps),
        "upright_rate": stats.upright,
    }


def _interval(name: str, interval: Interval | None) -> dict[str, float | None]:
    known = (None, None) if interval is None else (interval.mean, interval.ci95)
    return dict(zip((name, f"{name}_ci95"), map(number, known), strict=True))


def record(
    evaluation: Evaluation, task: Task, *, seed: int, device: str, versions: dict[str, str], command: str
) -> dict[str, Any]:
    """As one JSON object; infinite and missing values become null."""
    stats = evaluation.stats
    return (
        task.record()
        | {"episodes": stats.episodes, "seed": seed}
        | stats_record(stats)
        | {
            "plan_seconds_median": round(evaluation.plan_seconds_median, 5),
            "plans": evaluation.plans,
            "faults": list(evaluation.faults),
            "device": device,
            "references": {s.name: stats_record(s) for s in evaluation.references},
            **({"published": published(task)} if isinstance(task, OgbenchTask) else {}),
            "versions": versions,
            "command": command,
        }
    )


def _one_plan_seconds(
    planner: TrajectoryPlanner,
    rollouts: Sequence[Rollout],
    guide: Guide | Cost | None,
    pin_goal: bool,
    options: dict[str, Any],
    timed: int,
) -> float:
    """Median time of a single plan, one environment at a time, from starts of these rollouts."""
    times = []
    for rollout in itertools.islice(itertools.cycle(rollouts), timed):
        goal = rollout.goal.tolist() if len(rollout.goal) and pin_goal else None
        times.append(planner.plan(planner.problem(rollout.states[0].tolist(), goal), guide=guide, **options).seconds)
    return statistics.median(times) if times else float("nan")


def number(value: float | None, digits: int = 3) -> float | None:
    """For JSON: rounded; None where it is missing or not finite."""
    return None if value is None or not np.isfinite(value) else round(float(value), digits)
