"""What a guide looks like: for pictures, and for checks of plans that are finished.

A picture seen from above shows what a mark covers of the plane, so a ball is a disc with a height, and a block a box.
Positions are in position units (metres). Shape letters: ... any leading shape, P positions (2 or 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


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
        return box_clearance(points, points.new_tensor(self.center), points.new_tensor(self.sides))


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
class SpeedLimit:
    """A speed to stay below: plans are coloured by speed."""

    max: float


Mark: TypeAlias = Disc | Box | Spot | SpeedLimit


def distance(points: Tensor, center: Sequence[float]) -> Tensor:
    """Of points (..., P) from a centre of no more numbers, along its axes; with a gradient there too."""
    gap = points[..., : len(center)] - points.new_tensor(center)
    return (gap.square().sum(-1) + 1e-8).sqrt()


def box_clearance(points: Tensor, centers: Tensor, sizes: Tensor) -> Tensor:
    """Signed distance (...) of points (..., P) from boxes of these centres and sizes (..., 2 or 3), negative inside."""
    beyond = (points[..., : centers.shape[-1]] - centers).abs() - sizes / 2
    outside = (beyond.clamp(min=0).square().sum(-1) + 1e-12).sqrt()
    return outside + torch.minimum(beyond.amax(-1), beyond.new_zeros(()))
