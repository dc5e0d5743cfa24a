"""How fast plans are made: one after another in a control loop, and by the thousand at once.

Everything is measured in one run on one machine, the settings taking turns, so that a noisy machine disturbs all alike.

Shape letters: P problems, O observations.
"""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.presets import find_preset
from diffplan.envs.tasks import Task, find_task
from diffplan.planner.guides import Guide, avoid
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.racing import courses
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.unet import TemporalUNet

TASK = "maze2d-umaze"
GOAL = (-1.0, 1.0)  # metres: the task's own
CELLS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (0.0, -1.0), (-1.0, -1.0))  # the other free ones
PAPER = "Diffuser's recipe"
ROUNDS, PAPER_ROUNDS, WARM_UPS = 10, 3, 5  # of seconds each, for Diffuser's recipe on a CPU
TURN_SECONDS = 0.2  # of a setting, in each round; one plan at least
BATCHES = {"cpu": (16, 64, 256), "cuda": (1024, 8192, 32768)}
DISC = {"x": 1.0, "y": 0.0, "radius": 0.2}  # that guided plans keep out of

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One way of planning.

    Args:
        name: in the table.
        planner: that plans.
        options: of `Sampling`.
        prepared: how it is made ready (see `TrajectoryPlanner.prepare`); None where it is not.
        guide: what to prefer.
        raced: plans are turned into courses, as the executor does.
    """

    name: str
    planner: TrajectoryPlanner
    options: Numbers = field(default_factory=dict)
    prepared: Numbers | None = None
    guide: Guide | None = None
    raced: bool = True

    def ready(self) -> Callable[[Sequence[float]], Plan]:
        """A function of an observation (O,) to what is followed: everything that a control loop waits for."""
        planner, generator = copy.copy(self.planner), torch.Generator().manual_seed(0)
        planner._ready = {}  # of its own: what another setting has made ready is not for this one
        known: Numbers = {"guide": self.guide, **self.options}
        if self.prepared is not None:
            planner.prepare(**known, **self.prepared)

        def replan(observation: Sequence[float]) -> Plan:
            plan = planner.plan(planner.problem(observation, GOAL), generator=generator, **known)
            if self.raced and planner.plant is not None:
                courses(planner.plant, [plan])
            return plan

        return replan


def paper_planner(task: Task, levels: int, device: torch.device) -> TrajectoryPlanner:
    """Diffuser's recipe, untrained: how long a network takes does not depend on what it has learned."""
    preset = find_preset("paper", task)
    fitted = preset.fit(task)
    sampling = {**task.sampling, **preset.sampling, "steps": levels, "warm_steps": levels}
    return TrajectoryPlanner(
        TemporalUNet(fitted.spec.width, width=fitted.width, multipliers=fitted.multipliers, octaves=0),
        Normalizer(fitted.spec.width),
        make_scheduler("ddpm", train_steps=levels),
        spec=fitted.spec.to_config(),
        horizon=fitted.horizon,
        task=task.name,
        sampling=sampling,
    ).to(device)


def settings(planner: TrajectoryPlanner, student: TrajectoryPlanner | None) -> list[Setting]:
    """What is compared: from Diffuser's own recipe to one step of a distilled planner."""
    task, one = find_task(TASK), {"candidates": 1, "steps": 1}
    slow = {"candidates": 8, "steps": 8}
    guide = 100.0 * avoid(**DISC)
    made = [
        Setting(f"{PAPER}, {levels} steps", paper_planner(task, levels, planner.device), raced=False)
        for levels in (64, 256)
    ]
    made += [
        Setting("8 candidates, 8 steps", planner, slow),
        Setting("8 candidates, 8 steps, prepared", planner, slow, {}),
        Setting("default", planner, planner.sampling.racing()),
        Setting("default, prepared", planner, planner.sampling.racing(), {}),
        Setting("one step, prepared", planner, one, {}),
        Setting("guided, 2 steps, prepared", planner, {"candidates": 1, "steps": 2}, {}, guide, raced=False),
        Setting("guided, 8 steps, 8 candidates, prepared", planner, slow, {}, guide, raced=False),
    ]
    if student is not None:
        own = student.sampling.racing()
        made += [Setting("distilled", student, own), Setting("distilled, prepared", student, own, {})]
        made += [Setting("distilled, prepared, before it is raced", student, own, {}, raced=False)]
    if planner.device.type == "cuda" and student is not None:
        made += [Setting("distilled, prepared and compiled", student, own, {"compiled": True})]
    return made


