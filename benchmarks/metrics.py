"""Scores of episodes. Strict and latched scores are different things and are always named.

Shape letters: N episodes, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95% confidence interval."""

    mean: float
    ci95: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.ci95:.1f}"


def mean_interval(values: ArrayLike) -> Interval:
    """Mean of independent values (N,) with its normal 95% interval, 1.96 s / sqrt(N); infinite for one value."""
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()), math.inf)
    return Interval(float(array.mean()), float(1.96 * array.std(ddof=1) / math.sqrt(len(array))))


def wilson(share: float, count: int) -> tuple[float, float]:
    """95% interval of a share among `count` trials (Wilson 1927)."""
    z = 1.959964
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return max(0.0, middle - half), min(1.0, middle + half)


def strict_returns(rewards: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Sum of the rewards of each episode: every step at the goal counts, and only those."""
    return np.array([float(np.sum(r)) for r in rewards])


def latched_returns(rewards: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Returns as if the episode stayed at the goal from the first touch on."""
    return np.array([0.0 if (t := first_touch(r)) is None else float(len(np.asarray(r)) - t) for r in rewards])


def first_touch(rewards: ArrayLike) -> int | None:
    """Index of the first rewarded step, or None."""
    hits = np.flatnonzero(np.asarray(rewards) > 0)
    return int(hits[0]) if len(hits) else None


def normalized_score(returns: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """D4RL's score: 100 (return - low) / (high - low) (Fu et al. 2020)."""
    return 100 * (np.asarray(returns, dtype=float) - low) / (high - low)
