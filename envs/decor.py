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

STILL = 5e-4  # metres from one point to the next that are not drawn


def add_geom(
    scene: Any, kind: int, colour: str, *, size: ArrayLike = (1, 1, 1), place: ArrayLike = (0, 0, 0), alpha: float = 1.0
) -> Any:
    """A geom at the end of an `mjvScene`.

    Args:
        scene: has room for it.
        kind: of `mujoco.mjtGeom`.
        colour: as matplotlib writes it.
        size: (3,) as MuJoCo means them for this kind.
        place: (3,) of its middle.
        alpha: opacity.
    """
    import mujoco

    if scene.ngeom >= scene.maxgeom:
        raise ValueError(f"a picture holds {scene.maxgeom} shapes: draw fewer candidates")
    geom = scene.geoms[scene.ngeom]
    look = np.array((*rgba(colour)[:3], alpha), np.float32)
    middle, sizes = np.array(place, dtype=float), np.array(size, dtype=float)
    mujoco.mjv_initGeom(geom, kind, sizes, middle, np.eye(3).ravel(), look)
    geom.category = mujoco.mjtCatBit.mjCAT_DECOR
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


def add_way(scene: Any, points: Array, colour: str, *, radius: float, alpha: float = 1.0) -> None:
    """A round rod through points (n, 3)."""
    import mujoco

    for begin, end in _legs(points):
        geom = add_geom(scene, mujoco.mjtGeom.mjGEOM_CAPSULE, colour, alpha=alpha)
        mujoco.mjv_connector(geom, geom.type, radius, begin, end)


def add_thread(scene: Any, points: Array, colour: str, *, pixels: float, alpha: float = 1.0) -> None:
    """A line through points (n, 3), of the same width at any distance: thin, and quick to draw."""
    import mujoco

    for begin, end in _legs(points):
        geom = add_geom(scene, mujoco.mjtGeom.mjGEOM_LINE, colour, alpha=alpha)
        mujoco.mjv_connector(geom, geom.type, pixels, begin, end)


def _legs(points: Array) -> Iterator[tuple[Array, Array]]:
    """From point to point; what hardly differs from the last one is passed over, for a rod needs a length."""
    last, *others = np.array(points, dtype=float)
    for point in others:
        if np.linalg.norm(point - last) > STILL:
            yield last, point
            last = point