def replanning(made: Sequence[Setting], *, rounds: int) -> Iterator[Numbers]:
    """Milliseconds from an observation to what is followed, for each setting."""
    ready = [(setting, setting.ready()) for setting in made]
    starts = _starts(64)
    for setting, replan in ready:
        for i in range(1 if setting.name.startswith(PAPER) else WARM_UPS):
            replan(starts[i].tolist())
    times: dict[str, list[float]] = {setting.name: [] for setting in made}
    for number in range(rounds):
        for setting, replan in ready:
            if number >= PAPER_ROUNDS and setting.name.startswith(PAPER):
                continue
            times[setting.name] += _turn(functools.partial(_replanned, replan, starts))
    paper = statistics.median(times[made[0].name])
    for setting in made:
        low, median, high = np.quantile(times[setting.name], (0.05, 0.5, 0.95)) * 1000
        yield {
            "setting": setting.name,
            "median_ms": round(float(median), 3),
            "p5_ms": round(float(low), 3),
            "p95_ms": round(float(high), 3),
            "hertz": round(1000 / float(median), 1),
            "times_faster_than_paper": round(1000 * paper / float(median), 1),
            "plans": len(times[setting.name]),
        }


def by_the_thousand(planner: TrajectoryPlanner, *, rounds: int) -> Iterator[Numbers]:
    """Plans per second of batches of several sizes, in one step and in two, as tensors: not raced."""
    on_gpu = planner.device.type == "cuda"
    ways = [("float32", 1), ("float32", 2)] + ([("bfloat16", 1), ("bfloat16", 2)] if on_gpu else [])
    for count in BATCHES[planner.device.type]:
        starts = torch.from_numpy(_starts(count)).float()
        goals = torch.tensor(GOAL).expand(count, -1)
        for precision, steps in ways:
            sample = planner.sampler(count, precision=precision, candidates=1, steps=steps)  # type: ignore[arg-type]
            act = functools.partial(_sampled, sample, starts, goals)
            for _ in range(2):
                act(0)
            seconds = [t for _ in range(rounds) for t in _turn(act)]
            median = statistics.median(seconds)
            yield {
                "plans_at_once": count,
                "steps": steps,
                "precision": precision,
                "median_ms": round(1000 * median, 3),
                "plans_per_second": round(count / median),
            }


def _replanned(replan: Callable[[Sequence[float]], Plan], starts: NDArray[np.float64], number: int) -> None:
    replan(starts[number % len(starts)].tolist())


def _sampled(sample: Callable[..., torch.Tensor], starts: torch.Tensor, goals: torch.Tensor, _: int) -> None:
    sample(starts, goals)


def _starts(count: int) -> NDArray[np.float64]:
    """Observations (P, O) in random cells, at rest or slowly moving, as the protocol's episodes begin."""
    rng = np.random.default_rng(0)
    cells = np.array(CELLS)[rng.integers(len(CELLS), size=count)]
    return np.hstack([cells + rng.uniform(-0.1, 0.1, (count, 2)), rng.normal(0, 0.1, (count, 2))])


def _turn(act: Callable[[int], Any]) -> list[float]:
    """Seconds of each of some calls: as many as a turn's time allows, one at least."""
    times: list[float] = []
    while not times or sum(times) < TURN_SECONDS:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        act(len(times))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times


def speed(
    planner: TrajectoryPlanner, student: TrajectoryPlanner | None, *, rounds: int = ROUNDS
) -> Generator[str, None, Numbers]:
    """All of it, yielding a line for each row; the report at the end."""
    report: Numbers = {"task": TASK, "device": device_name(planner.device), "cpu_threads": torch.get_num_threads()}
    report |= {"replanning": [], "batches": []}
    for row in replanning(settings(planner, student), rounds=rounds):
        report["replanning"].append(row)
        yield f"{row['setting']}: {row['median_ms']} ms, {row['hertz']} Hz"
    for row in by_the_thousand(student or planner, rounds=rounds):
        report["batches"].append(row)
        yield f"{row['plans_at_once']} at once, {row['steps']} steps, {row['precision']}: {row['plans_per_second']:,}/s"
    return report


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def speed_rows(report: Numbers) -> list[list[str]]:
    """Table of replanning, header first."""
    header = ["one plan at a time", "median", "5% to 95%", "per second", "times faster than Diffuser's recipe"]
    rows = [
        [
            row["setting"],
            f"{row['median_ms']:.2f} ms",
            f"{row['p5_ms']:.2f} to {row['p95_ms']:.2f} ms",
            f"{row['hertz']:,.0f}",
            f"{row['times_faster_than_paper']:,.0f}",
        ]
        for row in report["replanning"]
    ]
    return [header, *rows]


def batch_rows(report: Numbers) -> list[list[str]]:
    """Table of batches, header first."""
    header = ["plans at once", "denoising steps", "precision", "plans per second"]
    rows = [
        [str(row["plans_at_once"]), str(row["steps"]), row["precision"], f"{row['plans_per_second']:,}"]
        for row in report["batches"]
    ]
    return [header, *rows]
