"""What a guide looks like in the plane: for pictures, and for checks of plans that are finished.

Positions are in position units (metres). Shape letters: ... any leading shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class Disc:
    """A place to keep out of."""

    x: float
    y: float
    radius: float

    def clearance(self, points: Tensor) -> Tensor:
        """Signed distance (...) of points (..., 2) from its edge, negative inside."""
        gap = points[..., :2] - points.new_tensor([self.x, self.y])
        return (gap.square().sum(-1) + 1e-8).sqrt() - self.radius


@dataclass(frozen=True)
class Box:
    """A place to keep out of, its sides along the axes, x and y its centre."""

    x: float
    y: float
    width: float
    height: float

    def clearance(self, points: Tensor) -> Tensor:
        """Signed distance (...) of points (..., 2) from its edge, negative inside."""
        return box_clearance(points, points.new_tensor([self.x, self.y]), points.new_tensor([self.width, self.height]))


@dataclass(frozen=True)
class Spot:
    """A point to go to or to pass by."""

    x: float
    y: float


@dataclass(frozen=True)
class SpeedLimit:
    """A speed to stay below: plans are coloured by speed."""

    max: float


Mark: TypeAlias = Disc | Box | Spot | SpeedLimit


def box_clearance(points: Tensor, centers: Tensor, sizes: Tensor) -> Tensor:
    """Signed distance (...) of points (..., 2) from boxes of these centres and sizes (..., 2), negative inside."""
    beyond = (points[..., :2] - centers).abs() - sizes / 2
    outside = (beyond.clamp(min=0).square().sum(-1) + 1e-12).sqrt()
    return outside + torch.minimum(beyond.amax(-1), beyond.new_zeros(()))
