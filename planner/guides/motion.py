"""Guides about how a plan moves, and what it earns.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ..constants import picked
from ..spec import TrajectorySpec
from .guide import Guide, Sight, Term
from .marks import SpeedLimit

if TYPE_CHECKING:
    from ..returns import ReturnModel


def speed(max: float) -> Guide:
    """Stay below a speed: the squared excess, of velocities and of steps between positions, summed over tokens.

    Of a task's further bodies the steps count likewise. What its gradients and its choice among candidates leave over
    is kept by following the plan more slowly (`Plan.tempo`): data that only knows full speed has no slower plans to
    offer.

    Args:
        max: metres per second, as executed, positive.

    Example: `speed:max=2@0.03`
    """
    if not max > 0:
        raise ValueError(f"speed: max={max:g} must be positive")

    def excess(rates: Tensor) -> Tensor:
        return F.relu(_size(rates) - max).square().sum(-1)

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        if not spec.position:
            raise ValueError("speed: the task has no positions")
        total, *others = [excess(picked(path, place).diff(dim=1) / spec.token_seconds) for place in spec.body_columns]
        if spec.velocity:
            total = (total + excess(picked(path, spec.velocity_columns))) / 2
        return sum(others, total)

    return Guide.of(cost, f"speed:max={max:.12g}", mark=SpeedLimit(max))


def effort() -> Guide:
    """Small actions: their mean square, in action units squared.

    Example: `effort@10`
    """
    return Guide.of(lambda spec, path: path[..., spec.actions].square().sum(-1).mean(-1), "effort")


def smooth() -> Guide:
    """Small accelerations: mean square of the positions' second differences, in (m/s^2)^2.

    Example: `smooth@0.003`
    """

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        if path.shape[1] < 3:
            return 0.0 * path.flatten(1).sum(1)  # two tokens do not bend
        bend = picked(path, spec.position_columns).diff(n=2, dim=1) / spec.token_seconds**2
        return bend.square().sum(-1).mean(-1)

    return Guide.of(cost, "smooth")


def length() -> Guide:
    """Arrive sooner: the time before arrival, counted softly, in seconds.

    Example: `length@10`
    """

    def cost(spec: TrajectorySpec, path: Tensor) -> Tensor:
        return spec.token_seconds * (1 - path[..., spec.arrived]).sum(-1) / 2

    return Guide.of(cost, "length")


def learned_return(returns: ReturnModel) -> Guide:
    """Earn more: minus the discounted return that the run's return model predicts, in units of the reward.

    Args:
        returns: the run's return model (taken from the run in a SPEC); it reads the noisy trajectory itself.

    Example: `return@3`
    """

    def cost(sight: Sight) -> Tensor:
        if sight.noisy is None or sight.timestep is None:
            raise ValueError("return: only a planner can read it; use planner.score(guide, trajectories)")
        return -returns.in_reward_units(returns(sight.noisy, sight.timestep, sight.pinned))

    return Guide((Term("return", cost),))


def _size(vectors: Tensor) -> Tensor:
    """Length (...) of vectors (..., P), with a gradient at zero too."""
    return (vectors.square().sum(-1) + 1e-8).sqrt()
