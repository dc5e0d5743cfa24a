"""Controllers turn what a plan asks for into actions.

Shape letters: B environments, O observations, A actions, P positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from .inverse import InverseDynamics
from .plan import Array, Reference
from .plant import Plant


class Controller(Protocol):
    """Turns what the plan asks for into actions."""

    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        """Actions (B, A) for observations (B, O), given the plan at this step and at the next."""
        ...


@dataclass(frozen=True)
class PlannedActions:
    """Applies the planned actions as they are: works wherever one token is one step.

    Args:
        limit: actions are clipped to [-limit, limit]; None leaves them alone.
    """

    limit: float | None = None

    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        return now.action if self.limit is None else np.clip(now.action, -self.limit, self.limit)


@dataclass(frozen=True)
class TrackingController:
    """Drives the positions along the plan: action = f planned + p (position error) + d (velocity error).

    Args:
        position: indices of the positions among the observations.
        velocity: indices of their rates.
        p_gain: action per unit of position error.
        d_gain: action per unit of velocity error.
        feedforward: share of the planned action that is applied beside.
        limit: actions are clipped to [-limit, limit].
    """

    position: tuple[int, ...]
    velocity: tuple[int, ...]
    p_gain: float = 10.0
    d_gain: float = 1.0
    feedforward: float = 0.0
    limit: float = 1.0

    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        off = ahead.position - observations[:, list(self.position)]
        slip = ahead.velocity - observations[:, list(self.velocity)]
        action = self.feedforward * now.action + self.p_gain * off + self.d_gain * slip
        return np.clip(action, -self.limit, self.limit)


@dataclass(frozen=True)
class RacingController:
    """Drives the plant along a course with the fitted inverse dynamics.

    Args:
        plant: fitted to the task's data.
        position: indices of the positions among the observations.
        velocity: indices of their rates; none where actions set them.
        gain: share of a position error that is made good in the next step.
    """

    plant: Plant
    position: tuple[int, ...]
    velocity: tuple[int, ...]
    gain: float = 0.3

    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        off = now.position - observations[:, list(self.position)]
        wanted = ahead.velocity + self.gain * off / self.plant.config.dt_seconds
        seen = observations[:, list(self.velocity)] if self.velocity else np.zeros_like(wanted)
        return self.plant.actions_for(seen, wanted)


@dataclass(frozen=True)
class InverseController:
    """Applies the action that leads from where the environment is to where the plan is a step later.

    Args:
        model: the inverse dynamics that were learned.
        limit: actions are clipped to [-limit, limit]; None leaves them alone.
    """

    model: InverseDynamics
    limit: float | None = None

    @torch.no_grad()
    def act(self, observations: Array, now: Reference, ahead: Reference) -> Array:
        device = self.model.center.device
        seen, wanted = (
            torch.as_tensor(o, dtype=torch.float32, device=device) for o in (observations, ahead.observation)
        )
        action: Array = self.model(seen, wanted).cpu().numpy()
        return action if self.limit is None else np.clip(action, -self.limit, self.limit)
