"""One guide at a time: its own quantity against its weight, with each sampler, in each way; and what guidance costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffplan.envs.tasks import MazeTask
from diffplan.planner.guides import Guide, avoid, effort, goal, learned_return, length, smooth, speed, via, wall
from diffplan.planner.pipeline import TrajectoryPlanner

from .metrics import mean_interval
from .scenarios import Scenario

COMPARED = ("avoid", "via", "length", "return")  # guides for which samplers and ways are compared


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
        Dial("smooth", "(m/s^2)^2", (0.0003, 0.001, 0.003), lambda s: smooth()),
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
    interval = mean_interval(costs)
    return interval.mean, interval.ci95, statistics.median(seconds)


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
