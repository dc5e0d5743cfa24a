"""Which controller follows a task's plans, and what executes them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from diffplan.planner.controllers import (
    Controller,
    InverseController,
    PlannedActions,
    RacingController,
    TrackingController,
)
from diffplan.planner.execution import Executor
from diffplan.planner.inverse import InverseDynamics
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Array, Reference
from diffplan.planner.plant import Plant
from diffplan.planner.racing import courses

from .simulators import Simulators
from .tasks import Task


class PositionController(TrackingController):
    """Drives positions whose rates nobody observes along the plan: action = f planned + p (position error)."""

    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        off = ahead.position - observations[:, list(self.position)]
        return np.clip(self.feedforward * now.action + self.p_gain * off, -self.limit, self.limit)


def controller_for(task: Task, name: str = "auto") -> Controller:
    """The controller of a task.

    Args:
        task: which.
        name: "tracking" drives positions along the plan, "actions" applies the planned actions, "auto" tracks where
            the task has gains. ("racing" needs a planner; see `executor_for`.)

    Raises:
        ValueError: an unknown name, or tracking for a task without gains.
    """
    if name not in ("auto", "tracking", "actions"):
        raise ValueError(f"unknown controller {name!r}; known: {', '.join(CONTROLLERS)}")
    if name == "actions" or (name == "auto" and task.gains is None):
        return PlannedActions(task.action_limit)
    if task.gains is None:
        raise ValueError(f"task {task.name} has no gains for a tracking controller; use --controller actions")
    kind = TrackingController if task.spec.velocity else PositionController
    return kind(
        tuple(task.spec.position_indices),
        tuple(task.spec.velocity_indices),
        *task.gains,
        feedforward=task.feedforward,
    )


CONTROLLERS = ("auto", "racing", "retimed", "tracking", "actions", "inverse")


def check_controller(task: Task, planner: TrajectoryPlanner, name: str) -> None:
    """Refuse a controller that does not exist, or that a task or planner has not what it takes for.

    Raises:
        ValueError: with the known ones, or what is missing.
    """
    if name in ("racing", "retimed"):
        _plant_of(planner)
    elif name == "inverse":
        _inverse_of(planner)
    else:
        controller_for(task, name)


def _plant_of(planner: TrajectoryPlanner) -> Plant:
    if planner.plant is None:
        raise ValueError(
            "racing along plans needs a plant fitted to the data, and this planner has none; "
            "train it again, or use --controller tracking"
        )
    return planner.plant


def _inverse_of(planner: TrajectoryPlanner) -> InverseDynamics:
    if planner.inverse is None:
        raise ValueError(
            "following states needs learned inverse dynamics, and this planner has none; "
            "train one with --actions inverse, or use --controller actions"
        )
    return planner.inverse


def tempo_for(task: Task, controller: Controller) -> float:
    """How fast plans are followed: planned actions only at their own pace."""
    return task.tempo if isinstance(controller, TrackingController) else 1.0


def executor_for(
    planner: TrajectoryPlanner,
    task: Task,
    simulators: Simulators,
    *,
    controller: str = "auto",
    tempo: float | None = None,
    replan_every: int | None = None,
    **options: Any,
) -> Executor:
    """An executor as a task wants it.

    Args:
        planner: makes the plans.
        task: what is executed.
        simulators: its environments.
        controller: see `controller_for`; or "racing", which follows the fastest course along each plan with the
            dynamics that were fitted to the data, or "retimed", which does not smooth its path; or "inverse", which
            applies the actions that learned inverse dynamics find between states. "auto" races where
            nothing speaks against it: the planner has a plant, no guide (which may ask for less speed or another way)
            leads, and no tempo is given. It follows states where those are all that was planned, or where a guide has
            bent them: planned actions know nothing of that.
        tempo: how much faster than planned plans are followed; None takes the task's.
        replan_every: environment steps between plans; None takes the task's.
        **options: of `planner.execution.Executor`.
    """
    replan_every, plant = replan_every or task.replan_every, planner.plant
    options = {"tolerance": task.tolerance, "passed_within": task.passed_within} | options
    if controller not in CONTROLLERS:
        raise ValueError(f"unknown controller {controller!r}; known: {', '.join(CONTROLLERS)}")
    if controller in ("racing", "retimed") or (
        controller == "auto" and _may_race(task, plant, tempo, options.get("guide"))
    ):
        plant = _plant_of(planner)
        indices = tuple(task.spec.position_indices), tuple(task.spec.velocity_indices)
        options["hasten"] = functools.partial(courses, plant, bent=controller != "retimed")
        return Executor(
            planner, simulators, controller=RacingController(plant, *indices), replan_every=replan_every, **options
        )
    follow: Controller
    if controller == "inverse" or (controller == "auto" and _follows_states(planner, task, options.get("guide"))):
        follow = InverseController(_inverse_of(planner), task.action_limit)
    else:
        follow = controller_for(task, controller)
    tempo = tempo_for(task, follow) if tempo is None else tempo
    return Executor(planner, simulators, controller=follow, tempo=tempo, replan_every=replan_every, **options)


def _follows_states(planner: TrajectoryPlanner, task: Task, guide: object) -> bool:
    learned = planner.inverse is not None and task.gains is None
    return learned and (bool(planner.config.state_only) or guide is not None)


def _may_race(task: Task, plant: Plant | None, tempo: float | None, guide: object) -> bool:
    return plant is not None and task.gains is not None and tempo is None and guide is None
