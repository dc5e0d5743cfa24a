"""Distilling trained planners into ones that plan in one step, each into a run folder of its own.

runs/NAME-distilled/
    run.json, planner/, ..        as of any run (see `runs`); the record's "distilled_from" says from what
    teacher/                      the planner that it learns from, so that --resume needs nothing else
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from diffplan.planner.distillation import distilling, student_prediction
from diffplan.planner.loading import check_files
from diffplan.planner.options import Sampling
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.sampling import CleanPredictor
from diffplan.planner.schedulers import for_one_plan
from diffplan.planner.training import TrainConfig, Update
from diffplan.planner.unet import TemporalUNet

from .datasets import load_episodes
from .jobs import Job, accelerator_for, recorded
from .presets import Preset
from .runs import ASSETS, RUNS, SHIPPED, STATE, find_run, named_task, read_record, save_planner
from .tasks import Task, task_of
from .training import Progress, begin, check_free, fetch, fit, open_folder, windows_of

MINUTES, LEARNING_RATE, WARMUP = 3.0, 3e-4, 50  # where nothing else is said; the student has little to unlearn
TEACHER_STEPS = 8


@dataclass(frozen=True)
class Teacher:
    """A trained planner and the record of its training."""

    folder: Path
    planner: TrajectoryPlanner
    record: dict[str, Any]

    @property
    def preset(self) -> Preset:
        """Its own, with the windows that it was trained on, whatever its task is trained on today."""
        own = Preset(**self.record["preset"])
        return replace(own, horizon=self.planner.horizon, stride=self.planner.spec.stride)

    @property
    def name(self) -> str:
        """Its folder as records name it: what ships is called by its task."""
        return self.folder.name if self.folder.parent == ASSETS else str(self.folder)

    @property
    def student_folder(self) -> Path:
        """Where its student goes if nothing else is said."""
        return RUNS / f"{self.folder.resolve().name}-distilled"

    def config(self, **changes: Any) -> TrainConfig:
        """How its student is trained: batches and weights as its own; changes that are None are none."""
        own, given = TrainConfig(**self.record["config"]), {k: v for k, v in changes.items() if v is not None}
        bounds = {"steps": None, "minutes": None if "steps" in given else MINUTES}
        settings = {"learning_rate": LEARNING_RATE, "warmup": WARMUP, "seed": 0}
        return replace(own, **bounds | settings | given, prediction=student_prediction(own.prediction))


def find_teacher(run: str | Path | None = None, *, root: Path = RUNS) -> Teacher:
    """The planner of a run folder, or of a task's newest run that is not distilled; of the newest run without either.

    Where there is no such run it is what ships.

    Raises:
        ValueError: no planner there, one that is distilled already, or one without a record of how it was trained.
    """
    if run is not None and Path(run).exists():
        inner = find_run(run)
        folder = inner.parent if inner.name == "planner" else inner
    else:
        folder = _newest_trained(None if run is None else _task_named(run, root), root)
    if not (folder / "run.json").is_file():
        raise ValueError(
            f"planner {str(folder)!r} has no run.json beside it, which says what it was trained on; name its run folder"
        )
    record = read_record(folder)
    if "distilled_from" in record:
        raise ValueError(
            f"run {str(folder)!r} is distilled already, from {record['distilled_from']['run']}; name that one, "
            "or another trained run"
        )
    return Teacher(folder, TrajectoryPlanner.from_pretrained(find_run(folder)), record)


def distill_run(
    teacher: Teacher,
    output: Path,
    config: TrainConfig,
    *,
    teacher_steps: int = TEACHER_STEPS,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    command: str = "",
) -> Iterator[Progress]:
    """Distill a planner into a new folder, yielding progress; missing data is collected first.

    Args:
        teacher: see `find_teacher`.
        output: the run folder.
        config: bounds and settings; see `Teacher.config`.
        teacher_steps: DDIM steps of the teacher; a divisor of its noise levels.
        device: auto, cpu or cuda.
        checkpoint_seconds: between checkpoints.
        command: to be recorded.

    Raises:
        ValueError: the folder holds a run already, or the data, teacher's steps or device do not fit.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    check_free(output)
    for_one_plan(teacher.planner.scheduler, "ddim", teacher_steps)  # refuses steps that do not fit
    accelerator, dataset = accelerator_for(output, device), teacher.record["dataset"]
    task = teacher.preset.fit(task_of(teacher.record))
    yield from fetch(task, dataset, accelerator)
    episodes = load_episodes(dataset, task)
    job = Job(output, task, episodes, teacher.preset, config, None, accelerator, checkpoint_seconds, distilled=True)
    if accelerator.is_main_process:
        save_planner(teacher.planner, output / "teacher")
    origin = {"run": teacher.name, "task": task.name, "steps": teacher_steps}
    open_folder(job, dataset=dataset, command=command, distilled_from=origin)
    yield from _distill(job, teacher.planner, teacher_steps)


