"""How well guides get what they ask for, on paper and executed in MuJoCo.

Shape letters: T executed steps, O observations, P positions, n points.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.control import controller_for
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import MazeTask
from diffplan.envs.wishes import AVOID_CLEARANCE, AVOID_WEIGHT, feasible_for
from diffplan.planner.execution import Executor
from diffplan.planner.guides import Guide, avoid, effort, goal, learned_return, length, smooth, speed, via, wall
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan

from .scenarios import Scenario

Array = NDArray[np.float64]
Wish = Callable[[Scenario, float], Guide | None]
"""A pair and its speed limit to a guide."""

NEAR = 0.15  # metres at which a via counts as passed
SLOWER = 0.8  # share of the unguided plan's top speed that is allowed
OVER = 1.05  # of the speed limit that is forgiven
COMPARED = ("avoid", "via", "length", "return")  # guides for which samplers and ways are compared


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
        executor = Executor(
            planner,
            simulators,
            controller=controller_for(task),
            replan_every=task.replan_every,
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
    """Shares of pairs that get what was asked: plans by guides alone, plans checked against the map, and executed."""
    plain = [paper_outcome(task, s, on_paper(planner, task, s, None, checked=False)) for s in scenes]
    limits, rows = [SLOWER * o.top_speed for o in plain], []
    for where in ("plan, guides alone", "plan", "executed"):
        for name, (make, asked) in wishes(task).items():
            began, outcomes = time.monotonic(), []
            count = candidates if asked else planner.sampling.candidates
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


# ---------------------------------------------------------------------- one guide, its own quantity


@dataclass(frozen=True)
class Dial:
    """A guide to be turned up: its weights, and the quantity that it is about (lower is what it wants)."""

    name: str
    unit: str
    weights: tuple[float, ...]
    make: Callable[[Scenario], Guide]
    free_end: bool = False


def dials(planner: TrajectoryPlanner, task: MazeTask) -> list[Dial]:
    """Every guide of the family."""
    made = [
        Dial("avoid", "depth^2 / size^2", (1, 10, 100), lambda s: avoid(s.disc.x, s.disc.y, s.disc.radius, margin=0.2)),
        Dial("via", "m^2", (3, 30, 300), lambda s: via(s.via.x, s.via.y)),
        Dial("wall", "lack^2 / margin^2", (1, 10, 100), lambda s: wall(task.clearance(), 0.3)),
        Dial("speed", "(m/s)^2", (0.03, 0.3, 3), lambda s: speed(3.0)),
        Dial("effort", "action^2", (10, 100, 1000), lambda s: effort()),
        Dial("smooth", "(m/s^2)^2", (0.01, 0.1, 1), lambda s: smooth()),
        Dial("length", "s", (1, 10, 100), lambda s: length()),
        Dial("goal", "m", (1, 10, 100), lambda s: goal(*s.goal), free_end=True),
    ]
    if planner.returns is not None:
        returns = planner.returns
        made.append(Dial("return", "-return", (0.1, 1, 10), lambda s: learned_return(returns), free_end=True))
    return made


def turned(
    planner: TrajectoryPlanner, task: MazeTask, scenes: Sequence[Scenario], dial: Dial, weight: float, **options: Any
) -> tuple[float, float, float]:
    """Mean of a guide's own quantity over the chosen plans, half its 95% interval, and the median seconds of a plan."""
    costs, seconds = [], []
    for s in scenes:
        guide = dial.make(s)
        problem = planner.problem([*s.start, 0.0, 0.0], None if dial.free_end else list(s.goal))
        generator = torch.Generator().manual_seed(s.seed)
        plan = planner.plan(problem, guide=weight * guide, generator=generator, **options)
        costs.append(-float(planner.score(guide, plan)[0]))
        seconds.append(plan.seconds)
    half = 1.96 * statistics.stdev(costs) / len(costs) ** 0.5
    return statistics.mean(costs), half, statistics.median(seconds)


