"""Saved plans and rollouts as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffplan.planner.guides import Spot

from .backend import use_backend
from .records import plan_of, read_json
from .render import plan_frames, plan_picture, rollout_frames
from .robot_rollouts import frames_per_second, robot_film
from .rollouts import DRAW_EVERY, plan_lookup
from .tasks import RobotTask, find_task
from .video import save_picture, save_video
from .wishes import marks_in


def draw_record(file: Path, output: Path) -> None:
    """Draw a JSON file of `records` as .png, .gif or .mp4.

    Raises:
        ValueError: the file is no plan or rollout.
    """
    record = read_json(file)
    task, plan = find_task(record["task"]), plan_of(record)
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
        if isinstance(task, RobotTask) and use_backend() is not None:
            _draw_robot(file, record, task, output, looks["title"])
            return
        try:
            states = np.array(record["states"], dtype=float)
            paths = [np.array(p, dtype=float) for p in record["plan_paths"]] if task.spec.position else []
            lookup = plan_lookup([int(s) for s in record["plan_steps"]], paths)
            frames = list(rollout_frames(task, states, lookup, every=DRAW_EVERY, **looks))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{str(file)!r} is no rollout of diffplan: {error}") from error
        save_video(output, frames, fps=round(1 / (DRAW_EVERY * task.spec.dt_seconds)))
    else:
        save_video(output, plan_frames(task, plan, start=start, **looks), fps=20)


def _draw_robot(file: Path, record: dict[str, Any], task: RobotTask, output: Path, title: str) -> None:
    try:
        states, rewards = (np.array(record[name], dtype=float) for name in ("states", "rewards"))
        plans = [np.array(p, dtype=float) for p in record["plan_observations"]]
        width = len(task.spec.observation_names)
        if any(p.ndim != 2 or p.shape[1] != width for p in (states, *plans)) or len(states) != len(rewards) + 1:
            raise ValueError(f"states, rewards and plans of {width} observations do not fit together")
        frames = list(robot_film(task, states, rewards, [int(s) for s in record["plan_steps"]], plans, title=title))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{str(file)!r} is no rollout of diffplan: {error}") from error
    save_video(output, frames, fps=round(frames_per_second(task)))
