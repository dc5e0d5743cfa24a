"""`diffplan bench maze`: all mazes, the planner's presets, and the references, in cells that are measured once.

Every cell is a small JSON file in the work folder, written when it is measured: a benchmark that was killed goes on
where it was, also in the middle of a training run.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffplan.envs.presets import find_preset
from diffplan.envs.records import write_json
from diffplan.envs.runs import RUNS, exact_command
from diffplan.envs.training import Progress, resume_run, train_run
from diffplan.planner.training import TrainConfig

from . import maze_cells as cells
from .maze_cells import BOUND, Numbers
from .trained import training_record

SEED = 1  # of the episodes: settings were chosen on those of seed 0
SIZES = ("umaze", "medium", "large")
FAMILIES = ("maze2d", "multi2d")
REFERENCES = ("random policy", "waypoint controller", BOUND)
METHODS = {"default": "diffplan", "quick": "diffplan, quick", "paper": "paper (Diffuser's recipe)"}
MARKS = (1.0, 2.0, 4.0, 8.0, 16.0)  # minutes of training at which a planner is kept for the curve
ABLATED, CURVE = "multi2d-large", "umaze"

ABLATIONS: dict[str, dict[str, Any]] = {
    "everything": {},
    "never replanned": {"replan_every": 10**6},
    "the denoiser's most plausible candidate, not the soonest course": {"select": "plausible", "controller": "racing"},
    "the first candidate, not the soonest course": {"select": "first", "controller": "racing"},
    "one candidate": {"candidates": 1},
    "replans from noise, not from the plan before": {"warm_steps": 8},
    "four denoising steps, not eight": {"steps": 4, "warm_steps": 2},
    "two denoising steps": {"steps": 2, "warm_steps": 1},
    "courses exactly along the plan, not smoothed": {"controller": "retimed"},
    "no course: tracked at 1.2 times the plan's pace with the demonstrator's gains": {
        "controller": "tracking",
        "tempo": 1.2,
    },
    "the same, most plausible candidate": {"controller": "tracking", "tempo": 1.2, "select": "plausible"},
    "the same, at the plan's own pace": {"controller": "tracking", "tempo": 1.0, "select": "plausible"},
}


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        episodes: of each row.
        timed: plans of each row that are timed, at most.
        minutes: of training of each preset; None keeps the preset's own.
        sweeps: values of the plots, by name.
        swept: tasks that they are of.
        ablations: rows of the ablation table.
        giant: whether the giant maze is trained and measured too.
    """

    episodes: int
    timed: int
    minutes: dict[str, float | None]
    sweeps: dict[str, tuple[int, ...]]
    swept: tuple[str, ...]
    ablations: tuple[str, ...]
    giant: bool


FULL = Extent(
    100,
    20,
    {"default": None, "quick": 2.0, "paper": 8.0},
    {"replan_every": (5, 10, 20, 40, 80, 10**6), "candidates": (1, 2, 4, 8, 16, 32)},
    ("maze2d-umaze", ABLATED),
    tuple(ABLATIONS),
    True,
)
QUICK = Extent(
    5,
    5,
    {"default": 0.3, "quick": 0.15, "paper": 0.15},
    {"replan_every": (20, 10**6), "candidates": (1, 8)},
    ("maze2d-umaze",),
    tuple(ABLATIONS)[:1],
    False,
)


