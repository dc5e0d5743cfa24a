"""Where windows may begin: a run of states in each episode, so that tables have a row per episode, none per state.

Shape letters: N episodes, T steps of one, H horizon (tokens), S states, B batch.

    states of an episode    0 .. first .. first + count - 1 .. T
    windows begin                [=========================]  ^ the last have no whole token ahead
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .episodes import Episodes
from .spec import TrajectorySpec


@dataclass(frozen=True)
class Spans:
    """Which states windows begin at and what lies ahead of each, looked up by episode; tensors of one device.

    Nothing here waits for a device, so that draws can be part of a CUDA graph.

    Attributes:
        stride: environment steps per token.
        most: H - 1, tokens that a window lasts at most.
        total: states that windows begin at.
        begins: (N + 1,) where each episode begins, and S at the end.
        upto: (N,) how many of the usable states lie in an episode or before it.
        shift: (N,) from the number of a usable state among all such to the state.
        failed: (N,) whether its end absorbs, where only failures do; None where all ends do.
        settled: (N,) the state from which the position stays until the episode ends, -1 where it does not; None where
            nobody asks.
    """

    stride: int
    most: int
    total: int
    begins: Tensor
    upto: Tensor
    shift: Tensor
    failed: Tensor | None = None
    settled: Tensor | None = None

    @classmethod
    def of(
        cls,
        episodes: Episodes,
        spec: TrajectorySpec,
        *,
        horizon: int,
        device: torch.device | str,
        fixed: bool,
        stays_within: float | None,
        only: NDArray[np.bool_] | None = None,
    ) -> Spans:
        """Of windows of a horizon; see `windows.Windows` for what is asked of them."""
        failed = _failed(episodes, spec)
        least = np.ones(len(episodes), dtype=np.int64)  # tokens that have to lie ahead
        if failed is not None:  # an end that only cuts off has no action to show
            least[~failed] = horizon
        if fixed:
            least = np.maximum(least, horizon - 1)
        first, last = np.zeros_like(least), episodes.lengths - spec.stride * least
        settled = None
        if stays_within is not None and not fixed:
            settled, moved = settling(episodes, spec, stays_within)
            stays = episodes.lengths - settled >= spec.stride
            first = np.where(stays, np.maximum(0, settled - spec.stride * (horizon - 1)), 0)
            last = np.where(moved, last, -1)
            settled = np.where(stays, episodes.offsets[:-1] + settled, -1)
        counts = np.maximum(0, last - first + 1) * (True if only is None else only)
        upto = np.cumsum(counts)
        arrays = (episodes.offsets, upto, episodes.offsets[:-1] + first - (upto - counts), failed, settled)
        tables = [None if a is None else torch.from_numpy(np.array(a)).to(device) for a in arrays]
        return cls(spec.stride, horizon - 1, int(upto[-1]), *tables)  # type: ignore[arg-type]

    def at(self, number: Tensor) -> tuple[Tensor, Tensor]:
        """The usable states (B,) of these numbers among all such (B,), and their episodes (B,)."""
        episode = torch.searchsorted(self.upto, number, right=True)
        return number + self.shift[episode], episode

    def episode(self, state: Tensor) -> Tensor:
        """Episode (B,) that each state (B,) belongs to."""
        return torch.searchsorted(self.begins, state, right=True) - 1

    def ahead(self, state: Tensor, episode: Tensor) -> Tensor:
        """Whole tokens (B,) ahead of states (B,) in their episodes (B,)."""
        return (self.begins[episode + 1] - 1 - state) // self.stride

    def room(self, state: Tensor, episode: Tensor) -> Tensor:
        """Tokens (B,) that a window from states (B,) of episodes (B,) can last."""
        return self.ahead(state, episode).clamp(max=self.most)

    def absorbs(self, state: Tensor) -> Tensor:
        """Whether windows from states (B,) end in an absorbing state (B,)."""
        if self.failed is None:
            return torch.ones_like(state, dtype=torch.bool)
        episode = self.episode(state)
        return self.failed[episode] & (self.ahead(state, episode) <= self.most)

    def settles(self, length: Tensor, state: Tensor, episode: Tensor) -> Tensor:
        """Lengths (B,), or where an episode's position comes to stay, the tokens (B,) until it does, at least 1."""
        if self.settled is None:
            return length
        there = self.settled[episode]
        until = -((state - there) // self.stride)  # rounded up
        return torch.where(there < 0, length, until.clamp(min=1))


def settling(episodes: Episodes, spec: TrajectorySpec, within: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Step (N,) of each episode from which its position stays near where it ends.

    Returns:
        The steps, and whether the position moves in the episode at all (N,).
    """
    settled = np.zeros(len(episodes), dtype=np.int64)
    for i in range(len(episodes)):
        positions = episodes.episode(i)[0][:, spec.position_indices]
        away = np.flatnonzero(np.linalg.norm(positions - positions[-1], axis=1) > within)
        settled[i] = away[-1] + 1 if len(away) else 0
    return settled, settled > 0


def _failed(episodes: Episodes, spec: TrajectorySpec) -> NDArray[np.bool_] | None:
    """Which episodes (N,) end in failure; None where any state may be a goal and absorb."""
    if spec.position:
        return None
    return np.zeros(len(episodes), dtype=bool) if episodes.terminated is None else episodes.terminated
