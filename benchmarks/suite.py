"""Named benchmarks: each writes its numbers as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from diffplan.envs.presets import find_preset
from diffplan.envs.records import write_json
from diffplan.envs.runs import RUNS, STATE, exact_command, load_planner, read_record, versions
from diffplan.envs.tasks import MazeTask, Task, find_task
from diffplan.envs.training import train_run
from diffplan.planner.training import TrainConfig

from .dials import cost_of_guidance, monotone, samplers, ways
from .evaluate import Evaluation, evaluate, record
from .guiding import composition
from .learned import returns_alone, roundabout, stitching
from .report import HEADER, guides_table, learned_table, markdown, table_rows
from .scenarios import make_scenarios

Report = tuple[dict[str, Any], list[list[str]]]
"""Numbers for the JSON, and rows of the table."""

SEED = 1  # of the episodes: settings were chosen on those of seed 0

SUITE = {
    "maze2d-umaze": "train umaze with the default preset, then maze2d and multi2d under the strict protocol",
    "maze2d-medium": "the same for medium",
    "maze2d-large": "the same for large",
    "guides": "what guides get on paper and executed, with each sampler, the ways to use them, and what they cost",
    "weights": "each guide's own quantity against its weight",
    "returns": "maze2d-umaze with no goal given, led by the learned return alone",
    "roundabout": "steps to the goal after training on data half of whose routes are detours (maze2d-umaze-roundabout)",
    "stitching": "goals farther than any episode of the data goes (multi2d-umaze-stitch)",
    "execution": "tracking the plan against applying the planned actions, and how often to replan, on maze2d-umaze",
}


LEARNED: dict[str, tuple[str, Callable[[str | None, int, int], Any]]] = {
    "returns": ("maze2d-umaze", returns_alone),
    "roundabout": ("maze2d-umaze-roundabout", roundabout),
    "stitching": ("multi2d-umaze-stitch", stitching),
}

GUIDED_CANDIDATES = 32


def run_benchmark(name: str, *, output: Path, run: str | None = None, episodes: int = 100) -> Iterator[str]:
    """Run one benchmark, yielding lines to show.

    Args:
        name: of `SUITE`.
        output: folder of NAME.json and NAME.md.
        run: a run to measure instead of training one.
        episodes: per row.

    Raises:
        ValueError: an unknown name, or a folder that is not there.
    """
    if name not in SUITE:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(SUITE)}")
    if not output.is_dir():
        raise ValueError(f"folder {str(output)!r} does not exist; make it, or name another with --output")
    header = ["row", *HEADER]
    if name == "execution":
        report, rows = yield from _execution(run, episodes)
    elif name in ("guides", "weights"):
        report = yield from _guides(run, episodes, weights=name == "weights")
        header, *rows = guides_table(report, "weights" if name == "weights" else "composition")
    elif name in LEARNED:
        report = yield from _learned(name, run, episodes)
        header, *rows = learned_table(report)
    else:
        report, rows = yield from _maze(name, run, episodes)
    write_json(output / f"{name}.json", report | {"versions": versions(), "command": exact_command()})
    (output / f"{name}.md").write_text(f"# {name}\n\n{SUITE[name]}\n\n" + markdown(header, rows))
    yield markdown(header, rows)
    yield f"wrote {output / f'{name}.json'}"


def _maze(name: str, run: str | None, episodes: int) -> Generator[str, None, Report]:
    folder = Path(run) if run else RUNS / f"bench-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if run is None:
        task = find_task(name)
        yield f"training {name} for {task.minutes:g} minutes into {folder}"
        yield from _train(task, folder, TrainConfig(minutes=task.minutes))
    evaluations = []
    for task_name in (name, name.replace("maze2d", "multi2d")):
        numbers = yield from _measure(str(folder), task_name, episodes)
        evaluations.append(numbers)
    rows = [[e["task"], *row] for e in evaluations for row in table_rows(e)]
    return {"training": training_record(folder), "evaluations": evaluations}, rows


def _execution(run: str | None, episodes: int) -> Generator[str, None, Report]:
    settings: list[tuple[str, dict[str, Any]]] = [
        (f"{words}, replan every {steps}", {"controller": name, "replan_every": steps, "tempo": tempo})
        for words, name, tempo in (
            ("tracked 1.5 times as fast as planned", "tracking", 1.5),
            ("tracked as planned", "tracking", 1.0),
            ("planned actions", "actions", 1.0),
        )
        for steps in (5, 20, 40, 300)
    ]
    evaluations, rows = [], []
    for label, options in settings:
        numbers = yield from _measure(run, "maze2d-umaze", episodes, references=False, **options)
        evaluations.append({"label": label} | numbers)
        rows += [[label, *row] for row in table_rows(numbers)]
    return {"evaluations": evaluations}, rows


def _guides(run: str | None, pairs: int, *, weights: bool) -> Generator[str, None, dict[str, Any]]:
    planner, task = load_planner(run, task="multi2d-umaze")
    assert isinstance(task, MazeTask)
    scenes = make_scenarios(task, pairs, seed=SEED)
    report: dict[str, Any] = {"task": task.name, "pairs": pairs, "seed": SEED, "device": str(planner.device)}
    if weights:
        report["weights"] = yield from monotone(planner, task, scenes)
        return report
    report["composition"] = yield from composition(planner, task, scenes, candidates=GUIDED_CANDIDATES)
    report["samplers"] = yield from samplers(planner, task, scenes)
    report["ways"] = yield from ways(planner, task, scenes[:50])
    report["speed"] = cost_of_guidance(planner, task)
    yield f"{report['speed']}"
    return report


def _learned(name: str, run: str | None, episodes: int) -> Generator[str, None, dict[str, Any]]:
    if run is None:
        run, task = str(RUNS / f"bench-{name}-{time.strftime('%Y%m%d-%H%M%S')}"), find_task(LEARNED[name][0])
        config = TrainConfig(**task.training, minutes=task.minutes)
        yield f"training {task.name} for {task.minutes:g} minutes into {run}"
        yield from _train(task, Path(run), config)
    rows = yield from LEARNED[name][1](run, episodes, SEED)
    folder = Path(run)
    training = training_record(folder) if (folder / "run.json").is_file() else None
    calibration = folder / "returns_calibration.json"
    known = json.loads(calibration.read_text()) if calibration.is_file() else None
    return {"seed": SEED, "device": "cpu", "rows": rows, "calibration": known, "training": training}


def _train(task: Task, folder: Path, config: TrainConfig) -> Iterator[str]:
    for stage in train_run(task, folder, config, preset=find_preset("default"), command=exact_command()):
        if stage.message:
            yield stage.message


def _measure(run: str | None, task_name: str, episodes: int, **options: Any) -> Generator[str, None, dict[str, Any]]:
    planner, task = load_planner(run, task=task_name)
    began = time.monotonic()
    for done in evaluate(planner, task, episodes=episodes, seed=SEED, **options):
        if isinstance(done, Evaluation):
            result = done
    numbers = record(result, task, seed=SEED, device=str(planner.device), versions=versions(), command=exact_command())
    took = f"{time.monotonic() - began:.0f} s"
    yield f"{task_name}: strict {result.stats.score_strict}, success {result.stats.success_rate:.0%} ({took})"
    return numbers


def training_record(folder: Path) -> dict[str, Any]:
    """How a run was trained: settings, updates, minutes, data, threads."""
    from safetensors import safe_open

    kept = read_record(folder)
    with safe_open(folder / STATE, framework="pt") as file:
        state = json.loads(file.metadata()["diffplan"])
    wanted = ("task", "dataset", "fingerprint", "config", "preset", "command", "versions")
    return {key: kept[key] for key in wanted} | {
        "returns": kept.get("returns"),
        "updates": state["step"],
        "minutes": round(state["seconds"] / 60, 2),
        "cpu_threads": torch.get_num_threads(),
        "task_settings": {
            k: v
            for k, v in dataclasses.asdict(find_task(kept["task"])).items()
            if k in ("horizon", "sampling", "replan_every", "tempo", "discount")
        },
    }
