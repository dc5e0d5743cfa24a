"""What guides asked for, as shapes on a picture seen from above."""

from __future__ import annotations

from typing import Any

from matplotlib.patches import Circle, Patch, Rectangle

from diffplan.planner.guides.marks import Box, Disc, Mark, Region, Spot

from .colours import AVOID, VIA


def corners(mark: Mark) -> list[tuple[float, float]]:
    """What of a mark must be in view."""
    match mark:
        case Disc(x, y, radius) | Region(x, y, radius=radius):
            return [(x + s * radius, y + s * radius) for s in (-1, 1)]
        case Box(x, y, width, height):
            return [(x + s * width / 2, y + s * height / 2) for s in (-1, 1)]
        case Spot(x, y):
            return [(x, y)]
        case _:
            return []


def patch_of(mark: Mark) -> Patch | None:
    """A place to keep out of, or a region to end in."""
    look: Any = {"facecolor": AVOID + "38", "edgecolor": AVOID, "linewidth": 1.2}
    match mark:
        case Disc(x, y, radius):
            return Circle((x, y), radius, **look)
        case Box(x, y, width, height):
            return Rectangle((x - width / 2, y - height / 2), width, height, **look)
        case Region(x, y, radius=radius):
            return Circle((x, y), radius, **look | {"facecolor": VIA + "38", "edgecolor": VIA})
        case _:
            return None
