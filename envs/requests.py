"""A question to the planner as a user asks it, its answer in words, and the answer as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.planner.guides import Guide, Mark
from diffplan.planner.pipeline import Feasible, TrajectoryPlanner
from diffplan.planner.plan import Plan

from .arm_rollouts import drawn_as_arm
from .drawing import drawing_of
from .records import plan_record, write_json
from .runs import exact_command, versions
from .simulators import Simulators
from .tasks import Task
from .wishes import (
    check_placed,
    clear_of,
    feasible_for,
    guides_for,
    marks_of,
    obstacles,
    parse_wishes,
    places_at,
    spots,
)

FRAMES = 40  # of a plan's film
MORE_TRIES = 3  # batches of candidates, where the map refuses all of the first


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        task: the task.
        start: observation (O,).
        goal: position (P,), or () to leave the end to the guides.
        vias: positions to pass on the way, in order.
        or_goals: other positions that would do as well as the goal.
        guide: everything to prefer, places to avoid included.
        seed: of start and noise.
    """

    task: Task
    start: tuple[float, ...]
    goal: tuple[float, ...]
    vias: tuple[tuple[float, ...], ...] = ()
    guide: Guide | None = None
    seed: int = 0
    or_goals: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def parse(
        cls,
        task: Task,
        planner: TrajectoryPlanner,
        *,
        goal: str | None,
        start: str | None = None,
        or_goal: Sequence[str] = (),
        via: Sequence[str] = (),
        avoid: Sequence[str] = (),
        guides: Sequence[str] = (),
        seed: int = 0,
    ) -> Request:
        """From the command line's words.

        Raises:
            ValueError: a word that cannot be; the message has its value and the remedy.
        """
        check_placed(task, goal, start)
        guides = guides_for(task, guides)
        if goal is None and not guides and task.spec.position:
            raise ValueError(
                "nothing says where to go: give --goal X,Y, or a guide that leads somewhere, such as --guide return@3"
            )
        if goal is None and or_goal:
            raise ValueError("--or-goal is a choice beside --goal: give that too")
        if goal is None and via:
            raise ValueError("--via is passed on the way to a goal: give --goal X,Y, or use --guide via:x=..,y=..@10")
        target = None if goal is None else task.parse_point(goal, "goal")
        place = None if start is None else task.parse_point(start, "start")
        stops = tuple(task.parse_point(v, "via") for v in via)
        others = tuple(task.parse_point(g, "goal") for g in or_goal)
        with Simulators(task, 1, start=place, goal=target) as simulators:
            observations, _ = simulators.reset([seed])
        start_observation = tuple(observations[0].tolist())
        keep = [p for p in (*places_at(task, start_observation), target, *stops, *others) if p]
        guide = parse_wishes(task, planner, avoid=avoid, guides=guides, keep=keep)
        return cls(task, start_observation, target or (), stops, guide, seed, others)

    @property
    def start_position(self) -> NDArray[np.float64]:
        """(P,)."""
        return np.array(self.start)[self.task.spec.position_indices]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What was asked for, as pictures show it."""
        return (*marks_of(self.guide), *spots(self.vias))


def settle(planner: TrajectoryPlanner, request: Request, **options: Any) -> Request:
    """The request with one goal: of those that would do, the one that is reached soonest."""
    if not request.or_goals:
        return request
    goals, check = [request.goal, *request.or_goals], feasible_for(request.task, request.guide)
    known: dict[str, Any] = {"vias": request.vias, "guide": request.guide, "feasible": check}
    generator = torch.Generator().manual_seed(request.seed)
    best, _ = planner.nearest(request.start, goals, generator=generator, **known, **options)
    return replace(request, goal=tuple(goals[best]), or_goals=())


def answer(planner: TrajectoryPlanner, request: Request, **options: Any) -> Plan:
    """The plan; candidates that the task's own map refuses come last, and where it refuses all, others are sampled."""
    check = feasible_for(request.task, request.guide)
    known: dict[str, Any] = {"generator": torch.Generator().manual_seed(request.seed)}
    known |= {"guide": request.guide, "feasible": check}
    for _ in range(1 + MORE_TRIES):
        if request.goal:
            plan = planner.route(request.start, [*request.vias, request.goal], **known, **options)
        else:
            plan = planner.plan(planner.problem(request.start), **known, **options)
        plan = plan if plan.guides else _driven(planner, plan, check)
        if check(plan)[0]:
            break
    return plan


