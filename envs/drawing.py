"""How plans of a task become pictures and films.

Shape letters: P positions, O observations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from numpy.typing import ArrayLike

from .arm_rollouts import drawn_as_arm
from .tasks import Task
from .video import Picture


def drawing_of(task: Task, start: ArrayLike | None) -> tuple[Callable[..., Picture], Callable[..., Iterator[Picture]]]:
    """`render.plan_picture` and `render.plan_frames` with a start (P,) or (O,), or what stands in for them."""
    if drawn_as_arm(task):
        from . import arm_view  # its plans show where they begin

        return arm_view.plan_picture, arm_view.plan_frames
    from . import render

    return partial(render.plan_picture, start=start), partial(render.plan_frames, start=start)
