"""Run folders: what they hold, and finding the planner to use.

runs/maze2d-umaze-20260131-101500/
    run.json                      what was asked for: task, data, settings, seed, versions, exact command; a user's map
    planner/                      the averaged weights, as `TrajectoryPlanner.from_pretrained` reads them
    training_state.safetensors    everything that --resume needs; returns_state.safetensors for the return model,
                                  inverse_state.safetensors for inverse dynamics
    returns_calibration.json      predicted against true returns of held-out windows, per noise level; and .png
    logs/                         TensorBoard
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from diffplan.planner.loading import check_files
from diffplan.planner.pipeline import TrajectoryPlanner

from .storage import versions_of
from .tasks import Task, all_tasks, find_task, is_task, task_of, task_on

RUNS = Path("runs")
ASSETS = Path(__file__).parent / "assets"
SHIPPED = ASSETS / "maze2d-umaze"
STATE, RETURNS_STATE = "training_state.safetensors", "returns_state.safetensors"
INVERSE_STATE = "inverse_state.safetensors"


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    names = (
        "diffplan",
        "torch",
        "diffusers",
        "accelerate",
        "gymnasium",
        "gymnasium-robotics",
        "mujoco",
        "minari",
        "numpy",
    )
    return {"python": platform.python_version()} | versions_of(*names)


def exact_command() -> str:
    """The command line that is running, with paths from here: records travel, folders of one's own do not."""
    name, here = Path(sys.argv[0]).name, f"{Path.cwd()}{os.sep}"
    return shlex.join([name if name != "main.py" else "diffplan", *(a.removeprefix(here) for a in sys.argv[1:])])


# ---------------------------------------------------------------------- finding planners


def find_run(run: str | Path | None = None, *, root: Path = RUNS) -> Path:
    """The planner folder that RUN names, a folder or a task; without one the newest run's, or else the shipped one.

    Raises:
        ValueError: the folder does not exist, is empty, or holds no planner.
    """
    if run is None:
        made = [p for p in root.glob("*/run.json") if (p.parent / "planner" / "model_index.json").is_file()]
        newest = max(made, key=lambda p: p.stat().st_mtime, default=None)
        return newest.parent / "planner" if newest else SHIPPED
    path = Path(run)
    if not path.exists() and (is_task(str(run)) or _on_a_map(str(run), root)):
        path = _of_task(named_task(str(run), root=root), root)
    if not path.exists():
        raise ValueError(
            f"run folder {str(path)!r} does not exist; runs here: "
            f"{', '.join(sorted(str(p.parent) for p in root.glob('*/run.json'))) or 'none'}"
        )
    if not path.is_dir() or not any(path.iterdir()):
        raise ValueError(
            f"run {str(path)!r} is {'empty' if path.is_dir() else 'no folder'}; train one with: diffplan train TASK"
        )
    inner = path / "planner" if (path / "planner").is_dir() else path
    check_files(inner)
    return inner


def _of_task(task: Task, root: Path) -> Path:
    """A task's newest trained run, or what ships for it."""
    try:
        return newest_run(task, root=root, trained=True)
    except ValueError:
        if not (ASSETS / task.name / "model_index.json").is_file():
            raise
        return ASSETS / task.name


def load_planner(
    run: str | Path | None = None, *, device: str = "auto", task: str | None = None
) -> tuple[TrajectoryPlanner, Task]:
    """The planner of a run on a device, and its task, or another task of the same data and columns.

    Raises:
        ValueError: no such run, a damaged file, or a task that the run was not trained for.
    """
    folder = find_run(run)
    planner = TrajectoryPlanner.from_pretrained(folder)
    trained = _trained_task(folder, planner.task)
    wanted = trained if task in (None, trained.name) else find_task(str(task))
    if (wanted.dataset, wanted.spec.observation_names) != (trained.dataset, trained.spec.observation_names):
        raise ValueError(
            f"run {str(folder)!r} was trained for {trained.name}, not for {wanted.name}; "
            f"train one with: diffplan train {wanted.name}"
        )
    return planner.to(pick_device(device)), wanted


def named_task(name: str, *, file: Path | None = None, output: Path | None = None, root: Path = RUNS) -> Task:
    """The task that the command line names.

    Args:
        name: as typed.
        file: a map to make it of.
        output: a run folder; the maps of its run and of those under `root` are known by their tasks' names.
        root: of the runs.

    Raises:
        ValueError: an unknown name, or a map that cannot be.
    """
    if file is not None:
        return task_on(name, file)
    return task_of(found) if (found := _on_a_map(name, root, output)) else find_task(name)


def _on_a_map(name: str, root: Path, output: Path | None = None) -> dict[str, Any] | None:
    """The record of the run in a folder, or of the newest one, if a map of its own has this name."""
    if not name.startswith("maze2d-") or name in all_tasks():
        return None
    newest = sorted(root.glob("*/run.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    here = [output / "run.json"] if output is not None and (output / "run.json").is_file() else []
    records = (read_record(path.parent) for path in (*here, *newest))
    return next((r for r in records if r["task"] == name and "map" in r), None)


def _trained_task(folder: Path, name: str) -> Task:
    """What a planner was trained for; a map of its own is in the record beside it."""
    if name not in all_tasks():
        for place in (folder, folder.parent):
            if (place / "run.json").is_file() and (record := read_record(place))["task"] == name:
                return task_of(record)
        raise ValueError(
            f"planner {str(folder)!r} was trained for {name}, which is unknown here; for a map of one's own, keep the "
            "run folder whole: its run.json holds the map"
        )
    return find_task(name)


def pick_device(device: str) -> torch.device:
    """auto, cpu or cuda as a torch device.

    Raises:
        ValueError: cuda without a GPU, or an unknown name.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for and PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


# ---------------------------------------------------------------------- records and files


def read_record(output: Path) -> dict[str, Any]:
    """run.json of a run folder.

    Raises:
        ValueError: it is missing or damaged; the message names the file.
    """
    path = output / "run.json"
    if not path.is_file():
        raise ValueError(
            f"{str(output)!r} holds no run to continue (no run.json); start one with: "
            f"diffplan train TASK --output {output}"
        )
    try:
        record = json.loads(path.read_text())
        return {key: record[key] for key in ("task", "dataset", "fingerprint", "preset", "config")} | record
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); the run cannot be continued") from error


def newest_run(task: Task, *, root: Path = RUNS, trained: bool = False) -> Path:
    """The newest run folder of a task; of those that hold a planner already, if asked so."""
    made = [p for p in root.glob("*/run.json") if read_record(p.parent)["task"] == task.name]
    if trained:
        made = [p for p in made if (p.parent / "planner" / "model_index.json").is_file()]
    if not made:
        raise ValueError(f"no run of {task.name} under {root}/; start one with: diffplan train {task.as_typed}")
    return max(made, key=lambda p: p.stat().st_mtime).parent


def save_planner(planner: TrajectoryPlanner, folder: Path, *, half: bool = False) -> None:
    """`save_pretrained`, each file moved into place when it is whole.

    Args:
        planner: what to save.
        folder: where.
        half: store the networks in half precision; it is read back in single.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".saving-") as scratch:
        planner.save_pretrained(scratch, safe_serialization=True)
        if half:
            for network in ("denoiser", "returns", "inverse"):
                if (weights := Path(scratch) / network / "diffusion_pytorch_model.safetensors").is_file():
                    _halve(weights)
        for file in sorted(p for p in Path(scratch).rglob("*") if p.is_file()):
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def _halve(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