def monotone(
    planner: TrajectoryPlanner, task: MazeTask, scenes: Sequence[Scenario]
) -> Generator[str, None, list[dict[str, Any]]]:
    """Each guide's own quantity against its weight, by gradients alone on a single sample."""
    rows = []
    options = {"candidates": 1, "select": "first", "guidance": "gradient"}
    for dial in dials(planner, task):
        weights = (0.0, *dial.weights)
        means = [turned(planner, task, scenes, dial, w, **options)[0] for w in weights]
        falls = all(b < a for a, b in zip(means, means[1:], strict=False))
        rows.append(
            {
                "guide": dial.name,
                "unit": dial.unit,
                "weights": list(weights),
                "quantity": [round(m, 4) for m in means],
                "monotone": falls,
            }
        )
        yield f"{dial.name}: {[round(m, 4) for m in means]} at weights {list(weights)}, monotone {falls}"
    return rows


def samplers(
    planner: TrajectoryPlanner, task: MazeTask, scenes: Sequence[Scenario]
) -> Generator[str, None, list[dict[str, Any]]]:
    """The same weights with three samplers: the guides' quantities should agree."""
    rows = []
    kinds = {"ddim": {"steps": 16}, "ddpm": {"steps": 32}, "dpm++": {"steps": 16}}
    for dial in dials(planner, task):
        if dial.name not in COMPARED:
            continue
        for weight in (0.0, dial.weights[1]):
            numbers = {}
            for name, extra in kinds.items():
                options = {"candidates": 1, "select": "first", "guidance": "gradient", "temperature": 1.0}
                mean, half, _ = turned(planner, task, scenes, dial, weight, sampler=name, **options, **extra)
                numbers[name] = [round(mean, 4), round(half, 4)]
            rows.append({"guide": dial.name, "weight": weight, "quantity": numbers})
            yield f"{dial.name}@{weight:g}: {numbers}"
    return rows


def ways(
    planner: TrajectoryPlanner, task: MazeTask, scenes: Sequence[Scenario]
) -> Generator[str, None, list[dict[str, Any]]]:
    """The ways to use a guide: what each gets, whether its plans hold, and what it costs."""
    rows = []
    for dial in dials(planner, task):
        if dial.name not in COMPARED:
            continue
        for candidates in (8, 64):
            for guidance in ("gradient", "candidates", "both", "particles"):
                options = {"candidates": candidates, "guidance": guidance}
                mean, half, seconds = turned(planner, task, scenes, dial, dial.weights[-1], **options)
                rows.append(
                    {
                        "guide": f"{dial.name}@{dial.weights[-1]:g}",
                        "unit": dial.unit,
                        "candidates": candidates,
                        "guidance": guidance,
                        "quantity": round(mean, 4),
                        "quantity_ci95": round(half, 4),
                        "plan_seconds_median": round(seconds, 4),
                    }
                )
                yield f"{rows[-1]}"
    return rows


def cost_of_guidance(planner: TrajectoryPlanner, task: MazeTask, *, repeats: int = 40) -> dict[str, float]:
    """Median seconds of a plan without and with gradients (interleaved), and of 1 against 64 candidates."""
    problem = planner.problem([-1.0, 1.0, 0.0, 0.0], [1.0, -1.0])
    guide = 100.0 * avoid(0.0, 1.0, 0.2)
    kinds: dict[str, dict[str, Any]] = {
        "unguided": {},
        "gradient": {"guide": guide, "guidance": "gradient"},
        "candidates": {"guide": guide, "guidance": "candidates"},
        "particles": {"guide": guide, "guidance": "particles"},
        "one_candidate": {"candidates": 1},
        "64_candidates": {"candidates": 64},
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(repeats + 3):
        for name, options in kinds.items():
            plan = planner.plan(problem, **{"select": "first", **options})
            if turn >= 3:
                times[name].append(plan.seconds)
    medians = {f"{name}_seconds": round(statistics.median(t), 5) for name, t in times.items()}
    ratio = medians["gradient_seconds"] / medians["unguided_seconds"]
    return medians | {"gradient_over_unguided": round(ratio, 3), "threads": torch.get_num_threads()}