def resume_distilling(
    output: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
) -> Iterator[Progress]:
    """Continue where the last checkpoint left it; on a CPU the end is bit for bit that of an unbroken run.

    Args:
        output: the run folder.
        steps: a new bound on the updates, in place of the recorded bounds.
        minutes: a new bound on the minutes, likewise.
        device: auto, cpu or cuda.
        checkpoint_seconds: between checkpoints.

    Raises:
        ValueError: no distilled run there, a damaged file, or data that has changed since.
        Interrupted: a signal asked it to stop; the state is saved.
    """
    origin = read_record(output).get("distilled_from")
    if origin is None:
        raise ValueError(
            f"run {str(output)!r} is trained, not distilled; continue it with: diffplan train TASK --resume "
            f"--output {output}, or name another folder"
        )
    job = recorded(output, None, device, checkpoint_seconds)
    if steps is not None or minutes is not None:
        job = replace(job, denoiser=replace(job.denoiser, steps=steps, minutes=minutes))
    check_files(output / "teacher")
    yield from _distill(job, TrajectoryPlanner.from_pretrained(output / "teacher"), origin["steps"])


def one_step(teacher: TrajectoryPlanner) -> Sampling:
    """How its student's plans are sampled: one step; as few candidates as it races, too, where it does.

    What chooses by the denoiser's judgement, or by a guide, needs candidates to choose from.
    """
    own = teacher.sampling
    raced = teacher.plant is not None and own.select == "fastest"
    count = (own.raced_candidates or 1) if raced else None
    return replace(own, sampler="ddim", steps=1, warm_steps=1, eta=0.0, raced_steps=None, raced_candidates=count)


def _distill(job: Job, teacher: TrajectoryPlanner, teacher_steps: int) -> Iterator[Progress]:
    """Train what is left to train of a student."""
    teacher.to(job.accelerator.device)
    grid = for_one_plan(teacher.scheduler, "ddim", teacher_steps).timesteps.tolist()
    network = begin(job, job.denoiser, lambda: copy.deepcopy(teacher.denoiser), STATE)
    student = _student(teacher, cast(TemporalUNet, network.ema))
    judge = CleanPredictor(
        teacher.denoiser, teacher.scheduler.alphas_cumprod, teacher.config.prediction, teacher.config.clip
    )
    objective = distilling(judge, windows_of(job), teacher.normalizer, job.denoiser, grid=grid)
    job.accelerator.init_trackers("logs")
    last: Update | None = None
    for stage in fit(job, student, network, objective, job.denoiser, STATE, "denoiser", (0.0, 1.0)):
        last = stage.update
        yield stage
    job.accelerator.end_training()
    near = (
        "" if last is None else f"; {float(last.info['teacher_gap'].sqrt()):.3f} from the teacher's plans (normalised)"
    )
    words = f"{network.step:,} updates in {network.seconds / 60:.1f} minutes of distilling{near}"
    yield Progress("done", 1.0, f"{words}; run folder {job.output}")


def _student(teacher: TrajectoryPlanner, network: TemporalUNet) -> TrajectoryPlanner:
    """A planner that differs from its teacher in the network, and in how it is sampled."""
    known = teacher.config
    return TrajectoryPlanner(
        network,
        teacher.normalizer,
        teacher.scheduler,
        returns=teacher.returns,
        plant=teacher.plant,
        inverse=teacher.inverse,
        spec=teacher.spec.to_config(),
        horizon=teacher.horizon,
        task=teacher.task,
        prediction=student_prediction(known.prediction),
        clip=known.clip,
        consistency_bound=known.consistency_bound,
        sampling=dataclasses.asdict(one_step(teacher)),
        state_only=known.state_only,
    )


def _task_named(run: str | Path, root: Path) -> Task:
    """The task that RUN names where it is no folder."""
    find_run(run, root=root)  # says what is here where it names none
    return named_task(str(run), root=root)


def _newest_trained(task: Task | None, root: Path) -> Path:
    """The newest run folder, of a task if one is given, that holds a planner and is not distilled; else what ships."""
    made = [p.parent for p in root.glob("*/run.json") if (p.parent / "planner" / "model_index.json").is_file()]
    records = {folder: read_record(folder) for folder in made}
    fits = [f for f, r in records.items() if "distilled_from" not in r and (task is None or r["task"] == task.name)]
    if fits:
        return max(fits, key=lambda folder: (folder / "run.json").stat().st_mtime)
    shipped = SHIPPED if task is None else ASSETS / task.name
    if not (shipped / "model_index.json").is_file():
        assert task is not None
        raise ValueError(f"no trained run of {task.name} under {root}/; start one with: diffplan train {task.as_typed}")
    return shipped
