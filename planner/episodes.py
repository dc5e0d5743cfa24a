"""Recorded experience as plain arrays.

Shape letters: N episodes, T steps of one, S states of all episodes together, A actions, O observations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Episodes:
    """Episodes laid end to end.

    An episode of T actions has T + 1 observations; its last state carries a zero action that nobody took.

    Attributes:
        observations: (S, O) float32.
        actions: (S, A) float32.
        offsets: (N + 1,) where each episode begins, and S at the end.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    offsets: NDArray[np.int64]

    @classmethod
    def from_arrays(cls, observations: Sequence[ArrayLike], actions: Sequence[ArrayLike]) -> Episodes:
        """From one (T + 1, O) and one (T, A) array per episode.

        Raises:
            ValueError: nothing given, widths differ, lengths do not fit, or a value is not finite.
        """
        if not len(observations) or len(observations) != len(actions):
            raise ValueError(f"need as many observation as action arrays, got {len(observations)} and {len(actions)}")
        states = [_matrix(o, "observations", i) for i, o in enumerate(observations)]
        taken = [_matrix(a, "actions", i) for i, a in enumerate(actions)]
        for i, (o, a) in enumerate(zip(states, taken, strict=True)):
            if len(o) != len(a) + 1 or len(a) == 0:
                raise ValueError(
                    f"episode {i} has {len(o)} observations and {len(a)} actions; expected T + 1 and T > 0"
                )
            if o.shape[1] != states[0].shape[1] or a.shape[1] != taken[0].shape[1]:
                raise ValueError(
                    f"episode {i} has widths {o.shape[1]} and {a.shape[1]}, the first has "
                    f"{states[0].shape[1]} and {taken[0].shape[1]}"
                )
        padded = [np.concatenate([a, np.zeros_like(a[:1])]) for a in taken]
        offsets = np.concatenate([[0], np.cumsum([len(o) for o in states])])
        return cls(np.concatenate(states), np.concatenate(padded), offsets.astype(np.int64))

    def __post_init__(self) -> None:
        for name in ("observations", "actions"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)).all(axis=1))
            if len(bad):
                episode = int(np.searchsorted(self.offsets, bad[0], side="right")) - 1
                raise ValueError(
                    f"{name} are not finite (NaN or infinite) in {len(bad)} steps, first in episode "
                    f"{episode} at step {bad[0] - self.offsets[episode]}; remove or repair these episodes"
                )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return (
            f"Episodes({len(self)} episodes, {self.steps} steps, observations {self.observations.shape}, "
            f"actions {self.actions.shape}, lengths {self.lengths.min()} to {self.lengths.max()})"
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) actions taken in each episode."""
        return np.diff(self.offsets) - 1

    @property
    def steps(self) -> int:
        """Actions taken in all episodes."""
        return int(self.lengths.sum())

    def episode(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Observations (T + 1, O) and actions (T, A) of one episode."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.observations[part], self.actions[part][:-1]

    def fingerprint(self) -> str:
        """SHA-256 over shapes and values: tells whether two runs saw the same data."""
        digest = hashlib.sha256(repr((self.observations.shape, self.actions.shape)).encode())
        for array in (self.observations, self.actions, self.offsets):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def concatenate(parts: Iterable[Episodes]) -> Episodes:
    """All episodes of several sets as one."""
    pairs = [part.episode(i) for part in parts for i in range(len(part))]
    return Episodes.from_arrays([o for o, _ in pairs], [a for _, a in pairs])


def _matrix(values: ArrayLike, name: str, episode: int) -> NDArray[np.float32]:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(f"{name} of episode {episode} must be a matrix, got shape {array.shape}")
    return array
