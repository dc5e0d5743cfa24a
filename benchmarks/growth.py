"""How cost grows: with the horizon, candidates, environments and data; nothing should be worse than linear.

Networks are fresh: what they say does not matter for what it costs. Every point is measured in turns with the others,
so that a noisy machine disturbs all alike, and is the median of them.

Shape letters: B environments, H horizon (tokens), K candidates.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diffplan.envs.parallel import alone, cores
from diffplan.envs.presets import Preset
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import Task, find_task
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.schedulers import make_scheduler

from .growth_data import Job, fresh_network, train_on_data, write_data

TASK = "multi2d-umaze"
SIZES: dict[str, tuple[int, ...]] = {
    "horizon": (32, 64, 128, 256, 512, 1024),
    "candidates": (1, 4, 16, 64, 256, 1024),
    "environments": (1, 4, 16, 64, 256),
    "data": (100_000, 1_000_000, 10_000_000),
}
PLANNING: dict[str, Any] = {"candidates": 8, "steps": 2, "select": "first"}  # where nothing else is said
TURNS, TURNS_OF_DATA, UPDATES = 5, 3, 30
ENVIRONMENT_STEPS = 20  # in a row, of which a turn is the mean

Rows = list[dict[str, Any]]


def growth(sizes: Mapping[str, Sequence[int]] = SIZES, *, turns: int = TURNS) -> Generator[str, None, dict[str, Any]]:
    """Measure all four, yielding a line for each; the numbers in the end."""
    task = find_task(TASK)
    measured: list[tuple[str, str, Rows]] = []
    for of, unit, measure in (
        ("horizon", "seconds of a plan", lambda: horizons(task, sizes["horizon"], turns)),
        ("candidates", "seconds of a plan", lambda: candidates(task, sizes["candidates"], turns)),
        ("environments", "seconds of a plan for all", lambda: planned(task, sizes["environments"], turns)),
        ("environments", "seconds of a step of all", lambda: stepped(task, sizes["environments"], turns)),
    ):
        measured.append((of, unit, measure()))
        yield _line(*measured[-1])
    for unit, rows in (yield from data(sizes["data"], min(turns, TURNS_OF_DATA))).items():
        measured.append(("data", unit, rows))
        yield _line(*measured[-1])
    return {
        "task": TASK,
        "planning": PLANNING,
        "device": "cpu",
        "cpu_threads": torch.get_num_threads(),
        "cores": cores(),
        "turns": turns,
        "growths": [{"of": of, "what": unit, "rows": rows} | slopes(rows) for of, unit, rows in measured],
    }


def fresh_planner(task: Task, horizon: int | None = None) -> TrajectoryPlanner:
    """A task's planner before it has learned anything."""
    levels = make_scheduler("ddim", train_steps=Preset().noise_levels)
    network, identity = fresh_network(task), Normalizer(task.spec.width)
    return TrajectoryPlanner(
        network, identity, levels, spec=task.spec.to_config(), horizon=horizon or task.horizon, task=task.name
    )


def horizons(task: Task, sizes: Sequence[int], turns: int) -> Rows:
    """Plans of so many tokens H."""
    planners = {size: fresh_planner(task, size) for size in sizes}
    return in_turns(lambda size: _plan(planners[size], 1), sizes, turns)


def candidates(task: Task, sizes: Sequence[int], turns: int) -> Rows:
    """Plans of so many candidates K."""
    planner = fresh_planner(task)
    return in_turns(lambda size: _plan(planner, 1, candidates=size), sizes, turns)


def planned(task: Task, sizes: Sequence[int], turns: int) -> Rows:
    """Plans for so many environments B in one batch."""
    planner = fresh_planner(task)
    return in_turns(lambda size: _plan(planner, size), sizes, turns)


def stepped(task: Task, sizes: Sequence[int], turns: int) -> Rows:
    """Steps of so many environments B."""
    with contextlib.ExitStack() as stack:
        simulators = {size: stack.enter_context(Simulators(task, size)) for size in sizes}
        for size, group in simulators.items():
            group.reset(range(size))
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1, 1, (max(sizes), len(task.spec.action_names)))

        def step(size: int) -> None:
            for _ in range(ENVIRONMENT_STEPS):
                simulators[size].step(actions[:size])

        return in_turns(step, sizes, turns, of=ENVIRONMENT_STEPS)


def data(sizes: Sequence[int], turns: int, *, updates: int = UPDATES) -> Generator[str, None, dict[str, Rows]]:
    """Updates, and memory in use, of training on so many steps, each in a process of its own."""
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [Job(folder, f"growth/points{size}-v0", size, updates, TASK) for size in sizes]
        for job in jobs:
            made = alone(write_data, job)
            yield f"{job.steps:,} steps written in {made['seconds_writing']} s, with {made['mib_writing']} MiB"
        for _ in range(turns):
            for job in jobs:
                found[job.steps].append(alone(train_on_data, job))
    names = {
        "seconds of an update": "seconds",
        "seconds to begin": "seconds_to_begin",
        "MiB, anonymous": "mib_anonymous",
        "MiB, with mapped files": "mib_total",
    }
    return {
        what: [_row(size, [one[name] for one in each]) for size, each in found.items()] for what, name in names.items()
    }


def in_turns(do: Callable[[int], Any], sizes: Sequence[int], turns: int, *, of: int = 1) -> Rows:
    """Median seconds of what is done for each size, `of` times in a row; the first turn is not timed."""
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(1 + turns):
        for size in sizes:
            began = time.perf_counter()
            do(size)
            if turn:
                seconds[size].append((time.perf_counter() - began) / of)
    return [_row(size, each) for size, each in seconds.items()]


def slopes(rows: Rows) -> dict[str, float]:
    """Of the logarithm of what was measured over that of the size: 1 is linear. Over all sizes, and the larger half.

    The larger half tells more of what comes next: small sizes cost what they cost, whatever their size.
    """
    sizes, values = np.log([[row["size"], row["median"]] for row in rows]).T
    half = min(len(rows) // 2, len(rows) - 2)
    both = {"slope": slice(None), "slope_of_larger_half": slice(max(half, 0), None)}
    return {name: round(float(np.polyfit(sizes[part], values[part], 1)[0]), 3) for name, part in both.items()}


def _plan(planner: TrajectoryPlanner, count: int, **options: Any) -> None:
    problem = planner.problem([0.0, 0.0, 0.0, 0.0], [1.0, 1.0])
    planner.plan_many([problem] * count, **PLANNING | options)


def _row(size: int, each: Sequence[float]) -> dict[str, Any]:
    rounded = [float(f"{one:.4g}") for one in each]
    return {"size": size, "median": statistics.median(rounded), "all": rounded}


def _line(of: str, unit: str, rows: Rows) -> str:
    told = ", ".join(f"{row['size']:,}: {row['median']:.3g}" for row in rows)
    return f"{of}, {unit}: {told}; slope {slopes(rows)}"
