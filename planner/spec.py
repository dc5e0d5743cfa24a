"""What the columns of a trajectory mean. The only place that knows their order.

Shape letters: H horizon (tokens), A actions, O observations, D = A + O + 1 columns of a token.

A token is one row of a trajectory, `stride` environment steps after the one before it:

    columns   0 .. A-1     A .. A+O-1     D-1
              actions      observations   arrived (-1 before the goal is reached, +1 from then on)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrajectorySpec:
    """Names, units and order of the columns of a trajectory.

    Args:
        action_names: A names.
        observation_names: O names.
        position: the observations that a goal is about, such as ("x", "y").
        velocity: their rates of change per second, in the same order; () where the task observes none.
        dt_seconds: duration of one environment step.
        stride: environment steps from one token to the next.
        rates: further observations that are zero at rest.
        held: actions that go on as they were once the goal is reached, such as a gripper's grip; others are zero then.
        bodies: further points that have a place beside `position`, such as a gripper beside the object that it
            carries: of each the observations along the same axes, as (("grip_x", "grip_y", "grip_z"),).

    Raises:
        ValueError: a name stands twice, is not an observation or action, or a length does not fit.
    """

    action_names: tuple[str, ...]
    observation_names: tuple[str, ...]
    position: tuple[str, ...] = ()
    velocity: tuple[str, ...] = ()
    dt_seconds: float = 1.0
    stride: int = 1
    rates: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    bodies: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for field in ("action_names", "observation_names", "position", "velocity", "rates", "held"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "bodies", tuple(b if isinstance(b, str) else tuple(b) for b in self.bodies))
        for names in (self.action_names, self.observation_names):
            if not names or len(set(names)) != len(names):
                raise ValueError(f"names must be given and differ, got {names}")
        unknown = [n for n in self.position + self.velocity + self.rates if n not in self.observation_names]
        if unknown:
            raise ValueError(f"{unknown} are not observations; known: {', '.join(self.observation_names)}")
        if unknown := [n for n in self.held if n not in self.action_names]:
            raise ValueError(f"held {unknown} are not actions; known: {', '.join(self.action_names)}")
        if self.velocity and len(self.velocity) != len(self.position):
            raise ValueError(f"velocity {self.velocity} must name one rate for each of position {self.position}")
        for body in self.bodies:
            self._check_body(body)
        if self.stride < 1 or self.dt_seconds <= 0:
            raise ValueError(f"stride={self.stride} and dt_seconds={self.dt_seconds} must be positive")

    def _check_body(self, body: tuple[str, ...]) -> None:
        if isinstance(body, str) or not body or len(body) != len(self.position):
            raise ValueError(f"body {body!r} must name one place for each of position {self.position}")
        if unknown := [n for n in body if n not in self.observation_names]:
            raise ValueError(f"body {unknown} are not observations; known: {', '.join(self.observation_names)}")

    @property
    def width(self) -> int:
        """D, the number of columns."""
        return len(self.action_names) + len(self.observation_names) + 1

    @property
    def token_seconds(self) -> float:
        """Time from one token to the next."""
        return self.dt_seconds * self.stride

    @property
    def actions(self) -> slice:
        return slice(0, len(self.action_names))

    @property
    def observations(self) -> slice:
        return slice(len(self.action_names), self.width - 1)

    @property
    def arrived(self) -> int:
        return self.width - 1

    def columns(self, *names: str) -> list[int]:
        """Columns of the named observations."""
        for name in names:
            if name not in self.observation_names:
                raise ValueError(f"no observation {name!r}; known: {', '.join(self.observation_names)}")
        return [len(self.action_names) + self.observation_names.index(n) for n in names]

    @property
    def position_indices(self) -> list[int]:
        """Of the positions among the observations (O,)."""
        return [self.observation_names.index(n) for n in self.position]

    @property
    def velocity_indices(self) -> list[int]:
        """Of their rates among the observations (O,)."""
        return [self.observation_names.index(n) for n in self.velocity]

    @property
    def position_columns(self) -> list[int]:
        return self.columns(*self.position)

    @property
    def velocity_columns(self) -> list[int]:
        return self.columns(*self.velocity)

    @property
    def body_indices(self) -> list[list[int]]:
        """Of every point that has a place among the observations (O,): the position first, then the bodies."""
        points = (self.position, *self.bodies) if self.position else ()
        return [[self.observation_names.index(n) for n in point] for point in points]

    @property
    def body_columns(self) -> list[list[int]]:
        """Of every point that has a place: the position first, then the bodies; [] where nothing has."""
        return [[self.observations.start + i for i in point] for point in self.body_indices]

    def join(self, actions: Tensor, observations: Tensor, arrived: Tensor) -> Tensor:
        """(..., A), (..., O), (...) to one trajectory (..., D)."""
        return torch.cat([actions, observations, arrived.unsqueeze(-1)], dim=-1)

    def split(self, trajectory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse of `join`: actions (..., A), observations (..., O), arrived (...)."""
        return trajectory[..., self.actions], trajectory[..., self.observations], trajectory[..., self.arrived]

    def to_config(self) -> dict[str, Any]:
        """As plain values for JSON; `TrajectorySpec(**config)` is the inverse."""
        return {k: _listed(v) for k, v in dataclasses.asdict(self).items()}


def _listed(value: Any) -> Any:
    """Tuples, and tuples in them, as lists: what JSON makes of them."""
    return [_listed(v) for v in value] if isinstance(value, tuple) else value