class MazeBenchmark:
    """The benchmark in a work folder.

    Args:
        work: where runs and cells are kept.
        extent: how much is measured.
        quick: whether the report is to be called so.
    """

    def __init__(self, work: Path, extent: Extent, *, quick: bool = False) -> None:
        self.work, self.extent, self.quick = work, extent, quick

    @classmethod
    def standard(cls, *, quick: bool, episodes: int | None = None) -> MazeBenchmark:
        """In its usual folder, so that the next call finds it."""
        extent = QUICK if quick else FULL
        extent = replace(extent, episodes=episodes or extent.episodes)
        return cls(RUNS / ("bench-maze-quick" if quick else "bench-maze"), extent, quick=quick)

    def run(self) -> Generator[str, None, Numbers]:
        """Measure what is not measured yet, yielding a line for each cell; all numbers at the end."""
        report: Numbers = {"seed": SEED, "episodes": self.extent.episodes, "quick": self.quick, "tasks": {}}
        report["training"], runs = {}, {}
        for size in SIZES:
            for preset in METHODS:
                runs[size, preset] = folder = yield from self.trained(size, preset)
                report["training"][f"{size}-{preset}"] = training_record(folder)
            for family in FAMILIES:
                report["tasks"][f"{family}-{size}"] = yield from self._task(f"{family}-{size}", runs, report)
        bounds = {name: _row(task["rows"], BOUND)["score_strict"] for name, task in report["tasks"].items()}
        large = str(runs["large", "default"])
        report["ablations"] = []
        for change in self.extent.ablations:
            row = yield from self._measured(f"{ABLATED} ablation {change}", large, ABLATED, ABLATIONS[change])
            report["ablations"].append({"task": ABLATED, "change": change, **row} | _share(row, bounds[ABLATED]))
        report["sweeps"] = yield from self._sweeps(runs, bounds, report["tasks"])
        report["gallery"] = {}
        for size in SIZES:
            name, own = f"multi2d-{size}", str(runs[size, "default"])
            found = yield from self.cell(f"{name} gallery", functools.partial(_gallery, own, name))
            report["gallery"][name] = found["pairs"]
        if self.extent.giant:
            report["giant"] = yield from self._giant(report)
        return report

    def _task(self, name: str, runs: dict[Any, Path], report: Numbers) -> Generator[str, None, Numbers]:
        """All rows of one task, and the quality of its plans."""
        size, episodes = name.partition("-")[2], self.extent.episodes
        rows = yield from self._references(name)
        bound = rows[-1]["score_strict"]
        for preset, method in METHODS.items():
            run, options = str(runs[size, preset]), options_of(preset)
            made = yield from self._measured(f"{name} {preset}", run, name, options)
            spent = yield from self.cell(
                f"{name} {preset} cost",
                functools.partial(cells.cost, run, name, SEED, timed=self.extent.timed, **options),
            )
            trained = report["training"][f"{size}-{preset}"]
            threads = trained["cpu_threads"]
            spent |= {
                "training_minutes": trained["minutes"],
                "training_device": f"{trained['device']}, {threads} thread{'s' * (threads != 1)}",
            }
            rows.append({"method": method, **made, **spent})
        run = str(runs[size, "default"])
        seen = yield from self.cell(f"{name} quality", functools.partial(cells.quality, run, name, episodes, SEED))
        return {"rows": [row | _share(row, bound) for row in rows], "quality": seen}

    def _references(self, name: str) -> Generator[str, None, list[Numbers]]:
        """Rows of what sets the scale of a task; the bound is the last."""
        rows = []
        for method in REFERENCES:
            made = yield from self.cell(
                f"{name} {method}", functools.partial(cells.reference, name, method, self.extent.episodes, SEED)
            )
            rows.append({"method": method, **made})
        return rows

    def _sweeps(self, runs: dict[Any, Path], bounds: dict[str, float], tasks: Numbers) -> Generator[str, None, Numbers]:
        made: Numbers = {}
        for option, values in self.extent.sweeps.items():
            made[option] = []
            for name in self.extent.swept:
                run = str(runs[name.partition("-")[2], "default"])
                for value in values:
                    row = yield from self._measured(f"{name} {option} {value}", run, name, {option: value})
                    made[option].append({"task": name, "value": value, **row} | _share(row, bounds[name]))
        made["training_minutes"] = yield from self._curve(bounds, tasks)
        return made

    def _curve(self, bounds: dict[str, float], tasks: Numbers) -> Generator[str, None, list[Numbers]]:
        """Scores after some minutes of training: of whole runs, and of one run while it went on."""
        made = []
        for size in SIZES:
            name = f"multi2d-{size}"
            for method in (METHODS["quick"], METHODS["default"]):
                row = _row(tasks[name]["rows"], method)
                made.append({"task": name, "value": row["training_minutes"], "run": method, **row})
            for folder in sorted((self.work / f"{size}-default" / "snapshots").glob("*"), key=lambda p: float(p.name)):
                row = yield from self._measured(f"{name} after {folder.name} minutes", str(folder), name, {})
                point = {"task": name, "value": float(folder.name), "run": "unfinished", **row}
                made.append(point | _share(row, bounds[name]))
        return sorted(made, key=lambda point: (SIZES.index(point["task"].partition("-")[2]), point["value"]))

    def _giant(self, report: Numbers) -> Generator[str, None, Numbers]:
        """A maze whose ways are longer than any plan."""
        run = yield from self.trained("giant", "default")
        report["training"]["giant-default"] = training_record(run)
        rows = []
        for family in FAMILIES:
            name = f"{family}-giant"
            references = yield from self._references(name)
            rows += [{"task": name, **row} for row in references]
            made = yield from self._measured(f"{name} default", str(run), name, {})
            rows.append({"task": name, "method": METHODS["default"], **made})
        return {"rows": rows}

    def _measured(self, what: str, run: str, name: str, options: dict[str, Any]) -> Generator[str, None, Numbers]:
        options = {k: min(v, cells.maze(name).episode_steps) if k == "replan_every" else v for k, v in options.items()}
        return (
            yield from self.cell(
                what, functools.partial(cells.measured, run, name, self.extent.episodes, SEED, **options)
            )
        )

    def cell(self, what: str, measure: Callable[[], Numbers]) -> Generator[str, None, Numbers]:
        """A cell's numbers: read where they were measured before, with as many episodes, else measured and kept."""
        path = self.work / "cells" / f"{what.replace(' ', '-').replace(',', '')}.json"
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept["asked"] == self.extent.episodes:
                return dict(kept["numbers"])
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = measure()
        write_json(path, {"what": what, "asked": self.extent.episodes, "numbers": numbers})
        yield f"{what}: {_said(numbers)}"
        return numbers

    def trained(self, size: str, preset: str) -> Generator[str, None, Path]:
        """A run of the work folder: finished before, continued, or begun."""
        folder, task = self.work / f"{size}-{preset}", cells.maze(f"maze2d-{size}")
        if (folder / "finished").is_file():
            return folder
        settings = find_preset("default" if preset == "quick" else preset, task)
        minutes = self.extent.minutes[preset] or settings.fit(task).minutes
        if (folder / "run.json").is_file():
            stages = resume_run(folder, minutes=None)
        else:
            config = TrainConfig(**task.training, minutes=minutes)
            stages = train_run(
                task, folder, config, preset=settings, only="denoiser", command=exact_command(), checkpoint_seconds=10
            )
        yield f"training {folder.name} for {minutes:g} minutes"
        yield from _watched(stages, folder, preset == "default" and size == CURVE)
        (folder / "finished").touch()
        return folder


