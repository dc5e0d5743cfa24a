"""Shapes that are laid over MuJoCo's picture of a scene: lines, balls, boxes, columns. Nothing of them is simulated.

Places and sizes are in metres. Shape letters: n points of a way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colours import rgba

Array = NDArray[np.floating[Any]]

LEG, STILL = 6e-3, 1e-4  # metres of a rod's straight pieces at least, and of the piece to its end


def add_geom(
    scene: Any, kind: int, colour: str, *, size: ArrayLike = (1, 1, 1), place: ArrayLike = (0, 0, 0), alpha: float = 1.0
) -> Any:
    """A geom at the end of an `mjvScene`.

    Args:
        scene: has room for it.
        kind: of `mujoco.mjtGeom`.
        colour: as matplotlib writes it.
        size: (3,) as scenes have them: radii, and half the lengths along their own axes.
        place: (3,) of its middle.
        alpha: opacity.
    """
    import mujoco

    if scene.ngeom >= scene.maxgeom:
        raise ValueError(f"a picture holds {scene.maxgeom} shapes: draw fewer candidates")
    geom = scene.geoms[scene.ngeom]
    look = np.array((*rgba(colour)[:3], alpha), np.float32)
    mujoco.mjv_initGeom(geom, kind, np.ones(3), np.array(place, dtype=float), np.eye(3).ravel(), look)
    geom.size[:] = size  # as above takes half the length of a cylinder for its second radius
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
    geom.objtype, geom.objid = mujoco.mjtObj.mjOBJ_UNKNOWN, -1  # the place may still name what stood there before
    scene.ngeom += 1
    return geom


def add_ball(scene: Any, place: ArrayLike, radius: float, colour: str, *, alpha: float = 1.0) -> None:
    """A sphere around a place (3,)."""
    import mujoco

    add_geom(scene, mujoco.mjtGeom.mjGEOM_SPHERE, colour, size=[radius] * 3, place=place, alpha=alpha)


def add_box(scene: Any, place: ArrayLike, sides: Sequence[float], colour: str, *, alpha: float = 1.0) -> None:
    """A box around a place (3,), its sides (3,) along the axes."""
    import mujoco

    add_geom(scene, mujoco.mjtGeom.mjGEOM_BOX, colour, size=np.array(sides) / 2, place=place, alpha=alpha)


def add_column(scene: Any, place: ArrayLike, radius: float, height: float, colour: str, *, alpha: float = 1.0) -> None:
    """An upright cylinder around a place (3,)."""
    import mujoco

    size = (radius, radius, height / 2)
    add_geom(scene, mujoco.mjtGeom.mjGEOM_CYLINDER, colour, size=size, place=place, alpha=alpha)


def add_way(scene: Any, points: Array, colour: str, *, radius: float, leg: float = LEG) -> None:
    """A round rod through points (n, 3), of which those are passed over that lie within `leg` of the last."""
    import mujoco

    for begin, end in _legs(points, leg):
        geom = add_geom(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, colour)
        mujoco.mjv_connector(geom, geom.type, radius, begin, end)


def _legs(points: Array, least: float) -> Iterator[tuple[Array, Array]]:
    """From point to point, the first and the last among them; standing still is no leg."""
    last, *others = np.array(points, dtype=float)
    for left, point in zip(range(len(others) - 1, -1, -1), others, strict=True):
        if np.linalg.norm(point - last) > (least if left else STILL):
            yield last, point
            last = point
