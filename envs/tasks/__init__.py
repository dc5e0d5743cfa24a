"""What can be planned.

A user's own task is one value of `Task` (or of a subclass that overrides what differs), registered with `register` or
through an entry point in the group "diffplan.tasks". A user's own maze is a map in a text file (see `own`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .arms import ArmTask, arm_tasks
from .hands import HandTask, hand_tasks
from .mazes import MazeTask, maze_tasks
from .ogbench import OgbenchTask, ogbench_tasks
from .own import own_task, parse_map, read_map
from .robots import RobotTask, robot_tasks
from .task import Task

__all__ = [
    "ArmTask",
    "HandTask",
    "MazeTask",
    "OgbenchTask",
    "RobotTask",
    "Task",
    "all_tasks",
    "find_task",
    "is_task",
    "own_task",
    "read_map",
    "register",
    "task_of",
    "task_on",
]

_TASKS: dict[str, Task] = maze_tasks() | robot_tasks() | arm_tasks() | hand_tasks() | ogbench_tasks()
_ALIASES = {"maze2d": "maze2d-umaze", "multi2d": "multi2d-umaze"}


def register(task: Task) -> Task:
    """Make a task known by its name, replacing one of the same name."""
    _TASKS[task.name] = task
    return task


def all_tasks() -> dict[str, Task]:
    """Every known task by name: built in, registered, and from entry points in the group "diffplan.tasks"."""
    for point in importlib.metadata.entry_points(group="diffplan.tasks"):
        if point.name not in _TASKS:
            register(point.load())
    return dict(_TASKS)


def is_task(name: str) -> bool:
    """Whether a name, such as `maze2d-large` or `maze2d`, is a task's."""
    return _ALIASES.get(name, name) in all_tasks()


def find_task(name: str) -> Task:
    """A task by name; `maze2d` means `maze2d-umaze`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    tasks = all_tasks()
    name = _ALIASES.get(name, name)
    if name not in tasks:
        raise ValueError(f"unknown task {name!r}; known: {', '.join(sorted(tasks))}")
    return tasks[name]


def task_of(record: Mapping[str, Any]) -> Task:
    """The task that a run, plan or rollout is of: found by its name, or made from the map that it carries.

    Raises:
        ValueError: an unknown name, or a map that cannot be.
    """
    name, rows = record["task"], record.get("map")
    if rows is None:
        return find_task(name)
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in [name, *rows]):
        raise ValueError(f"the map of task {name!r} must be a list of rows")
    task = own_task(name.removeprefix("maze2d-"), parse_map("\n".join(rows)))
    if task.name != name:
        raise ValueError(f"task {name!r} has a map and is no maze2d-NAME")
    return task


def task_on(name: str, file: Path) -> MazeTask:
    """The task of a map's file, which the command line calls maze2d, or by its own name.

    Raises:
        ValueError: another task's name, a map that cannot be, or a file whose name is a known task's.
    """
    task = own_task(file.stem, read_map(file))
    if name not in ("maze2d", task.name):
        find_task(name)
        fresh = "; without a G every episode draws a fresh goal" if name.startswith("multi2d") else ""
        raise ValueError(f"--map is for maze2d, not for {name}: write maze2d --map {file}{fresh}")
    return task
