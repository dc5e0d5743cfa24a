"""Guides about where a plan goes.

A place's cost is taken along the way between tokens too: a coarse stride must not step over a disc. Costs of a path
count its points as shares of a token, so that a weight does not depend on how finely a path is looked at.

Shape letters: B batch, H horizon (tokens), D columns of a token, P positions, M points that have a
place (the position and the bodies), n points of a way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..constants import constant, picked
from ..spec import TrajectorySpec
from .guide import Guide, Sight, Term
from .marks import Ball, Block, Box, Disc, Region, Spot, distance

Clearance: TypeAlias = Callable[[Tensor], Tensor]
"""Positions (..., P) to signed distances (...) from the nearest obstacle, differentiable."""

POINTS_PER_TOKEN = 4
SHARPNESS = 8.0  # of the soft minimum over a path, per square metre


def avoid(
    x: float,
    y: float,
    radius: float | None = None,
    width: float | None = None,
    height: float | None = None,
    margin: float = 0.0,
    z: float | None = None,
    depth: float | None = None,
) -> Guide:
    """Keep out of a disc or a ball, or of a box with its sides along the axes.

    The cost is the squared depth over the squared radius (of a box: half its smallest side), summed over tokens and
    over the task's bodies; it is their centres that keep out. Among three positions a place without z is a column.

    Args:
        x: centre in metres.
        y: centre in metres.
        radius: metres, of a disc or a ball.
        width: metres along x, of a box.
        height: metres along y, of a box.
        margin: metres to keep beyond its edge, such as the agent's radius; 0 if left out.
        z: centre in metres, where a task has three positions; left out, it is a column however high.
        depth: metres along z, of a box with z.

    Example: `avoid:x=1,y=0,radius=0.3,margin=0.15@100`
    """
    given = {"radius": radius, "width": width, "height": height, "depth": depth}
    sizes = {name: value for name, value in given.items() if value is not None}
    place = _place(x, y, z, sizes)
    for name, size in sizes.items():
        _positive("avoid", name, size)
    if not margin >= 0:
        raise ValueError(f"avoid: margin={margin:g} must not be negative")
    scale = min(sizes.values()) / (1 if isinstance(place, Disc) else 2) + margin

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        inside = F.relu(margin - place.clearance(ways(spec, path)))
        return inside.square().flatten(1).sum(-1) / (POINTS_PER_TOKEN * scale**2)

    words = _words({"x": x, "y": y, "z": z, **sizes, "margin": margin or None})
    return Guide.of(cost, f"avoid:{words}", mark=place, axes=len(place.center))


def _place(x: float, y: float, z: float | None, sizes: Mapping[str, float]) -> Disc | Box:
    """The place of a centre and sizes: which of them are given says what it is."""
    match tuple(sizes):
        case ("radius",):
            return Disc(x, y, **sizes) if z is None else Ball(x, y, z=z, **sizes)
        case ("width", "height") if z is None:
            return Box(x, y, **sizes)
        case ("width", "height", "depth") if z is not None:
            return Block(x, y, z=z, **sizes)
    raise ValueError("avoid takes radius, or width and height; a box with z takes depth too, and depth takes z")


def workspace(
    x_min: float | None = None,
    x_max: float | None = None,
    y_min: float | None = None,
    y_max: float | None = None,
    z_min: float | None = None,
    z_max: float | None = None,
) -> Guide:
    """Stay within limits along the axes, any of them.

    The cost is the squared distance from what they enclose, in square metres, summed over tokens and over the task's
    bodies; it is their centres that stay within. Between narrow limits too great a weight throws plans from one side to
    the other.

    Args:
        x_min: metres.
        x_max: metres.
        y_min: metres.
        y_max: metres.
        z_min: metres, where a task has three positions.
        z_max: metres, where a task has three positions.

    Example: `workspace:x_min=-1.2,y_max=1.2@30`
    """
    limits = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max, "z_min": z_min, "z_max": z_max}
    if all(v is None for v in limits.values()):
        raise ValueError(f"workspace needs one limit at least: {', '.join(limits)}")
    lows = [-math.inf if v is None else v for v in (x_min, y_min, z_min)]
    highs = [math.inf if v is None else v for v in (x_max, y_max, z_max)]
    for axis, low, high in zip("xyz", lows, highs, strict=True):
        if not low < high:
            raise ValueError(f"workspace: {axis}_min={low:g} must be less than {axis}_max={high:g}")
    axes = 2 if z_min is None and z_max is None else 3

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        points = ways(spec, path)[..., :axes]
        low, high = constant(lows[:axes], points), constant(highs[:axes], points)
        beyond = F.relu(low - points) + F.relu(points - high)
        return beyond.square().flatten(1).sum(-1) / POINTS_PER_TOKEN

    return Guide.of(cost, f"workspace:{_words(limits)}", axes=axes)


def wall(clearance: Clearance, margin: float) -> Guide:
    """Keep clear of the walls of the task's own map.

    It is the position that keeps clear. The cost is the squared lack of clearance over the squared margin, summed over
    tokens.

    Args:
        clearance: the map: signed distance from the nearest wall (taken from the task in a SPEC).
        margin: metres between the agent's centre and a wall, positive.

    Example: `wall:margin=0.25@30`
    """
    _positive("wall", "margin", margin)

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        lack = F.relu(margin - clearance(way(spec, path)))
        return lack.square().sum(-1) / (POINTS_PER_TOKEN * margin**2)

    return Guide.of(cost, f"wall:margin={margin:.12g}", axes=2)


def goal(x: float, y: float, z: float | None = None) -> Guide:
    """End near a point, softly: the distance of the last token, in metres.

    Args:
        x: metres.
        y: metres.
        z: metres, where a task has three positions; left out, any height will do.

    Example: `goal:x=1,y=1@100`
    """
    spot = Spot(x, y, z)

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return distance(_positions(spec, path)[:, -1], spot.center)

    return Guide.of(cost, f"goal:{_words({'x': x, 'y': y, 'z': z})}", mark=spot, axes=len(spot.center))


def region(x: float, y: float, radius: float, z: float | None = None) -> Guide:
    """End anywhere near a point: the squared distance of the last token beyond a radius, in square metres.

    Where no goal is pinned each candidate is asked to end at a point of its own within, so that the best of them says
    which part of the region to go to.

    Args:
        x: metres.
        y: metres.
        radius: metres around the point in which all ends are as good.
        z: metres, where a task has three positions; left out, any height will do.

    Example: `region:x=1,y=1,radius=0.2@300`
    """
    _positive("region", "radius", radius)
    spot = Region(x, y, z, radius)

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return F.relu(distance(_positions(spec, path)[:, -1], spot.center) - radius).square()

    words = _words({"x": x, "y": y, "z": z, "radius": radius})
    return Guide.of(cost, f"region:{words}", mark=spot, axes=len(spot.center))


def via(x: float, y: float, z: float | None = None) -> Guide:
    """Pass near a point at any time: the (softly) least squared distance, in square metres.

    What was executed before a replan counts: a point that has been passed pulls no longer.

    Args:
        x: metres.
        y: metres.
        z: metres, where a task has three positions; left out, at any height.

    Example: `via:x=1,y=0@300`
    """
    spot = Spot(x, y, z)

    def cost(sight: Sight) -> Tensor:
        points = _positions(sight.spec, sight.clean)
        points = points if sight.past is None else torch.cat([sight.past, points], dim=1)
        return -torch.logsumexp(-SHARPNESS * distance(points, spot.center).square(), dim=-1) / SHARPNESS

    name = f"via:{_words({'x': x, 'y': y, 'z': z})}"
    return Guide((Term(name, cost, mark=spot, axes=len(spot.center)),))


def way(spec: TrajectorySpec, path: Tensor) -> Tensor:
    """Positions (B, n, P) along a path (B, H, D), n = (H - 1) * POINTS_PER_TOKEN + 1.

    Cubic Hermite splines with the planned velocities as slopes, as a plan is followed; straight lines where the task
    observes no velocity and once a plan has arrived.
    """
    position = _positions(spec, path)
    if not spec.velocity:
        return _straight(position)
    u = _shares(path)
    p, q = position[:, :-1, None], position[:, 1:, None]
    under_way = (path[:, :-1, spec.arrived] <= 0)[..., None, None].to(path.dtype)
    slope = spec.token_seconds * picked(path, spec.velocity_columns)
    m, n = under_way * slope[:, :-1, None], under_way * slope[:, 1:, None]
    points = (2 * u**3 - 3 * u**2 + 1) * p + (u**3 - 2 * u**2 + u) * m + (3 * u**2 - 2 * u**3) * q + (u**3 - u**2) * n
    return torch.cat([points.flatten(1, 2), position[:, -1:]], dim=1)


def ways(spec: TrajectorySpec, path: Tensor) -> Tensor:
    """Places (B, M, n, P) of all that has one along a path (B, H, D): the position's `way`, then the bodies' ways.

    Those run straight from token to token, as they do in `Plan.path`.
    """
    others = [_straight(picked(path, columns)) for columns in spec.body_columns[1:]]
    return torch.stack([way(spec, path), *others], dim=1)


def _straight(places: Tensor) -> Tensor:
    """Points (B, n, P) along straight lines from token to token (B, H, P)."""
    u = _shares(places)
    points = (1 - u) * places[:, :-1, None] + u * places[:, 1:, None]
    return torch.cat([points.flatten(1, 2), places[:, -1:]], dim=1)


def _shares(like: Tensor) -> Tensor:
    """Of a token, (k, 1), at which a path is looked at."""
    return torch.arange(POINTS_PER_TOKEN, device=like.device, dtype=like.dtype)[:, None] / POINTS_PER_TOKEN


def _positions(spec: TrajectorySpec, path: Tensor) -> Tensor:
    return picked(path, spec.position_columns)


def _words(values: Mapping[str, float | None]) -> str:
    """Parameters as a SPEC has them, those that are not given left out."""
    return ",".join(f"{name}={value:.12g}" for name, value in values.items() if value is not None)


def _positive(guide: str, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{guide}: {name}={value:g} must be positive")
