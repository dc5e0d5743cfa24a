"""What is known of a trajectory before it is planned: pinned entries and their values.

Shape letters: H horizon (tokens), A actions, O observations, D columns of a token.

    token      0        1 ..             H-1
    start      pinned   free             free
    goal       free     free             position pinned, arrived = 1

One joint model answers what is left free: pin start and goal to plan, start and actions to predict, all states
to find the actions between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .spec import TrajectorySpec

NOT_FINITE = "a pinned value is not finite (NaN or infinite); give numbers"


@dataclass(frozen=True, eq=False)
class Conditions:
    """A mask and values over one trajectory, in environment units; `a | b` pins both.

    Attributes:
        mask: (H, D) bool, the pinned entries.
        values: (H, D) float, zero where nothing is pinned.
    """

    mask: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.shape != self.values.shape or self.mask.dtype != torch.bool:
            raise ValueError(
                f"need a bool mask and values of one shape (H, D), got {self.mask.dtype} "
                f"{tuple(self.mask.shape)} and {tuple(self.values.shape)}"
            )
        if not torch.isfinite(self.values[self.mask]).all():
            raise ValueError(NOT_FINITE)
        object.__setattr__(self, "values", torch.where(self.mask, self.values, 0.0).to(torch.float32))

    @classmethod
    def free(cls, spec: TrajectorySpec, horizon: int) -> Conditions:
        """Nothing pinned."""
        shape = (horizon, spec.width)
        return cls._checked(torch.zeros(shape, dtype=torch.bool), torch.zeros(shape))

    def pin(self, token: int, columns: Sequence[int], values: Sequence[float] | Tensor) -> Conditions:
        """These columns of one token, beside what is pinned already.

        Raises:
            ValueError: a column count that does not fit, a value that is not finite, or a clash with another pin.
        """
        given = torch.as_tensor(values, dtype=torch.float32).flatten()
        if len(given) != len(columns):
            raise ValueError(f"{len(columns)} values are pinned here, got {len(given)}: {given.tolist()}")
        if not -len(self.mask) <= token < len(self.mask):
            raise ValueError(f"token {token} lies outside the horizon of {len(self.mask)} tokens")
        if len(set(columns)) != len(columns) or not all(0 <= c < self.mask.shape[1] for c in columns):
            raise ValueError(f"columns {list(columns)} must differ and lie below {self.mask.shape[1]}")
        mask, held = self.mask.clone(), self.values.clone()
        row, known, numbers = token % len(mask), mask[token].tolist(), given.tolist()
        for column, number in zip(columns, numbers, strict=True):
            if not math.isfinite(number):
                raise ValueError(NOT_FINITE)
            if known[column] and held[row, column] != number:
                raise ValueError(_both(row, column, held[row, column], number))
            mask[row, column], held[row, column] = True, number
        return Conditions._checked(mask, held)

    @classmethod
    def _checked(cls, mask: Tensor, values: Tensor) -> Conditions:
        """Made of parts that are known to be in order: checking whole tensors takes longer than filling them."""
        made = object.__new__(cls)
        object.__setattr__(made, "mask", mask)
        object.__setattr__(made, "values", values)
        return made

    def __or__(self, other: Conditions) -> Conditions:
        if self.mask.shape != other.mask.shape:
            raise ValueError(f"cannot join conditions over {tuple(self.mask.shape)} and {tuple(other.mask.shape)}")
        clash = self.mask & other.mask & (self.values != other.values)
        if clash.any():
            token, column = (int(i) for i in clash.nonzero()[0])
            raise ValueError(_both(token, column, self.values[token, column], other.values[token, column]))
        return Conditions._checked(self.mask | other.mask, torch.where(self.mask, self.values, other.values))


def _both(token: int, column: int, one: float | Tensor, other: float | Tensor) -> str:
    return f"token {token}, column {column} is pinned to both {float(one):g} and {float(other):g}"


def start_at(spec: TrajectorySpec, horizon: int, observation: Sequence[float] | Tensor) -> Conditions:
    """The whole first observation (O,)."""
    return Conditions.free(spec, horizon).pin(0, range(spec.width)[spec.observations], observation)


def arrive_at(
    spec: TrajectorySpec, horizon: int, position: Sequence[float] | Tensor | Mapping[str, float]
) -> Conditions:
    """The goal at the last token, with `arrived` = 1; when it is reached is left to the plan.

    Args:
        spec: the columns.
        horizon: H.
        position: values of `spec.position`, or any observations by name.
    """
    columns = spec.columns(*position) if isinstance(position, Mapping) else spec.position_columns
    values = list(position.values()) if isinstance(position, Mapping) else position
    return _arriving(Conditions.free(spec, horizon), spec, columns, values)


def from_to(
    spec: TrajectorySpec, horizon: int, observation: Sequence[float] | Tensor, position: Sequence[float] | Tensor
) -> Conditions:
    """The usual problem, `start_at` | `arrive_at`, in one go."""
    return _arriving(start_at(spec, horizon, observation), spec, spec.position_columns, position)


def _arriving(
    known: Conditions, spec: TrajectorySpec, columns: Sequence[int], values: Sequence[float] | Tensor
) -> Conditions:
    return known.pin(-1, columns, values).pin(-1, [spec.arrived], [1.0])


def pass_through(spec: TrajectorySpec, horizon: int, token: int, position: Sequence[float] | Tensor) -> Conditions:
    """A waypoint at a known token."""
    return Conditions.free(spec, horizon).pin(token, spec.position_columns, position)


def apply_actions(spec: TrajectorySpec, horizon: int, actions: Tensor) -> Conditions:
    """Known actions (n, A) of the first n tokens: with a start, the model predicts what they lead to."""
    return _pin_rows(spec, horizon, spec.actions, actions, "actions")


def visit_states(spec: TrajectorySpec, horizon: int, observations: Tensor) -> Conditions:
    """Known observations (n, O) of the first n tokens: the model finds the actions between them."""
    return _pin_rows(spec, horizon, spec.observations, observations, "observations")


def _pin_rows(spec: TrajectorySpec, horizon: int, columns: slice, rows: Tensor, what: str) -> Conditions:
    width = columns.stop - columns.start
    if rows.ndim != 2 or rows.shape[1] != width or len(rows) > horizon:
        raise ValueError(f"{what} must have shape (n, {width}) with n up to {horizon}, got {tuple(rows.shape)}")
    mask, values = torch.zeros(horizon, spec.width, dtype=torch.bool), torch.zeros(horizon, spec.width)
    mask[: len(rows), columns] = True
    values[: len(rows), columns] = rows
    return Conditions(mask, values)


def stack(conditions: Sequence[Conditions]) -> tuple[Tensor, Tensor]:
    """Mask and values (B, H, D) of several problems of one shape."""
    return torch.stack([c.mask for c in conditions]), torch.stack([c.values for c in conditions])
