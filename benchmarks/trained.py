"""How a run came to be, for the reports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from diffplan.envs.runs import STATE, read_record
from diffplan.envs.tasks import Task, task_of
from diffplan.planner.pipeline import TrajectoryPlanner


def training_record(folder: Path) -> dict[str, Any]:
    """How a run was trained: settings, updates, minutes, data, threads."""
    kept = read_record(folder)
    with safe_open(folder / STATE, framework="pt") as file:
        state = json.loads(file.metadata()["diffplan"])
    wanted = ("task", "dataset", "fingerprint", "config", "preset", "command", "versions")
    return {key: kept[key] for key in wanted} | {
        "returns": kept.get("returns"),
        "updates": state["step"],
        "minutes": round(state["seconds"] / 60, 2),
        "device": kept.get("device", "cpu"),
        "cpu_threads": kept.get("cpu_threads", torch.get_num_threads()),
        "task_settings": {
            k: v
            for k, v in dataclasses.asdict(task_of(kept)).items()
            if k in ("horizon", "sampling", "replan_every", "tempo", "discount")
        },
    }


def training_words(training: dict[str, Any]) -> str:
    """Minutes and threads, or device, of a training's record."""
    threads, device = training["cpu_threads"], training.get("device", "cpu")
    where = f"{threads} thread{'s' * (threads != 1)}" if device == "cpu" else device
    return f"{training['minutes']:.0f} min, {where}"


def setting(planner: TrajectoryPlanner, task: Task, *, seed: int, episodes: int) -> dict[str, Any]:
    """What a report says of how a planner was measured."""
    return {
        "task": task.name,
        "seed": seed,
        "episodes": episodes,
        "sampling": dataclasses.asdict(planner.sampling),
        "replan_every": task.replan_every,
        "device": str(planner.device),
    }
