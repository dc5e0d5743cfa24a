"""Pictures and films of plans and rollouts.

A task with a maze, or with two positions, is seen from above; of any other each observation is drawn over time.
Pictures are uint8 (height, width, 3); height and width are even, as video needs.

Shape letters: K candidates, H tokens, T steps, O observations, P positions, D columns of a token, n points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import ArrayLike

from diffplan.planner.guides.marks import Mark
from diffplan.planner.plan import Plan

from .colours import AHEAD, GREY
from .references import planned_observations
from .scene import PICTURE_SCALE, Scene
from .shades import Array, shades_for
from .tasks import Task
from .video import Picture

HELD_FRAMES = 10  # repeats of a film's last frame


def plan_picture(
    task: Task,
    plan: Plan,
    *,
    start: ArrayLike | None,
    goal: ArrayLike | None,
    marks: Sequence[Mark] = (),
    title: str = "",
    tempo: float = 1.0,
    scale_to: float | None = None,
) -> Picture:
    """The chosen plan until it arrives, coloured by time in seconds or by speed, over its rival candidates.

    Args:
        task: what was planned.
        plan: candidate 0 is the chosen one.
        start: (P,) position or (O,) observation.
        goal: (P,) position.
        marks: what guides asked for; with a speed limit among them the colour tells the speed.
        title: a few words; cut short, with an ellipsis, where they do not fit.
        tempo: how much faster than planned the plan is followed: speeds are those of the execution.
        scale_to: the upper end of the colours, in seconds or in units per second; None takes `colour_top`.

    Returns:
        (h, w, 3), twice the size of a frame.
    """
    scene, observations, seconds = _plan_scene(
        task, plan, marks, goal, title, tempo=tempo, scale_to=scale_to, scale=PICTURE_SCALE
    )
    scene.draw_trail(scene.trail(), observations, seconds)
    scene.landmarks(start, goal)
    return scene.shot()


def plan_frames(
    task: Task,
    plan: Plan,
    *,
    start: ArrayLike | None,
    goal: ArrayLike | None,
    marks: Sequence[Mark] = (),
    title: str = "",
    tempo: float = 1.0,
    scale_to: float | None = None,
    count: int = 40,
) -> Iterator[Picture]:
    """`plan_picture` as a film of `count` frames (h, w, 3): a ball runs along the plan; the last frame is held."""
    scene, observations, seconds = _plan_scene(task, plan, marks, goal, title, tempo=tempo, scale_to=scale_to)
    scene.draw_strokes(scene.strokes(AHEAD, width=2.2), [(observations, seconds)])
    trail, label = scene.trail(), scene.label()
    scene.landmarks(start, goal)
    ball = scene.ball()
    for last in np.linspace(0, len(seconds) - 1, count).round().astype(int):
        scene.draw_trail(trail, observations[: last + 1], seconds[: last + 1])
        scene.draw_ball(ball, observations[last], seconds[last])
        label.set_text(f"{seconds[last]:.2f} s")
        frame = scene.shot()
        yield frame
    yield from [frame] * HELD_FRAMES


def film_frames(
    task: Task,
    film: Sequence[ArrayLike],
    *,
    start: ArrayLike | None,
    goal: ArrayLike | None,
    marks: Sequence[Mark] = (),
    title: str = "",
    between: int | None = None,
) -> Iterator[Picture]:
    """Noise becoming a plan: every token of every candidate, coloured by its time in seconds.

    Args:
        task: what was planned.
        film: n + 1 arrays (K, H, D) in environment units, from noise to plan.
        start, goal, marks, title: as in `plan_picture`.
        between: frames blended in from each step to the next, so that the eye can follow (the label counts true
            steps); None makes about 24 frames in all.

    Yields:
        (h, w, 3); the last frame is held.
    """
    if not len(film):
        raise ValueError("film is empty: give at least one array (K, H, D)")
    spec, final = task.spec, np.asarray(film[-1], dtype=float)
    steps = [np.asarray(f, dtype=float)[..., spec.observations] for f in film]
    seconds = np.arange(final.shape[1]) * spec.token_seconds
    under_way = np.flatnonzero((final[..., spec.arrived] < 0).any(axis=0))  # the tokens before the last arrival
    end = seconds[min(under_way[-1] + 1, len(seconds) - 1)] if len(under_way) else seconds[-1]
    seen = steps[-1].reshape(-1, steps[-1].shape[-1])
    scene = Scene(task, seen, end, title=title, marks=marks, goal=goal)
    between = max(0, 24 // max(len(steps) - 1, 1) - 1) if between is None else between
    strokes, cloud, label = scene.strokes(GREY, width=0.8), scene.cloud(), scene.label()
    scene.landmarks(start, goal)
    for i, step in enumerate(steps):
        before = steps[max(i - 1, 0)]
        for u in np.linspace(0, 1, between + 2)[1:] if i else (1.0,):
            now = (1 - u) * before + u * step
            # lines through noise are a thicket: they come as it clears
            formed = (i - 1 + u) / (len(steps) - 1) if len(steps) > 1 else 1.0
            scene.draw_strokes(strokes, [(candidate, seconds) for candidate in now], alpha=formed**3)
            scene.draw_cloud(cloud, now, seconds)
            label.set_text(f"denoising step {i}/{len(steps) - 1}")
            frame = scene.shot()
            yield frame
    yield from [frame] * HELD_FRAMES


def drawn_steps(steps: int, every: int | None = None) -> list[int]:
    """Which of a rollout's `steps` steps `rollout_frames` draws: the first, the last, by default about 60."""
    every = every or max(1, -(-steps // 60))
    return sorted({*range(0, steps + 1, every), steps})


def rollout_frames(
    task: Task,
    states: ArrayLike,
    plans_at: Callable[[int], ArrayLike | None],
    *,
    goal: ArrayLike | None,
    frames: Iterable[Picture] | None = None,
    every: int | None = None,
    rewards: ArrayLike | None = None,
    marks: Sequence[Mark] = (),
    title: str = "",
    scale_to: float | None = None,
) -> Iterator[Picture]:
    """An executed episode: the way so far coloured by time in seconds or by speed, the plan in force, a ball.

    Args:
        task: what was executed.
        states: (T + 1, O) observations.
        plans_at: positions (n, 2) of the plan in force at a step, None for nothing; only drawn seen from above.
        goal: (P,) position.
        frames: the simulator's pictures (h, w, 3) to stand beside, one for each of `drawn_steps(T, every)`.
        every: steps from one frame to the next; about 60 frames by default.
        rewards: (T,), summed in the label; without them the steps at the goal are counted.
        marks, title, scale_to: as in `plan_picture`.

    Raises:
        ValueError: there are fewer simulator pictures than drawn steps.
    """
    states = np.asarray(states, dtype=float)
    seconds = np.arange(len(states)) * task.spec.dt_seconds
    shades = shades_for(task, states, seconds, marks, scale_to=scale_to)
    scene = Scene(task, states, seconds[-1], title=title, shades=shades, marks=marks, goal=goal)
    ahead, trail, label = scene.strokes(GREY, width=2.0), scene.trail(), scene.label()
    scene.landmarks(states[0], goal)
    ball = scene.ball()
    tell = _progress(task, states, goal, rewards)
    steps, beside = drawn_steps(len(states) - 1, every), None if frames is None else iter(frames)
    for step in steps:
        if scene.above:
            plan = plans_at(step)
            ahead[0].set_segments([] if plan is None else [np.asarray(plan, dtype=float)])
        scene.draw_trail(trail, states[: step + 1], seconds[: step + 1])
        scene.draw_ball(ball, states[step], seconds[step])
        label.set_text(tell(step))
        frame = scene.shot()
        if beside is not None:
            picture = next(beside, None)
            if picture is None:
                raise ValueError(f"frames end before step {step}: give one for each of the {len(steps)} drawn_steps")
            frame = scene.beside(picture, frame)
        yield frame
    yield from [frame] * HELD_FRAMES


def colour_top(task: Task, plan_or_states: Plan | ArrayLike, marks: Sequence[Mark], tempo: float = 1.0) -> float:
    """The upper end of the colours of a plan or of executed states (T + 1, O), in seconds or in units per second.

    Two pictures share one scale where both take the larger end as `scale_to`. `tempo` is as in `plan_picture`; states
    are what was executed, whatever the tempo.
    """
    if isinstance(plan_or_states, Plan):
        return shades_for(task, *_path(plan_or_states, 0), marks, tempo=tempo).top
    states = np.asarray(plan_or_states, dtype=float)
    return shades_for(task, states, np.arange(len(states)) * task.spec.dt_seconds, marks).top


def side_by_side(left: Picture, right: Picture) -> Picture:
    """Two pictures (h, w, 3) on one white page, both at its top."""
    height, width = max(len(left), len(right)), left.shape[1] + right.shape[1]
    page = np.full((height + height % 2, width + width % 2, 3), 255, np.uint8)
    page[: len(left), : left.shape[1]] = left
    page[: len(right), left.shape[1] : width] = right
    return page


def frames_side_by_side(left: Iterable[Picture], right: Iterable[Picture]) -> Iterator[Picture]:
    """Two films as one, frame by frame; the shorter holds its last frame until the longer ends.

    Raises:
        ValueError: a film has no frames.
    """
    left, right = iter(left), iter(right)
    one, two = next(left, None), next(right, None)
    if one is None or two is None:
        raise ValueError(f"the {'left' if one is None else 'right'} film is empty: give at least one frame")
    yield side_by_side(one, two)
    for a, b in zip_longest(left, right):
        one, two = one if a is None else a, two if b is None else b
        yield side_by_side(one, two)


def _plan_scene(
    task: Task,
    plan: Plan,
    marks: Sequence[Mark],
    goal: ArrayLike | None,
    title: str,
    *,
    tempo: float,
    scale_to: float | None,
    scale: int = 1,
) -> tuple[Scene, Array, Array]:
    """A scene with all candidates in grey, and the chosen plan: observations (n, O) at times (n,) in seconds."""
    paths = [_path(plan, k) for k in range(len(plan.trajectories))]
    seen = np.concatenate([path for path, _ in paths])
    shades = shades_for(task, *paths[0], marks, tempo=tempo, scale_to=scale_to)
    scene = Scene(task, seen, paths[0][1][-1], title=title, shades=shades, marks=marks, goal=goal, scale=scale)
    scene.draw_strokes(scene.strokes(GREY, width=0.8), paths[1:])
    return scene, *paths[0]


def _path(plan: Plan, candidate: int) -> tuple[Array, Array]:
    """A candidate at every environment step until it arrives: observations (n, O), times (n,) in seconds."""
    observations = planned_observations(plan, candidate)
    return observations, np.arange(len(observations)) * plan.spec.dt_seconds


def _progress(task: Task, states: Array, goal: ArrayLike | None, rewards: ArrayLike | None) -> Callable[[int], str]:
    """What to say below a rollout at a step: how far it is, and its return or the steps spent at the goal."""
    if rewards is not None:
        words = returns_so_far(rewards)
    elif goal is not None and np.size(goal):
        words = held_so_far(task, states, goal)
    else:
        words = [""]
    return progress(task, len(states) - 1, words)


def progress(task: Task, total: int, words: Sequence[str]) -> Callable[[int], str]:
    """What to say at a step: how far it is, in steps and seconds, and that step's words (the last's ever after)."""
    dt = task.spec.dt_seconds
    return lambda step: f"step {step}/{total}   {step * dt:.2f} s   {words[min(step, len(words) - 1)]}".rstrip()


def returns_so_far(rewards: ArrayLike) -> list[str]:
    """In words, before the first of the rewards (T,) and after each."""
    return [f"return {value:.5g}" for value in np.concatenate([[0.0], np.cumsum(np.asarray(rewards, dtype=float))])]


def held_so_far(task: Task, states: ArrayLike, goal: ArrayLike) -> list[str]:
    """In words, for how many steps the goal (P,) was held up to each of the states (T + 1, O), the first apart."""
    held = np.cumsum(task.reached(np.asarray(states)[1:], np.asarray(goal, dtype=float)))
    return [f"at the goal for {count} steps" for count in (0, *held)]
