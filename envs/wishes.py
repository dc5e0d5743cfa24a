"""What a user wants beside a start and a goal: guides in words, places to avoid, and whether a plan keeps to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.guides import Box, Disc, Guide, Mark, Spot, Surroundings, avoid, parse_guide, parse_guides
from diffplan.planner.pipeline import Feasible, TrajectoryPlanner
from diffplan.planner.plan import Plan

from .tasks import Task

AVOID_WEIGHT = 100.0
LARGEST = 1e4  # position units, of what is drawn from a file
AVOID_CLEARANCE = Task.avoid_clearance  # metres beyond the agent's radius, of a task that names no other
FORMS = {
    2: ("X,Y,RADIUS or X,Y,WIDTH,HEIGHT", "1,0,0.4 or 1,0,0.6,0.3"),
    3: ("X,Y,Z,RADIUS or X,Y,Z,WIDTH,HEIGHT,DEPTH", "1.3,0.7,0.5,0.1 or 1.3,0.7,0.5,0.1,0.1,0.2"),
}
"""How a place to avoid is written where a task has so many positions, and examples."""


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
        avoid: as `FORMS` has them, each.
        guides: SPECs.
        keep: points (P,) that must not be covered: start (of all bodies, see `places_at`), goal, vias.

    Raises:
        ValueError: a word that cannot be; the message has its value and the remedy.
    """
    total = parse_guides(guides, surroundings(task, planner))
    for text in avoid:
        one = AVOID_WEIGHT * parse_place(text, margin=task.agent_radius + task.avoid_clearance, axes=_axes(task))
        total = one if total is None else total + one
    if total is not None:
        total.check(task.spec)
    for place in obstacles(total):
        for point in keep:
            _check_uncovered(task, place, point)
    return total


def _check_uncovered(task: Task, place: Disc | Box, point: Sequence[float]) -> None:
    if float(place.clearance(torch.tensor([float(v) for v in point]))) > task.agent_radius:
        return
    beside = f" (the agent has a radius of {task.agent_radius:g})" if task.agent_radius else ""
    where = ",".join(f"{v:.3g}" for v in point[: _axes(task)])
    raise ValueError(f"{_words(place)} covers the start, goal or via {where}{beside}; move it or make it smaller")


def _axes(task: Task) -> int:
    """How many coordinates a place has on the command line."""
    return 3 if len(task.spec.position) == 3 else 2


def places_at(task: Task, observation: ArrayLike) -> list[tuple[float, ...]]:
    """Where an observation (O,) has the position and the bodies: points (P,); none for a task without positions."""
    seen = np.asarray(observation, dtype=float)
    return [tuple(seen[body].tolist()) for body in task.spec.body_indices]


def parse_place(text: str, *, margin: float = 0.0, axes: int = 2) -> Guide:
    """A place to avoid, in metres: X,Y,R or X,Y,WIDTH,HEIGHT, and in space X,Y,Z,R or X,Y,Z,WIDTH,HEIGHT,DEPTH.

    Raises:
        ValueError: another count of numbers than these, one that is not finite, or a size that is not positive.
    """
    form, such_as = FORMS[axes]
    try:
        numbers = [float(part) for part in text.split(",")]
        if len(numbers) not in (axes + 1, 2 * axes):
            raise ValueError
    except ValueError:
        raise ValueError(f"avoid {text!r} must be {form} in metres, such as {such_as}") from None
    sizes = numbers[axes:]
    if not np.isfinite(numbers).all() or min(sizes) <= 0:
        raise ValueError(f"avoid {text!r} needs finite numbers and positive sizes, such as {such_as}")
    names = ("radius",) if len(sizes) == 1 else ("width", "height", "depth")[:axes]
    return avoid(margin=margin, **dict(zip((*"xyz"[:axes], *names), numbers, strict=True)))


def obstacles(guide: Guide | None) -> list[Disc | Box]:
    """The places that a guide avoids."""
    return [mark for mark in marks_of(guide) if isinstance(mark, (Disc, Box))]


def marks_of(guide: Guide | None) -> tuple[Mark, ...]:
    """What a guide looks like in pictures."""
    return () if guide is None else guide.marks


def spots(points: Sequence[Sequence[float]]) -> tuple[Mark, ...]:
    """What points (P,) to pass on the way look like; with fewer than two positions they have no look."""
    return tuple(Spot(*point[:3]) for point in points if len(point) > 1)


def marks_in(lines: Sequence[str]) -> tuple[Mark, ...]:
    """What guides look like that a file describes; those that cannot be made from words alone have no look."""
    marks: tuple[Mark, ...] = ()
    for line in lines:
        try:
            marks += parse_guide(line).marks
        except ValueError:
            continue
    return tuple(m for m in marks if max(abs(v) for v in astuple(m) if v is not None) <= LARGEST)


def feasible_for(task: Task, guide: Guide | None = None) -> Feasible:
    """The task's own check of candidates (K,), and that they keep out of what the guide avoids."""
    places = obstacles(guide)

    def check(plan: Plan) -> NDArray[np.bool_]:
        return task.feasible(plan) & np.array([clear_of(task, plan, k, places) for k in range(len(plan.arrivals))])

    return check


def clear_of(task: Task, plan: Plan, candidate: int, places: Sequence[Disc | Box]) -> bool:
    """Whether a candidate keeps the whole agent out of places, and every other body."""
    if not places:
        return True
    paths = torch.from_numpy(np.array(plan.paths(candidate), dtype=np.float64))  # (M, n, P)
    return all(float(place.clearance(paths).min()) >= task.agent_radius for place in places)


def _words(place: Disc | Box) -> str:
    size = f"radius {place.radius:g}" if isinstance(place, Disc) else " by ".join(f"{v:g}" for v in place.sides)
    return f"avoid at {','.join(f'{v:g}' for v in place.center)} ({size})"
