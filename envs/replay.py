"""Saved plans and rollouts as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffplan.planner.guides import Spot

from .records import plan_of, read_json
from .render import plan_frames, plan_picture, rollout_frames
from .robot_rollouts import drawn_by_mujoco, robot_film
from .rollouts import DRAW_EVERY, pace, plan_lookup
from .tasks import Task, task_of
from .video import Picture, save_picture, save_video
from .wishes import marks_in


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
        "marks": (*marks_in(plan.guides), *(Spot(p[0], p[1]) for p in record.get("vias") or ())),
        "title": " + ".join(plan.guides),
    }
    if output.suffix == ".png":
        save_picture(output, plan_picture(task, plan, start=start, **looks))
    elif "states" in record:
        try:
            frames = list(_rollout_film(record, task, looks))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{str(file)!r} is no rollout of diffplan: {error}") from error
        save_video(output, frames, fps=pace(task))
    else:
        save_video(output, plan_frames(task, plan, start=start, **looks), fps=20)


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