def _driven(planner: TrajectoryPlanner, plan: Plan, check: Feasible) -> Plan:
    """The plan as it will be driven, where a plant tells how."""
    raced = planner.raced(plan)
    return raced if raced is plan else raced.preferring(check(raced))


def describe(request: Request, plan: Plan) -> str:
    """The answer in a few lines."""
    task, scores = request.task, ", ".join(f"{s:.2f}" for s in plan.scores[:8])
    more = f", ... ({len(plan.scores)} in all)" if len(plan.scores) > 8 else ""
    where = (
        f"from {_point(request.start_position)} to {_point(request.goal if request.goal else plan.positions[0, -1])}"
        if task.spec.position
        else f"led by {' + '.join(plan.guides) or 'nothing'}"
    )
    lines = [
        f"{task.name}: {where}" + (f" via {'; '.join(_point(v) for v in request.vias)}" if request.vias else ""),
        f"plan: {plan.steps} steps, {plan.duration_seconds:.2f} s; planned in {1000 * plan.seconds:.0f} ms",
        f"candidate scores, best first: {scores}{more}",
    ]
    if not task.feasible(plan)[0]:
        lines.append("warning: every candidate touches a wall; try more --candidates, or train longer")
    if not clear_of(task, plan, 0, obstacles(request.guide)):
        lines.append("warning: no candidate keeps out of what is to be avoided; try more --candidates")
    return "\n".join(lines)


def draw(request: Request, plan: Plan, path: Path, *, unguided: Plan | None = None) -> None:
    """Write the answer as .json, or as a picture or video; there beside the plan without the guide, if given."""
    from .render import colour_top, frames_side_by_side, side_by_side
    from .video import save_picture, save_video

    task, title = request.task, " + ".join(plan.guides)
    plan_picture, plan_frames = drawing_of(task, request.start_position)
    looks = _looks(request)
    if unguided is not None and not drawn_as_arm(task):
        looks["scale_to"] = max(colour_top(task, each, request.marks) for each in (plan, unguided))
    if path.suffix == ".json":
        write_json(
            path,
            plan_record(
                request.task,
                plan,
                start=request.start,
                goal=request.goal,
                seed=request.seed,
                versions=versions(),
                command=exact_command(),
                vias=request.vias,
            ),
        )
    elif path.suffix == ".png":
        picture = plan_picture(task, plan, title=title, **looks)
        if unguided is not None:
            picture = side_by_side(plan_picture(task, unguided, title="unguided", **looks), picture)
        save_picture(path, picture)
    else:
        longest = max(p.duration_seconds for p in (plan, unguided or plan))

        def film(one: Plan, words: str) -> Iterator[NDArray[np.uint8]]:  # both run at one pace
            count = max(2, round(FRAMES * one.duration_seconds / max(longest, 1e-9)))
            return plan_frames(task, one, title=words, count=count, **looks)

        frames = film(plan, title)
        if unguided is not None:
            frames = frames_side_by_side(film(unguided, "unguided"), frames)
        save_video(path, frames, fps=20)


def _looks(request: Request) -> dict[str, Any]:
    return {"goal": request.goal or None, "marks": request.marks}


def film_of(planner: TrajectoryPlanner, request: Request, path: Path, **options: Any) -> None:
    """Write the denoising of the last leg, from noise to plan."""
    from .render import film_frames
    from .video import save_video

    start = request.start
    if request.vias:
        here = np.array(start)
        here[request.task.spec.position_indices] = request.vias[-1]
        start = tuple(here.tolist())
    steps = planner.film(
        planner.problem(start, request.goal or None),
        generator=torch.Generator().manual_seed(request.seed),
        guide=request.guide,
        **options,
    )
    frames = film_frames(request.task, [s.numpy() for s in steps], start=request.start_position, **_looks(request))
    save_video(path, frames, fps=6)


def _point(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{v:.2f}" for v in values) + ")"
