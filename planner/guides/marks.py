"""What a guide looks like: for pictures, and for checks of plans that are finished.

A picture seen from above shows what a mark covers of the plane, so a ball is a disc with a height, and a block a box.
Positions are in position units (metres). Shape letters: ... any leading shape, P positions (2 or 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..constants import constant

INNER = 0.8  # of a region's radius, within which ends are looked for
GOLDEN, PLASTIC = 1.6180339887498949, 1.3247179572447460


@dataclass(frozen=True)
class Disc:
    """A place to keep out of; among points in space an upright column, however high."""

    x: float
    y: float
    radius: float

    @property
    def center(self) -> tuple[float, ...]:
        """Of as many positions as it is about."""
        return (self.x, self.y)

    def clearance(self, points: Tensor) -> Tensor:
        """Signed distance (...) of points (..., P) from its edge, negative inside."""
        return distance(points, self.center) - self.radius


@dataclass(frozen=True)
class Ball(Disc):
    """A place in space to keep out of."""

    z: float

    @property
    def center(self) -> tuple[float, ...]:
        return (self.x, self.y, self.z)


@dataclass(frozen=True)
class Box:
    """A place to keep out of, its sides along the axes, x and y its centre; among points in space an upright column."""

    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, ...]:
        """Of as many positions as it is about."""
        return (self.x, self.y)

    @property
    def sides(self) -> tuple[float, ...]:
        """Lengths along the same axes."""
        return (self.width, self.height)

    def clearance(self, points: Tensor) -> Tensor:
        """Signed distance (...) of points (..., P) from its edge, negative inside."""
        return box_clearance(points, constant(self.center, points), constant(self.sides, points))


@dataclass(frozen=True)
class Block(Box):
    """A place in space to keep out of, its sides along the axes: width along x, height along y, depth along z."""

    z: float
    depth: float

    @property
    def center(self) -> tuple[float, ...]:
        return (self.x, self.y, self.z)

    @property
    def sides(self) -> tuple[float, ...]:
        return (self.width, self.height, self.depth)


@dataclass(frozen=True)
class Spot:
    """A point to go to or to pass by; without z at any height."""

    x: float
    y: float
    z: float | None = None

    @property
    def center(self) -> tuple[float, ...]:
        """Of as many positions as it is about."""
        return (self.x, self.y) if self.z is None else (self.x, self.y, self.z)


@dataclass(frozen=True)
class Region(Spot):
    """A place to end in: anywhere within a radius of a point."""

    radius: float = 0.0

    def holds(self, point: Tensor) -> bool:
        """Whether a point (P,) lies within."""
        return float(distance(point, self.center)) <= self.radius

    def ends(self, start: Tensor, count: int) -> Tensor:
        """Points (..., count, n) to end at: from a start (..., P) the nearest, then some spread evenly within.

        Spread along an additive recurrence, which covers a disc or a ball evenly for any count (the golden ratio's, and
        with it the plastic number's in space). They keep to `INNER` of the radius, so that who ends a little beside one
        is within.
        """
        center, radius = start.new_tensor(self.center), INNER * self.radius
        off = start[..., : len(center)] - center
        nearest = off * (radius / off.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
        number = torch.arange(1, count, dtype=start.dtype, device=start.device)[:, None]
        share = ((number - 0.5) / max(count - 1, 1)) ** (1 / len(center))
        turn = 2 * math.pi * number / (GOLDEN if len(center) == 2 else PLASTIC)
        around = torch.cat([turn.cos(), turn.sin()], dim=-1)
        if len(center) == 3:
            height = 1 - 2 * torch.frac(number / PLASTIC**2)
            around = torch.cat([(1 - height**2).sqrt() * around, height], dim=-1)
        within = share * around
        spread = (center + radius * within).expand(*start.shape[:-1], -1, -1)
        return torch.cat([(center + nearest).unsqueeze(-2), spread], dim=-2)


@dataclass(frozen=True)
class SpeedLimit:
    """A speed to stay below: plans are coloured by speed."""

    max: float


Mark: TypeAlias = Disc | Box | Spot | SpeedLimit


def distance(points: Tensor, center: Sequence[float]) -> Tensor:
    """Of points (..., P) from a centre of no more numbers, along its axes; with a gradient there too."""
    gap = points[..., : len(center)] - constant(center, points)
    return (gap.square().sum(-1) + 1e-8).sqrt()


def box_clearance(points: Tensor, centers: Tensor, sizes: Tensor) -> Tensor:
    """Signed distance (...) of points (..., P) from boxes of these centres and sizes (..., 2 or 3), negative inside."""
    beyond = (points[..., : centers.shape[-1]] - centers).abs() - sizes / 2
    outside = (beyond.clamp(min=0).square().sum(-1) + 1e-12).sqrt()
    return outside + torch.minimum(beyond.amax(-1), beyond.new_zeros(()))
