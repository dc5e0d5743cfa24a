"""Guides about where a plan goes.

A place's cost is taken along the way between tokens too: a coarse stride must not step over a disc. Costs of a path
count its points as shares of a token, so that a weight does not depend on how finely a path is looked at.

Shape letters: B batch, H horizon (tokens), D columns of a token, n points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..spec import TrajectorySpec
from .guide import Guide, Sight, Term
from .marks import Box, Disc, Spot

Clearance: TypeAlias = Callable[[Tensor], Tensor]
"""Positions (..., 2) to signed distances (...) from the nearest obstacle, differentiable."""

POINTS_PER_TOKEN = 4
SHARPNESS = 8.0  # of the soft minimum over a path, per square metre


def avoid(
    x: float,
    y: float,
    radius: float | None = None,
    width: float | None = None,
    height: float | None = None,
    margin: float = 0.0,
) -> Guide:
    """Keep out of a disc, or of a box with its sides along the axes.

    The cost is the squared depth over the squared radius (of a box: half its smaller side), summed over tokens; it is
    the agent's centre that keeps out.

    Args:
        x: centre in metres.
        y: centre in metres.
        radius: metres, of a disc.
        width: metres along x, of a box.
        height: metres along y, of a box.
        margin: metres to keep beyond its edge, such as the agent's radius; 0 if left out.

    Example: `avoid:x=1,y=0,radius=0.3,margin=0.15@100`
    """
    place: Disc | Box
    if radius is not None and width is None and height is None:
        place, sizes = Disc(x, y, radius), {"radius": radius}
    elif radius is None and width is not None and height is not None:
        place, sizes = Box(x, y, width, height), {"width": width, "height": height}
    else:
        raise ValueError("avoid takes radius, or width and height")
    for name, size in sizes.items():
        _positive("avoid", name, size)
    if not margin >= 0:
        raise ValueError(f"avoid: margin={margin:g} must not be negative")
    depth = min(sizes.values()) / (1 if isinstance(place, Disc) else 2) + margin

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        inside = F.relu(margin - place.clearance(way(spec, path)))
        return inside.square().sum(-1) / (POINTS_PER_TOKEN * depth**2)

    extra = {"margin": margin} if margin else {}
    words = ",".join(f"{name}={value:.12g}" for name, value in {"x": x, "y": y, **sizes, **extra}.items())
    return Guide.of(cost, f"avoid:{words}", mark=place)


def wall(clearance: Clearance, margin: float) -> Guide:
    """Keep clear of the walls of the task's own map.

    The cost is the squared lack of clearance over the squared margin, summed over tokens.

    Args:
        clearance: the map: signed distance from the nearest wall (taken from the task in a SPEC).
        margin: metres between the agent's centre and a wall, positive.

    Example: `wall:margin=0.25@30`
    """
    _positive("wall", "margin", margin)

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        lack = F.relu(margin - clearance(way(spec, path)))
        return lack.square().sum(-1) / (POINTS_PER_TOKEN * margin**2)

    return Guide.of(cost, f"wall:margin={margin:.12g}")


def goal(x: float, y: float) -> Guide:
    """End near a point, softly: the distance of the last token, in metres.

    Args:
        x: metres.
        y: metres.

    Example: `goal:x=1,y=1@100`
    """

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return _distances(_positions(spec, path)[:, -1:], x, y)[:, 0]

    return Guide.of(cost, f"goal:x={x:.12g},y={y:.12g}", mark=Spot(x, y))


def via(x: float, y: float) -> Guide:
    """Pass near a point at any time: the (softly) least squared distance, in square metres.

    What was executed before a replan counts: a point that has been passed pulls no longer.

    Args:
        x: metres.
        y: metres.

    Example: `via:x=1,y=0@300`
    """

    def cost(sight: Sight) -> Tensor:
        points = _positions(sight.spec, sight.clean)
        points = points if sight.past is None else torch.cat([sight.past[..., :2], points[..., :2]], dim=1)
        return -torch.logsumexp(-SHARPNESS * _distances(points, x, y).square(), dim=-1) / SHARPNESS

    return Guide((Term(f"via:x={x:.12g},y={y:.12g}", cost, mark=Spot(x, y)),))


def way(spec: TrajectorySpec, path: Tensor) -> Tensor:
    """Positions (B, n, P) along a path (B, H, D), n = (H - 1) * POINTS_PER_TOKEN + 1.

    Cubic Hermite splines with the planned velocities as slopes, as a plan is followed; straight lines where the task
    observes no velocity and once a plan has arrived.
    """
    position = _positions(spec, path)
    u = torch.arange(POINTS_PER_TOKEN, device=path.device, dtype=path.dtype) / POINTS_PER_TOKEN  # (k,)
    u = u[:, None]
    p, q = position[:, :-1, None], position[:, 1:, None]
    if spec.velocity:
        under_way = (path[:, :-1, spec.arrived] <= 0)[..., None, None].to(path.dtype)
        slope = spec.token_seconds * path[..., spec.velocity_columns]
        m, n = under_way * slope[:, :-1, None], under_way * slope[:, 1:, None]
        points = (
            (2 * u**3 - 3 * u**2 + 1) * p + (u**3 - 2 * u**2 + u) * m + (3 * u**2 - 2 * u**3) * q + (u**3 - u**2) * n
        )
    else:
        points = (1 - u) * p + u * q
    return torch.cat([points.flatten(1, 2), position[:, -1:]], dim=1)


def _positions(spec: TrajectorySpec, path: Tensor) -> Tensor:
    if len(spec.position) < 2:
        raise ValueError(f"this guide needs two position columns, the task has {len(spec.position)}")
    return path[..., spec.position_columns]


def _distances(points: Tensor, x: float, y: float) -> Tensor:
    return Disc(x, y, 0.0).clearance(points)


def _positive(guide: str, name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{guide}: {name}={value:g} must be positive")
