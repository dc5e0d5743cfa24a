"""One executed episode for a person to look at: run it, say what happened, draw it.

Shape letters: T steps, O observations, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.planner.execution import Executor, Rollout, plan_in_force
from diffplan.planner.guides import Guide, Region
from diffplan.planner.pipeline import TrajectoryPlanner

from .arm_rollouts import ArmEpisode, arm_curves, arm_film, drawn_as_arm
from .control import check_controller, executor_for
from .hand_rollouts import describe_hand, hand_film
from .records import rollout_record, write_json
from .robot_rollouts import describe_robot, drawn_by_mujoco, frames_per_second, robot_film, save_returns
from .runs import exact_command, versions
from .simulators import Simulators
from .tasks import ArmTask, HandTask, RobotTask, Task
from .wishes import check_placed, feasible_for, guides_for, marks_of, parse_wishes, places_at, spots

DRAW_EVERY = 4  # environment steps
LINGER = 60  # steps that are shown after the goal was reached


@dataclass(frozen=True)
class Ride:
    """What to execute."""

    task: Task
    goal: tuple[float, ...] | None = None
    start: tuple[float, ...] | None = None
    guide: Guide | None = None
    pin_goal: bool = True
    seed: int = 0
    replan_every: int = 20
    controller: str = "auto"
    pictures: bool = False
    vias: tuple[tuple[float, ...], ...] = ()
    or_goals: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def parse(
        cls,
        task: Task,
        planner: TrajectoryPlanner,
        *,
        goal: str | None = None,
        start: str | None = None,
        avoid: Sequence[str] = (),
        guides: Sequence[str] = (),
        pin_goal: bool = True,
        seed: int = 0,
        replan_every: int | None = None,
        controller: str = "auto",
        pictures: bool = False,
        via: Sequence[str] = (),
        or_goal: Sequence[str] = (),
    ) -> Ride:
        """From the command line's words; errors as for `requests.Request.parse`."""
        check_placed(task, goal, start)
        target = None if goal is None else task.parse_point(goal, "goal")
        place = None if start is None else task.parse_point(start, "start")
        vias = tuple(task.parse_point(v, "via") for v in via)
        others = tuple(task.parse_point(g, "goal") for g in or_goal)
        guides = guides_for(task, guides)
        if not pin_goal and not guides:
            raise ValueError("without a goal guides have to lead: give one that does, such as --guide return@3")
        if not pin_goal and (vias or others):
            raise ValueError("--via and --or-goal need a goal that the planner is told: leave --no-goal out")
        with Simulators(task, 1, start=place, goal=target) as simulators:
            observations, goals = simulators.reset([seed])
        keep = [p for p in (*places_at(task, observations[0]), *(g.tolist() for g in goals), *vias, *others) if p]
        guide = parse_wishes(task, planner, avoid=avoid, guides=guides, keep=keep)
        check_controller(task, planner, controller)
        return cls(
            task,
            target,
            place,
            guide,
            pin_goal,
            seed,
            replan_every or task.replan_every,
            controller,
            pictures,
            vias,
            others,
        )


@dataclass(frozen=True)
class Result:
    """What happened; `pictures` are the simulator's own, one every `DRAW_EVERY` steps, or none."""

    rollout: Rollout
    reached_at: int | None
    plan_seconds: tuple[float, ...]
    pictures: tuple[NDArray[np.uint8], ...] = field(default=(), repr=False)
    faults: tuple[str, ...] = ()


def execute(planner: TrajectoryPlanner, ride: Ride, **options: Any) -> Iterator[float | Result]:
    """Run one episode until shortly after the goal is reached, yielding the share done and, last, the `Result`."""
    task, moments, pictures, reached = ride.task, [], [], None
    mode = "rgb_array" if ride.pictures else None
    with Simulators(task, 1, start=ride.start, goal=ride.goal, render_mode=mode) as simulators:
        executor = executor_for(
            planner,
            task,
            simulators,
            controller=ride.controller,
            replan_every=ride.replan_every,
            guide=ride.guide,
            pin_goal=ride.pin_goal,
            vias=ride.vias,
            or_goals=ride.or_goals,
            feasible=feasible_for(task, ride.guide),
            **options,
        )
        for moment in executor.moments(steps=task.episode_steps, seeds=[ride.seed]):
            moments.append(moment)
            if ride.pictures and moment.step % DRAW_EVERY == 0:
                pictures.append(simulators.render())
            if reached is None and _is_there(task, executor, moment.observations[0]):
                reached = moment.step
            if reached is not None and moment.step >= reached + LINGER:
                break
            yield moment.step / task.episode_steps
        if ride.pictures and moments[-1].step % DRAW_EVERY:
            pictures.append(simulators.render())  # the last step is always drawn
        rollout = executor.rollouts(moments)[0]
        faults = tuple(simulators.faults.values())
    yield Result(rollout, reached, tuple(executor.plan_seconds), tuple(pictures), faults)


def _is_there(task: Task, executor: Executor, observation: NDArray[Any]) -> bool:
    """Whether the goal is reached, after all that was to be passed before."""
    goal = executor.goals[0]
    return bool(len(goal)) and not executor.vias_left[0] and bool(task.reached(observation, goal))


