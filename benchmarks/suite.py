"""Named benchmarks: each writes its numbers as JSON and as a table."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from diffplan.envs.presets import find_preset
from diffplan.envs.records import write_json
from diffplan.envs.runs import RUNS, STATE, exact_command, load_planner, read_record, versions
from diffplan.envs.tasks import find_task
from diffplan.envs.training import train_run
from diffplan.planner.training import TrainConfig

from .evaluate import Evaluation, evaluate, record
from .report import HEADER, markdown, table_rows

Report = tuple[dict[str, Any], list[list[str]]]
"""Numbers for the JSON, and rows of the table."""

SEED = 1  # of the episodes: settings were chosen on those of seed 0

SUITE = {
    "maze2d-umaze": "train umaze with the default preset, then maze2d and multi2d under the strict protocol",
    "maze2d-medium": "the same for medium",
    "maze2d-large": "the same for large",
    "execution": "tracking the plan against applying the planned actions, and how often to replan, on maze2d-umaze",
}


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
    if name == "execution":
        report, rows = yield from _execution(run, episodes)
    else:
        report, rows = yield from _maze(name, run, episodes)
    header = ["row", *HEADER]
    write_json(output / f"{name}.json", report | {"versions": versions(), "command": exact_command()})
    (output / f"{name}.md").write_text(f"# {name}\n\n{SUITE[name]}\n\n" + markdown(header, rows))
    yield markdown(header, rows)
    yield f"wrote {output / f'{name}.json'}"


def _maze(name: str, run: str | None, episodes: int) -> Generator[str, None, Report]:
    folder = Path(run) if run else RUNS / f"bench-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if run is None:
        task, preset = find_task(name), find_preset("default")
        yield f"training {name} for {task.minutes:g} minutes into {folder}"
        config = TrainConfig(minutes=task.minutes)
        for stage in train_run(task, folder, config, preset=preset, command=exact_command()):
            if stage.message:
                yield stage.message
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
        "updates": state["step"],
        "minutes": round(state["seconds"] / 60, 2),
        "cpu_threads": torch.get_num_threads(),
        "task_settings": {
            k: v
            for k, v in dataclasses.asdict(find_task(kept["task"])).items()
            if k in ("horizon", "sampling", "replan_every")
        },
    }
