"""Which controller follows a task's plans."""

from __future__ import annotations

from diffplan.planner.execution import Controller, PlannedActions, TrackingController

from .tasks import Task


def controller_for(task: Task, name: str = "auto") -> Controller:
    """The controller of a task.

    Args:
        task: which.
        name: "tracking" drives positions along the plan, "actions" applies the planned actions, "auto" tracks where
            the task has gains.

    Raises:
        ValueError: an unknown name, or tracking for a task without gains.
    """
    if name not in ("auto", "tracking", "actions"):
        raise ValueError(f"unknown controller {name!r}; known: auto, tracking, actions")
    if name == "actions" or (name == "auto" and task.gains is None):
        return PlannedActions(task.action_limit)
    if task.gains is None:
        raise ValueError(f"task {task.name} has no gains for a tracking controller; use --controller actions")
    return TrackingController(
        tuple(task.spec.position_indices),
        tuple(task.spec.velocity_indices),
        *task.gains,
        feedforward=task.feedforward,
    )


def tempo_for(task: Task, controller: Controller) -> float:
    """How fast plans are followed: planned actions only at their own pace."""
    return task.tempo if isinstance(controller, TrackingController) else 1.0
