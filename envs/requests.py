"""A question to the planner as a user asks it, its answer in words, and the answer as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.planner.guides import Guide, parse_guides
from diffplan.planner.guides import avoid as avoid_disc
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan

from .records import plan_record, write_json
from .runs import exact_command, versions
from .simulators import Simulators
from .tasks import Task

AVOID_WEIGHT = 5.0
MORE_TRIES = 3  # batches of candidates, where the map refuses all of the first
AVOID_MARGIN = 0.15  # metres beyond the disc: the ball has a radius, and tracking an error


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        task: the task.
        start: observation (O,).
        goal: position (P,).
        vias: positions to pass on the way, in order.
        discs: (x, y, radius) to keep out of.
        guide: everything to prefer, the discs included.
        seed: of start and noise.
    """

    task: Task
    start: tuple[float, ...]
    goal: tuple[float, ...]
    vias: tuple[tuple[float, ...], ...] = ()
    discs: tuple[tuple[float, float, float], ...] = ()
    guide: Guide | None = None
    seed: int = 0

    @classmethod
    def parse(
        cls,
        task: Task,
        *,
        goal: str,
        start: str | None = None,
        via: Sequence[str] = (),
        avoid: Sequence[str] = (),
        guides: Sequence[str] = (),
        seed: int = 0,
    ) -> Request:
        """From the command line's words.

        Raises:
            ValueError: a word that cannot be; the message has its value and the remedy.
        """
        target = task.parse_point(goal, "goal")
        place = None if start is None else task.parse_point(start, "start")
        stops = tuple(task.parse_point(v, "via") for v in via)
        discs = tuple(parse_disc(a, keep=[p for p in (target, place, *stops) if p]) for a in avoid)
        guide = avoiding(discs, parse_guides(guides))
        with Simulators(task, 1, start=place, goal=target) as simulators:
            observations, _ = simulators.reset([seed])
        return cls(task, tuple(observations[0].tolist()), target, stops, discs, guide, seed)

    @property
    def start_position(self) -> NDArray[np.float64]:
        """(P,)."""
        return np.array(self.start)[self.task.spec.position_indices]


def parse_disc(text: str, *, keep: Sequence[Sequence[float]] = ()) -> tuple[float, float, float]:
    """X,Y,R in metres.

    Raises:
        ValueError: not three finite numbers, a radius that is not positive, or a disc that covers a point to keep.
    """
    try:
        x, y, radius = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"avoid {text!r} must be three numbers X,Y,R in metres, such as 1,0,0.4") from None
    if not np.isfinite([x, y, radius]).all() or radius <= 0:
        raise ValueError(f"avoid {text!r} needs finite numbers and a positive radius, such as 1,0,0.4")
    for point in keep:
        if np.hypot(point[0] - x, point[1] - y) <= radius:
            raise ValueError(
                f"avoid {text!r} covers the start, goal or via {point[0]:g},{point[1]:g}; move it or make it smaller"
            )
    return x, y, radius


def avoiding(discs: Sequence[tuple[float, float, float]], guide: Guide | None) -> Guide | None:
    """A guide that also keeps out of discs."""
    for x, y, radius in discs:
        one = AVOID_WEIGHT * avoid_disc(x, y, radius + AVOID_MARGIN)
        guide = one if guide is None else guide + one
    return guide


def answer(planner: TrajectoryPlanner, request: Request, **options: Any) -> Plan:
    """The plan; candidates that the task's own map refuses come last, and where it refuses all, others are sampled."""
    generator, check = torch.Generator().manual_seed(request.seed), feasible_for(request.task, request.discs)
    stops = [*request.vias, request.goal]
    for _ in range(1 + MORE_TRIES):
        plan = planner.route(request.start, stops, generator=generator, guide=request.guide, feasible=check, **options)
        if check(plan)[0]:
            break
    return plan


def feasible_for(task: Task, discs: Sequence[tuple[float, float, float]] = ()) -> Any:
    """The task's own check of candidates, and the discs."""

    def check(plan: Plan) -> NDArray[np.bool_]:
        return task.feasible(plan) & np.array([_clear_of(plan, k, discs) for k in range(len(plan.trajectories))])

    return check


def describe(request: Request, plan: Plan) -> str:
    """The answer in a few lines."""
    task, scores = request.task, ", ".join(f"{s:.2f}" for s in plan.scores[:8])
    more = f", ... ({len(plan.scores)} in all)" if len(plan.scores) > 8 else ""
    lines = [
        f"{task.name}: from {_point(request.start_position)} to {_point(request.goal)}"
        + (f" via {'; '.join(_point(v) for v in request.vias)}" if request.vias else ""),
        f"plan: {plan.steps} steps, {plan.duration_seconds:.2f} s; planned in {1000 * plan.seconds:.0f} ms",
        f"candidate scores, best first: {scores}{more}",
    ]
    if not task.feasible(plan)[0]:
        lines.append("warning: every candidate touches a wall; try more --candidates, or train longer")
    if not _clear_of(plan, 0, request.discs):
        lines.append("warning: no candidate keeps out of every disc; try more --candidates")
    return "\n".join(lines)


def draw(request: Request, plan: Plan, path: Path) -> None:
    """Write the answer as .json, or as a picture or video."""
    from .render import plan_frames, plan_picture
    from .video import save_picture, save_video

    looks: dict[str, Any] = {
        "start": request.start_position,
        "goal": request.goal,
        "discs": request.discs,
        "vias": request.vias,
    }
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
            ),
        )
    elif path.suffix == ".png":
        save_picture(path, plan_picture(request.task, plan, **looks))
    else:
        save_video(path, plan_frames(request.task, plan, **looks), fps=20)


def film_of(planner: TrajectoryPlanner, request: Request, path: Path, **options: Any) -> None:
    """Write the denoising of the last leg, from noise to plan."""
    from .render import film_frames
    from .video import save_video

    start = request.start if not request.vias else (*request.vias[-1], *request.start[len(request.goal) :])
    steps = planner.film(
        planner.problem(start, request.goal),
        generator=torch.Generator().manual_seed(request.seed),
        guide=request.guide,
        **options,
    )
    frames = film_frames(request.task, [s.numpy() for s in steps], start=start[: len(request.goal)], goal=request.goal)
    save_video(path, frames, fps=6)


def _clear_of(plan: Plan, candidate: int, discs: Sequence[tuple[float, float, float]]) -> bool:
    path = plan.path(candidate)
    return all(np.hypot(path[:, 0] - x, path[:, 1] - y).min() > radius for x, y, radius in discs)


def _point(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{v:.2f}" for v in values) + ")"
