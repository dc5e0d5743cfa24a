"""An executed episode of a hand, or in the kitchen: in words, and as a film of what the simulator saw.

The pose of such a robot is not in its observations, so nothing that was only planned or only saved can be drawn in the
scene: those are curves, one per observation.

Shape letters: T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffplan.planner.execution import Rollout

from .render import HELD_FRAMES, drawn_steps, progress, returns_so_far
from .scene import EDGE, FOOT, TITLE
from .tasks import HandTask
from .video import Picture


def describe_hand(task: HandTask, rollout: Rollout, plan_seconds: Sequence[float], faults: Sequence[str] = ()) -> str:
    """What happened, in a few lines."""
    hits = np.flatnonzero(task.achieved(rollout.rewards))
    end = "; ".join([f"success after {hits[0] + 1} steps" if len(hits) else "no success", *faults])
    milliseconds = 1000 * float(np.median(plan_seconds))
    return (
        f"{task.name}: return {rollout.rewards.sum():.4g} in {len(rollout.rewards)} steps, {end}\n"
        f"planned {len(plan_seconds)} times, {milliseconds:.0f} ms each (median): {1000 / milliseconds:.0f} Hz"
    )


def hand_film(
    task: HandTask, pictures: Sequence[Picture], rewards: ArrayLike, *, every: int, title: str = ""
) -> Iterator[Picture]:
    """The simulator's pictures (h, w, 3) on a page that tells step, time and return; the last one is held.

    Args:
        task: what was executed.
        pictures: one for each of `render.drawn_steps(T, every)`.
        rewards: (T,).
        every: steps from one picture to the next.
        title: a few words; cut short, with an ellipsis, where they do not fit.
    """
    from .robot_view import Page

    paid = np.asarray(rewards, dtype=float)
    tall, wide = pictures[0].shape[:2]
    page = Page(wide + 2 * EDGE, tall + TITLE + FOOT, title)
    tell = progress(task, len(paid), returns_so_far(paid))
    for step, picture in zip(drawn_steps(len(paid), every), pictures, strict=True):
        frame = page.shot(picture, tell(step), "")
        yield frame
    yield from [frame] * HELD_FRAMES
