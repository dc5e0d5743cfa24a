"""`diffplan bench distill`: planners of one step beside those that they were distilled from, on the same episodes.

Shape letters: N episodes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.envs.distilling import Teacher, distill_run, find_teacher, one_step
from diffplan.envs.runs import STATE, exact_command, load_planner, read_record
from diffplan.envs.tasks import MazeTask, Task, find_task
from diffplan.planner.options import Sampling
from diffplan.planner.pipeline import TrajectoryPlanner

from .evaluate import Evaluation, evaluate, number, stats_record
from .metrics import mean_interval, normalized_score, strict_returns
from .trained import training_record

TASKS = ("maze2d-umaze", "maze2d-medium", "maze2d-large")
TEACHER, HURRIED, STUDENT = "teacher", "teacher, one step", "student, one step"
HURRY = ("sampler", "steps", "warm_steps", "eta", "candidates")  # what one step changes
Z = 1.96  # standard errors of half a 95% interval

Numbers = dict[str, Any]


def compare_distilled(run: str | None, episodes: int, seed: int) -> Generator[str, None, Numbers]:
    """Measure teachers and students, yielding a line for each; all numbers at the end.

    Args:
        run: the teacher; None takes each maze's newest trained run, or what ships.
        episodes: of each row.
        seed: of the episodes.

    Raises:
        ValueError: a task that no published range gives a score, or a maze without a trained run.
    """
    teachers = [find_teacher(name) for name in TASKS] if run is None else [find_teacher(run)]
    for teacher in teachers:
        _scored(teacher.planner.task)
    report: Numbers = {"seed": seed, "episodes": episodes, "rows": [], "training": {}}
    for teacher in teachers:
        folder = yield from _student_of(teacher)
        for row in _measured(teacher, folder, episodes, seed):
            yield f"{row['task']}, {row['method']}: {row['score_strict']} ± {row['score_strict_ci95']}"
            report["rows"].append(row)
        report["device"] = row["device"]
        report["training"][row["task"]] = {
            "teacher": training_record(teacher.folder) if (teacher.folder / STATE).is_file() else None,
            "student": training_record(folder) | {"distilled_from": read_record(folder)["distilled_from"]},
        }
    return report


def distilled_rows(report: Numbers) -> list[list[str]]:
    """Table, header first; the time of one plan, made ready (`TrajectoryPlanner.prepare`), counts its choosing."""
    header = ["task", "planner", "steps", "candidates", "strict score", "standard error", "below its teacher"]
    header += ["within one standard error", "success", "one plan"]
    return [header, *map(_row, report["rows"])]


def _row(row: Numbers) -> list[str]:
    below = row["below_teacher"]
    within = below["within_standard_error"]
    return [
        row["task"],
        row["method"],
        str(row["sampling"]["steps"]),
        str(row["sampling"]["candidates"]),
        f"{row['score_strict']:.1f} ± {row['score_strict_ci95']:.1f}",
        f"{row['score_strict_se']:.1f}",
        "" if row["method"] == TEACHER else f"{below['mean']:.1f} ± {below['ci95']:.1f}",
        "" if row["method"] == TEACHER else "yes" if within else "no",
        f"{row['success_rate']:.0%}",
        f"{row['plan_ms_median']:.1f} ms",
    ]


def _student_of(teacher: Teacher) -> Generator[str, None, Path]:
    """The folder of its student, which is distilled now where there is none."""
    folder = teacher.student_folder
    if not (folder / "planner" / "model_index.json").is_file():
        config = teacher.config()
        yield f"distilling {teacher.name} for {config.minutes:g} minutes into {folder}"
        for stage in distill_run(teacher, folder, config, command=exact_command()):
            if stage.message:
                yield stage.message
    return folder


def _measured(teacher: Teacher, folder: Path, episodes: int, seed: int) -> Iterator[Numbers]:
    """The rows of one task, the teacher's first."""
    planner, task = load_planner(teacher.folder)
    own, hurried = planner.sampling, fitted(planner, one_step(planner))
    theirs: Evaluation | None = None
    for method, by, options in (
        (TEACHER, planner, {"steps": own.steps, "candidates": own.candidates}),  # all, also where fewer are raced
        (HURRIED, planner, {key: getattr(hurried, key) for key in HURRY}),
        (STUDENT, load_planner(folder)[0], {}),
    ):
        done = evaluated(by, task, episodes, seed, options)
        theirs = theirs or done
        yield {"task": task.name, "method": method, **beside(done, theirs, task, by, options)}


def fitted(planner: TrajectoryPlanner, sampling: Sampling) -> Sampling:
    """As an executor samples plans without guides."""
    own = sampling.changed(sampling.racing() if planner.plant is not None else {})
    return dataclasses.replace(own, raced_candidates=None, raced_steps=None)


def evaluated(planner: TrajectoryPlanner, task: Task, episodes: int, seed: int, options: Numbers) -> Evaluation:
    if planner.plant is not None:
        options = planner.sampling.racing() | options
    if planner.sampling.changed(options).sampler != "ddpm":
        planner.prepare(**options)  # the single plans that are timed are planned as in a control loop
    *_, done = evaluate(planner, task, episodes=episodes, seed=seed, references=False, **options)
    assert isinstance(done, Evaluation)
    return done


def beside(done: Evaluation, theirs: Evaluation, task: Task, planner: TrajectoryPlanner, options: Numbers) -> Numbers:
    """One row's, beside its teacher's on the same episodes."""
    own, other = _scores(done, task), _scores(theirs, task)
    below, error = mean_interval(other - own), mean_interval(other).ci95 / Z
    return stats_record(done.stats) | {
        "score_strict_se": number(mean_interval(own).ci95 / Z),
        "below_teacher": {
            "mean": number(below.mean),
            "ci95": number(below.ci95),
            "within_standard_error": bool(math.isfinite(error) and below.mean <= error),
        },
        "plan_ms_median": number(1000 * done.plan_seconds_median),
        "plans": done.plans,
        "faults": list(done.faults),
        "sampling": dataclasses.asdict(fitted(planner, planner.sampling).changed(options)),
        "device": str(planner.device),
    }


def _scores(done: Evaluation, task: Task) -> NDArray[np.float64]:
    """Strict score of each episode (N,)."""
    return normalized_score(strict_returns([r.rewards for r in done.rollouts]), *_scored(task.name))


def _scored(name: str) -> tuple[float, float]:
    """The returns that a task's score counts from and to."""
    task = find_task(name)
    if not isinstance(task, MazeTask) or task.score_range is None:
        raise ValueError(f"benchmark 'distill' measures scores, and {name} has none; give a run of {', '.join(TASKS)}")
    return task.score_range
