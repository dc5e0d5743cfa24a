"""What can be planned.

A user's own task is one value of `Task` (or of a subclass that overrides what differs), registered with `register` or
through an entry point in the group "diffplan.tasks".
"""

from __future__ import annotations

import importlib.metadata

from .mazes import MazeTask, maze_tasks
from .robots import RobotTask, robot_tasks
from .task import Task

__all__ = ["MazeTask", "RobotTask", "Task", "all_tasks", "find_task", "register"]

_TASKS: dict[str, Task] = maze_tasks() | robot_tasks()
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
