"""How well guides get what they ask for, on paper and executed in MuJoCo.

Shape letters: T executed steps, O observations, P positions, n points.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.control import executor_for
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import MazeTask
from diffplan.envs.wishes import AVOID_CLEARANCE, AVOID_WEIGHT, feasible_for
from diffplan.planner.guides import Guide, avoid, speed, via
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan

from .scenarios import Scenario

Array = NDArray[np.float64]
Wish = Callable[[Scenario, float], Guide | None]
"""A pair and its speed limit to a guide."""

NEAR = 0.15  # metres at which a via counts as passed
SLOWER = 0.8  # share of the unguided plan's top speed that is allowed
OVER = 1.05  # of the speed limit that is forgiven


@dataclass(frozen=True)
class Outcome:
    """What became of one pair; speeds as executed.

    Attributes:
        touched: the ball came into the disc.
        passed: it came within `NEAR` of the via.
        via_distance: least distance from the via, metres.
        top_speed: metres per second.
        reached: on paper: the plan ends at the goal and touches no wall; executed: the goal was reached.
        steps: environment steps until arrival (the whole episode where it did not arrive).
    """

    touched: bool
    passed: bool
    via_distance: float
    top_speed: float
    reached: bool
    steps: int


def watch(task: MazeTask, scene: Scenario, path: Array, speeds: Array, *, reached: bool, steps: int) -> Outcome:
    """Measure a path (n, P) and its speeds (n,)."""
    points = torch.from_numpy(np.ascontiguousarray(path, dtype=np.float64))
    away = float(np.hypot(path[:, 0] - scene.via.x, path[:, 1] - scene.via.y).min())
    touched = float(scene.disc.clearance(points).min()) < task.agent_radius
    return Outcome(touched, away <= NEAR, away, float(speeds.max()), reached, steps)


def on_paper(
    planner: TrajectoryPlanner, task: MazeTask, scene: Scenario, guide: Guide | None, *, checked: bool, **options: Any
) -> Plan:
    """Plan a pair; `checked` puts candidates that touch a wall or a disc last, as `diffplan plan` does."""
    feasible = feasible_for(task, guide) if checked else None
    problem = planner.problem([*scene.start, 0.0, 0.0], list(scene.goal))
    generator = torch.Generator().manual_seed(scene.seed)
    return planner.plan(problem, guide=guide, generator=generator, feasible=feasible, **options)


def paper_outcome(task: MazeTask, scene: Scenario, plan: Plan) -> Outcome:
    """What a plan promises, looked at between its tokens too."""
    path = np.asarray(plan.path(), dtype=float)
    speeds = np.array([plan.top_speed()])
    reached = bool(task.feasible(plan)[0])
    return watch(task, scene, path, speeds, reached=reached, steps=plan.steps)


def executed_outcome(
    planner: TrajectoryPlanner, task: MazeTask, scene: Scenario, guide: Guide | None, **options: Any
) -> Outcome:
    """What happens in MuJoCo until the goal is reached, replanning as the task does, candidates checked."""
    with Simulators(task, 1, start=scene.start, goal=scene.goal) as simulators:
        executor = executor_for(
            planner,
            task,
            simulators,
            tempo=1.0,
            guide=guide,
            feasible=feasible_for(task, guide),
            keep_plans=False,
            **options,
        )
        states = []
        for moment in executor.moments(steps=task.episode_steps, seeds=[scene.seed]):
            states.append(moment.observations[0])
            if task.reached(moment.observations[0], scene.goal):
                break
    path = np.array(states, dtype=float)
    reached = bool(task.reached(path[-1], scene.goal))
    spec = task.spec
    speeds = np.linalg.norm(path[:, spec.velocity_indices], axis=1)
    return watch(task, scene, path[:, spec.position_indices], speeds, reached=reached, steps=len(path) - 1)


@dataclass(frozen=True)
class Row:
    """One row of the composition table: shares of pairs."""

    wish: str
    where: str
    candidates: int
    pairs: int
    touched: float
    slow_enough: float
    passed: float
    reached: float
    all_kept: float
    steps: float


def row(
    wish: str, where: str, candidates: int, outcomes: Sequence[Outcome], limits: Sequence[float], asked: Sequence[str]
) -> Row:
    """Shares over pairs; `all_kept`: everything `asked` for ("avoid", "speed", "via") and the goal reached."""
    kept = {
        "avoid": [not o.touched for o in outcomes],
        "speed": [o.top_speed <= OVER * limit for o, limit in zip(outcomes, limits, strict=True)],
        "via": [o.passed for o in outcomes],
        "goal": [o.reached for o in outcomes],
    }
    every = np.all([kept[name] for name in (*asked, "goal")], axis=0)
    shares = {name: round(float(np.mean(values)), 3) for name, values in kept.items()}
    steps = round(float(np.mean([o.steps for o in outcomes])), 1)
    return Row(
        wish,
        where,
        candidates,
        len(outcomes),
        round(1 - shares["avoid"], 3),
        shares["speed"],
        shares["via"],
        shares["goal"],
        round(float(every.mean()), 3),
        steps,
    )


def keep_out(task: MazeTask, scene: Scenario) -> Guide:
    """As `diffplan plan --avoid` asks it."""
    margin = task.agent_radius + AVOID_CLEARANCE
    return AVOID_WEIGHT * avoid(scene.disc.x, scene.disc.y, scene.disc.radius, margin=margin)


VIA_WEIGHT, SPEED_WEIGHT = 300.0, 0.03


def wishes(task: MazeTask) -> dict[str, tuple[Wish, tuple[str, ...]]]:
    """Rows of the composition table: a guide for each pair, and what it asks for."""

    def out(s: Scenario, limit: float) -> Guide:
        return keep_out(task, s)

    def slow(s: Scenario, limit: float) -> Guide:
        return SPEED_WEIGHT * speed(limit)

    def by(s: Scenario, limit: float) -> Guide:
        return VIA_WEIGHT * via(s.via.x, s.via.y)

    return {
        "nothing": (lambda s, limit: None, ()),
        "avoid": (out, ("avoid",)),
        "speed": (slow, ("speed",)),
        "via": (by, ("via",)),
        "avoid + speed + via": (lambda s, v: out(s, v) + slow(s, v) + by(s, v), ("avoid", "speed", "via")),
    }


def composition(
    planner: TrajectoryPlanner, task: MazeTask, scenes: Sequence[Scenario], *, candidates: int
) -> Generator[str, None, list[dict[str, Any]]]:
    """Shares of pairs that get what was asked: plans by guides alone, plans checked against the map, and executed.

    Several wishes at once get twice the candidates.
    """
    plain = [paper_outcome(task, s, on_paper(planner, task, s, None, checked=False)) for s in scenes]
    limits, rows = [SLOWER * o.top_speed for o in plain], []
    for where in ("plan, guides alone", "plan", "executed"):
        for name, (make, asked) in wishes(task).items():
            began, outcomes = time.monotonic(), []
            count = candidates * (2 if len(asked) > 1 else 1) if asked else planner.sampling.candidates
            for s, limit in zip(scenes, limits, strict=True):
                guide = make(s, limit)
                if where == "executed":
                    outcomes.append(executed_outcome(planner, task, s, guide, candidates=count))
                else:
                    plan = on_paper(planner, task, s, guide, checked=where == "plan", candidates=count)
                    outcomes.append(paper_outcome(task, s, plan))
            made = row(name, where, count, outcomes, limits, asked)
            rows.append(asdict(made))
            yield f"{made} ({time.monotonic() - began:.0f} s)"
    return rows