def describe(ride: Ride, result: Result) -> str:
    """What happened, in a few lines."""
    task, rollout = ride.task, result.rollout
    if isinstance(task, RobotTask):
        return describe_robot(task, rollout, result.plan_seconds, result.faults)
    if isinstance(task, HandTask):
        return describe_hand(task, rollout, result.plan_seconds, result.faults)
    seconds = task.spec.dt_seconds
    end = (
        "the goal was not reached"
        if result.reached_at is None
        else (f"reached the goal after {result.reached_at} steps ({result.reached_at * seconds:.2f} s)")
    )
    goal = f" to ({', '.join(f'{v:.2f}' for v in rollout.goal)})" if len(rollout.goal) else ""
    if regions := _regions(ride):  # which the plans were led to, and not to the goal
        here = torch.from_numpy(rollout.states[-1, task.spec.position_indices])
        goal, end = "", f"ended {'within' if any(r.holds(here) for r in regions) else 'outside'} the region asked for"
    count = len(result.plan_seconds)
    return (
        f"{task.name}{goal}: {end} in {len(rollout.rewards)} executed steps\n"
        f"planned {count} time{'s' * (count != 1)}, {1000 * float(np.median(result.plan_seconds)):.0f} ms each (median)"
    )


def _regions(ride: Ride) -> tuple[Region, ...]:
    return () if ride.guide is None or ride.pin_goal else ride.guide.regions


def save(ride: Ride, result: Result, path: Path, *, unguided: Result | None = None) -> None:
    """Write the episode as .json, .gif or .mp4, there beside the one without the guide, if that is given.

    As .png, of an arm, its coordinates as they were planned and as they came.
    """
    if path.suffix == ".json":
        write_json(
            path,
            rollout_record(ride.task, result.rollout, seed=ride.seed, versions=versions(), command=exact_command()),
        )
        return
    from .render import colour_top, frames_side_by_side
    from .video import save_picture, save_video

    if path.suffix == ".png" and isinstance(ride.task, ArmTask):
        save_picture(path, arm_curves(ride.task, ArmEpisode.of(result.rollout, ride.seed)))
        return

    shared: dict[str, Any] = {}
    if unguided is not None and ride.task.spec.position:
        states = [r.rollout.states for r in (result, unguided)]
        shared["scale_to"] = max(colour_top(ride.task, s, marks_of(ride.guide)) for s in states)
    frames = _frames(ride, result, **shared)
    if unguided is not None:
        frames = frames_side_by_side(_frames(ride, unguided, title="unguided", **shared), frames)
    save_video(path, frames, fps=pace(ride.task))


def check_drawn(task: Task, path: Path) -> None:
    """Refuse a picture of a rollout of which there are only films.

    Raises:
        ValueError: with the remedy.
    """
    if path.suffix == ".png" and not isinstance(task, ArmTask):
        raise ValueError(f"output {path}: a rollout of {task.name} is drawn as a film; use .gif or .mp4")


def has_pictures(task: Task) -> bool:
    """Whether the simulator's own pictures belong to a rollout's film; the arm's film is drawn afterwards."""
    return isinstance(task, HandTask) or (bool(task.spec.position) and not isinstance(task, ArmTask))


def pace(task: Task) -> int:
    """Frames per second of a rollout's film."""
    if drawn_as_arm(task):
        return round(1 / task.spec.dt_seconds)
    return round(frames_per_second(task) if drawn_by_mujoco(task) else 1 / (DRAW_EVERY * task.spec.dt_seconds))


def save_expectations(planner: TrajectoryPlanner, ride: Ride, result: Result, beside: Path) -> Path | None:
    """A robot's expected and realised returns, as a picture beside a film; nothing where nothing was expected."""
    if not isinstance(ride.task, RobotTask) or planner.returns is None or beside.suffix == ".json":
        return None
    path = beside.with_name(f"{beside.stem}-returns.png")
    save_returns(ride.task, planner, result.rollout, path)
    return path


def _frames(ride: Ride, result: Result, *, title: str | None = None, **looks: Any) -> Iterator[NDArray[np.uint8]]:
    from .render import rollout_frames

    rollout, words = result.rollout, () if ride.guide is None else ride.guide.describe()
    title = " + ".join(words) if title is None else title
    if drawn_as_arm(ride.task):
        marks = (*marks_of(ride.guide), *spots(ride.vias))
        return arm_film(ride.task, ArmEpisode.of(rollout, ride.seed), marks=marks, title=title)
    if drawn_by_mujoco(ride.task):
        plans = [p.ahead() for p in rollout.plans]
        return robot_film(ride.task, rollout.states, rollout.rewards, rollout.plan_steps, plans, title=title)
    if isinstance(ride.task, HandTask) and result.pictures:
        return hand_film(ride.task, result.pictures, rollout.rewards, every=DRAW_EVERY, title=title)
    return rollout_frames(
        ride.task,
        rollout.states,
        plan_lookup(rollout.plan_steps, [p.path() for p in rollout.plans]),
        goal=rollout.goal,
        frames=list(result.pictures) or None,
        every=DRAW_EVERY,
        marks=marks_of(ride.guide),
        title=title,
        **looks,
    )


def plan_lookup(plan_steps: Sequence[int], paths: Sequence[NDArray[Any]]) -> Any:
    """Step to the path (n, P) of the plan that was being followed then."""

    def at(step: int) -> NDArray[np.float64] | None:
        index = plan_in_force(plan_steps, step)
        return np.asarray(paths[index]) if index >= 0 else None

    return at
