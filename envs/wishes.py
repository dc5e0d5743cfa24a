"""What a user wants beside a start and a goal: guides in words, places to avoid, and whether a plan keeps to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.planner.guides import Box, Disc, Guide, Mark, Surroundings, avoid, parse_guide, parse_guides
from diffplan.planner.pipeline import Feasible, TrajectoryPlanner
from diffplan.planner.plan import Plan

from .tasks import Task

AVOID_WEIGHT = 100.0
LARGEST = 1e4  # position units, of what is drawn from a file
AVOID_CLEARANCE = 0.1  # metres beyond the agent's radius: tracking has an error


def surroundings(task: Task, planner: TrajectoryPlanner) -> Surroundings:
    """What guides need of a task and a run, or why it is not there."""
    own = planner.task == task.name
    missing = (
        f"its return model was trained for the rewards of {planner.task}, not of {task.name}"
        if planner.returns is not None
        else f"this run has no return model; add one with: diffplan train {planner.task or 'TASK'} --only returns "
        "--output RUN (for a task with rewards)"
    )
    return Surroundings(
        clearance=task.clearance(),
        returns=planner.returns if own else None,
        why_not=(("returns", missing), ("clearance", f"task {task.name} has no map of walls")),
    )


def guides_for(task: Task, guides: Sequence[str] | None) -> list[str]:
    """The SPECs that were given, or the task's own; "none" asks for none at all."""
    given = list(guides or task.guides)
    return [] if given == ["none"] else given


def check_placed(task: Task, goal: str | None, start: str | None) -> None:
    """Refuse a goal or a start where a task has no positions.

    Raises:
        ValueError: the message names the value.
    """
    for what, given in (("goal", goal), ("start", start)):
        if given is not None and not task.spec.position:
            raise ValueError(f"{what} {given!r}: task {task.name} has no positions to go to; it is led by guides alone")


def parse_wishes(
    task: Task,
    planner: TrajectoryPlanner,
    *,
    avoid: Sequence[str] = (),
    guides: Sequence[str] = (),
    keep: Sequence[Sequence[float]] = (),
) -> Guide | None:
    """The sum of guide SPECs and of places to avoid.

    Args:
        task: whose map is meant.
        planner: whose return model is meant.
        avoid: X,Y,R or X,Y,WIDTH,HEIGHT each.
        guides: SPECs.
        keep: points (P,) that must not be covered: start, goal, vias.

    Raises:
        ValueError: a word that cannot be; the message has its value and the remedy.
    """
    total = parse_guides(guides, surroundings(task, planner))
    for text in avoid:
        one = AVOID_WEIGHT * parse_place(text, margin=task.agent_radius + AVOID_CLEARANCE)
        total = one if total is None else total + one
    for place in obstacles(total):
        for point in keep:
            if float(place.clearance(torch.tensor([float(v) for v in point[:2]]))) <= task.agent_radius:
                beside = f" (the agent has a radius of {task.agent_radius:g})" if task.agent_radius else ""
                raise ValueError(
                    f"{_words(place)} covers the start, goal or via {point[0]:.3g},{point[1]:.3g}{beside}; "
                    "move it or make it smaller"
                )
    return total


def parse_place(text: str, *, margin: float = 0.0) -> Guide:
    """A place to avoid from X,Y,R or X,Y,WIDTH,HEIGHT in metres.

    Raises:
        ValueError: not three or four finite numbers, or a size that is not positive.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) not in (3, 4):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"avoid {text!r} must be X,Y,RADIUS or X,Y,WIDTH,HEIGHT in metres, such as 1,0,0.4 or 1,0,0.6,0.3"
        ) from None
    if not np.isfinite(numbers).all() or min(numbers[2:]) <= 0:
        raise ValueError(f"avoid {text!r} needs finite numbers and positive sizes, such as 1,0,0.4 or 1,0,0.6,0.3")
    sizes = {"radius": numbers[2]} if len(numbers) == 3 else {"width": numbers[2], "height": numbers[3]}
    return avoid(numbers[0], numbers[1], margin=margin, **sizes)


def obstacles(guide: Guide | None) -> list[Disc | Box]:
    """The places that a guide avoids."""
    return [mark for mark in marks_of(guide) if isinstance(mark, (Disc, Box))]


def marks_of(guide: Guide | None) -> tuple[Mark, ...]:
    """What a guide looks like in pictures."""
    return () if guide is None else guide.marks


def marks_in(lines: Sequence[str]) -> tuple[Mark, ...]:
    """What guides look like that a file describes; those that cannot be made from words alone have no look."""
    marks: tuple[Mark, ...] = ()
    for line in lines:
        try:
            marks += parse_guide(line).marks
        except ValueError:
            continue
    return tuple(m for m in marks if max(map(abs, astuple(m))) <= LARGEST)


def feasible_for(task: Task, guide: Guide | None = None) -> Feasible:
    """The task's own check of candidates (K,), and that they keep out of what the guide avoids."""
    places = obstacles(guide)

    def check(plan: Plan) -> NDArray[np.bool_]:
        return task.feasible(plan) & np.array([clear_of(task, plan, k, places) for k in range(len(plan.arrivals))])

    return check


def clear_of(task: Task, plan: Plan, candidate: int, places: Sequence[Disc | Box]) -> bool:
    """Whether a candidate keeps the whole agent out of places."""
    if not places:
        return True
    path = torch.from_numpy(np.ascontiguousarray(plan.path(candidate), dtype=np.float64))
    return all(float(place.clearance(path).min()) >= task.agent_radius for place in places)


def _words(place: Disc | Box) -> str:
    size = f"radius {place.radius:g}" if isinstance(place, Disc) else f"{place.width:g} by {place.height:g}"
    return f"avoid at {place.x:g},{place.y:g} ({size})"
