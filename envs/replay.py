"""Saved plans and rollouts as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .arm_rollouts import ArmEpisode, arm_curves, arm_film, drawn_as_arm
from .drawing import drawing_of
from .records import plan_of, read_json
from .render import rollout_frames
from .robot_rollouts import drawn_by_mujoco, robot_film
from .rollouts import DRAW_EVERY, pace, plan_lookup
from .tasks import ArmTask, Task, task_of
from .video import Picture, save_picture, save_video
from .wishes import marks_in, spots


def draw_record(file: Path, output: Path) -> None:
    """Draw a JSON file of `records` as .png, .gif or .mp4.

    Raises:
        ValueError: the file is no plan or rollout.
    """
    record = read_json(file)
    task, plan = task_of(record), plan_of(record)
    start, goal = (
        np.array(record["start"], dtype=float)[task.spec.position_indices],
        np.array(record["goal"], dtype=float),
    )
    looks: dict[str, Any] = {
        "goal": goal if goal.size else None,
        "marks": (*marks_in(plan.guides), *spots(record.get("vias") or ())),
        "title": " + ".join(plan.guides),
    }
    plan_picture, plan_frames = drawing_of(task, start)
    if output.suffix == ".png" and "states" in record and isinstance(task, ArmTask):
        save_picture(output, arm_curves(task, _arm_episode(file, record, task)))
    elif output.suffix == ".png":
        save_picture(output, plan_picture(task, plan, **looks))
    elif "states" in record and drawn_as_arm(task):
        save_video(output, arm_film(task, _arm_episode(file, record, task), **looks), fps=pace(task))
    elif "states" in record:
        try:
            frames = list(_rollout_film(record, task, looks))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{str(file)!r} is no rollout of diffplan: {error}") from error
        save_video(output, frames, fps=pace(task))
    else:
        save_video(output, plan_frames(task, plan, **looks), fps=20)


def _arm_episode(file: Path, record: dict[str, Any], task: ArmTask) -> ArmEpisode:
    try:
        return ArmEpisode.read(record, task)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is no rollout of diffplan: {error}") from error


def _rollout_film(record: dict[str, Any], task: Task, looks: dict[str, Any]) -> Iterator[Picture]:
    states, plan_steps = np.array(record["states"], dtype=float), [int(s) for s in record["plan_steps"]]
    if not drawn_by_mujoco(task):
        paths = [np.array(p, dtype=float) for p in record["plan_paths"]] if task.spec.position else []
        return rollout_frames(task, states, plan_lookup(plan_steps, paths), every=DRAW_EVERY, **looks)
    rewards = np.array(record["rewards"], dtype=float)
    plans = [np.array(p, dtype=float) for p in record["plan_observations"]]
    width = len(task.spec.observation_names)
    if any(p.ndim != 2 or p.shape[1] != width for p in (states, *plans)) or len(states) != len(rewards) + 1:
        raise ValueError(f"states, rewards and plans of {width} observations do not fit together")
    return robot_film(task, states, rewards, plan_steps, plans, title=looks["title"])