def options_of(preset: str) -> dict[str, Any]:
    """How a preset's plans are executed: Diffuser's are made once and tracked at their own pace."""
    return {"controller": "tracking", "tempo": 1.0, "replan_every": 10**6} if preset == "paper" else {}


def _watched(stages: Iterator[Progress], folder: Path, curve: bool) -> Iterator[str]:
    """Train, keeping the planner as it is after some of the minutes (the first one written after each)."""
    due, crossed, begun = [m for m in MARKS if curve], None, False
    index = folder / "planner" / "model_index.json"
    for stage in stages:
        if stage.message:
            yield stage.message
        if stage.update is None or not due:
            continue
        minutes = stage.update.seconds / 60
        if not begun:  # a run that is continued has had its first marks
            due, begun = [m for m in due if m > minutes], True
            continue
        if crossed is None and minutes >= due[0]:
            crossed = index.stat().st_mtime if index.is_file() else 0.0
        if crossed is not None and index.is_file() and index.stat().st_mtime > crossed:
            shutil.copytree(folder / "planner", folder / "snapshots" / f"{minutes:.2f}", dirs_exist_ok=True)
            due, crossed = due[1:], None


def _gallery(run: str, name: str) -> Numbers:
    return {"pairs": cells.gallery(run, name, SEED)}


def _row(rows: list[Numbers], method: str) -> Numbers:
    return next(row for row in rows if row["method"] == method)


def _share(row: Numbers, bound: float | None) -> Numbers:
    score = row.get("score_strict")
    return {"share_of_bound": round(score / bound, 4) if score is not None and bound else None}


def _said(numbers: Numbers) -> str:
    words = {k: v for k, v in numbers.items() if isinstance(v, int | float)}
    keys = ("score_strict", "score_strict_ci95", "success_rate", "steps_to_goal_mean", "plan_ms_median")
    return ", ".join(f"{k} {words[k]:g}" for k in keys if k in words) or "measured"
