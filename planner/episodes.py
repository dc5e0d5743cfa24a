"""Recorded experience as plain arrays.

Shape letters: N episodes, T steps of one, S states of all episodes together, A actions, O observations.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

CHUNK = 1 << 18
"""States that are worked on at once: mapped data is never in memory as a whole."""


@dataclass(frozen=True)
class Episodes:
    """Episodes laid end to end, in memory or mapped from files: arrays are taken as they are and never written to.

    An episode of T actions has T + 1 observations; its last state carries a zero action that nobody took.

    Attributes:
        observations: (S, O) float32.
        actions: (S, A) float32.
        offsets: (N + 1,) where each episode begins, and S at the end.
        rewards: (S,) float32, of the action taken in each state (an episode's last state has none: zero); None where
            nothing was rewarded.
        terminated: (N,) whether an episode ended in failure, rather than because recording stopped; None where nobody
            knows.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    offsets: NDArray[np.int64]
    rewards: NDArray[np.float32] | None = None
    terminated: NDArray[np.bool_] | None = None

    @classmethod
    def from_arrays(
        cls,
        observations: Sequence[ArrayLike],
        actions: Sequence[ArrayLike],
        rewards: Sequence[ArrayLike] | None = None,
        terminated: ArrayLike | None = None,
    ) -> Episodes:
        """From one (T + 1, O), one (T, A) and, if rewards are known, one (T,) array per episode.

        Raises:
            ValueError: nothing given, widths differ, lengths do not fit, or a value is not finite.
        """
        if not len(observations) or len(observations) != len(actions):
            raise ValueError(f"need as many observation as action arrays, got {len(observations)} and {len(actions)}")
        states, taken = ([np.asarray(part, dtype=np.float32) for part in parts] for parts in (observations, actions))
        for i, (o, a) in enumerate(zip(states, taken, strict=True)):
            check_episode(i, o, a, like=(states[0], taken[0]))
        padded = [np.concatenate([a, np.zeros_like(a[:1])]) for a in taken]
        offsets = np.concatenate([[0], np.cumsum([len(o) for o in states])])
        gains = None if rewards is None else _rewards(rewards, taken)
        failed = None if terminated is None else np.asarray(terminated, dtype=bool)
        return cls(np.concatenate(states), np.concatenate(padded), offsets.astype(np.int64), gains, failed)

    def __post_init__(self) -> None:
        if self.terminated is not None and self.terminated.shape != (len(self),):
            raise ValueError(f"terminated must have shape ({len(self)},), got {self.terminated.shape}")
        for name in ("observations", "actions", "rewards"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != self.offsets[-1]:
                raise ValueError(f"{name} cover {len(values)} states, the episodes have {self.offsets[-1]}")
            bad = [part.start + _not_finite(values[part]) for part in chunks(len(values))]
            if count := sum(map(len, bad)):
                first = int(np.concatenate(bad)[0])
                episode = int(np.searchsorted(self.offsets, first, side="right")) - 1
                raise ValueError(
                    f"{name} are not finite (NaN or infinite) in {count} steps, first in episode "
                    f"{episode} at step {first - self.offsets[episode]}; remove or repair these episodes"
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

    def acted(self, *, most: int | None = None) -> NDArray[np.int64]:
        """States (n,) in which an action was taken: all of them, or so many, evenly spaced."""
        upto = np.cumsum(self.lengths)
        count = int(upto[-1]) if most is None else min(int(upto[-1]), most)
        number = np.arange(count) * int(upto[-1]) // count
        return np.asarray(number + np.searchsorted(upto, number, side="right"))  # every episode has a last state, too

    def joined(self) -> Episodes:
        """Episodes that go on where the one before ended, as one: recordings that were cut wherever a goal was reached.

        Rewards stay with their actions; what ended in failure is never joined to what follows.
        """
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        on = np.zeros(len(self), dtype=bool)  # whether the episode goes on in the next
        on[:-1] = (self.observations[last[:-1]] == self.observations[first[1:]]).all(axis=1)
        if self.terminated is not None:
            on &= ~self.terminated
        kept = np.ones(len(self.observations), dtype=bool)
        kept[last[on]] = False  # seen again, with its action, as the next one's first
        ends = (np.cumsum(kept) - 1)[last[~on]]
        return Episodes(
            self.observations[kept],
            self.actions[kept],
            np.concatenate([[0], ends + 1]).astype(np.int64),
            None if self.rewards is None else self.rewards[kept],
            None if self.terminated is None else self.terminated[~on],
        )

    def cut_at_rests(self, columns: Sequence[int], *, within: float, steps: int) -> Episodes:
        """Episodes that end where observation columns have come to rest; the next one goes on from there.

        A recording of one thing done after another becomes several of one thing each; `joined` undoes it.

        Args:
            columns: of what comes to rest, together.
            within: distance, in their own units, that counts as none.
            steps: for which it has to stay so close to where it came to rest; cuts are at their end.
        """
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        cuts = [self._rests(a, b, columns, within, steps) for a, b in zip(first, last, strict=True)]
        begins = np.concatenate([[a, *cut] for a, cut in zip(first, cuts, strict=True)])
        ends = np.concatenate([[*cut, b] for b, cut in zip(last, cuts, strict=True)])
        rows = np.concatenate([np.arange(a, b + 1) for a, b in zip(begins, ends, strict=True)])
        offsets = np.concatenate([[0], np.cumsum(ends - begins + 1)]).astype(np.int64)
        actions, rewards = self.actions[rows], None if self.rewards is None else self.rewards[rows]
        for given in (actions, rewards):  # nothing is done after an episode's last state
            if given is not None:
                given[offsets[1:] - 1] = 0
        failed = None if self.terminated is None else self.terminated.repeat([len(c) + 1 for c in cuts])
        if failed is not None:
            failed &= np.isin(ends, last)
        return Episodes(self.observations[rows], actions, offsets, rewards, failed)

    def _rests(self, first: int, last: int, columns: Sequence[int], within: float, steps: int) -> NDArray[np.int64]:
        """States of an episode from `first` to `last` at which something that moved has rested for so many steps."""
        places = self.observations[first : last + 1][:, list(columns)]
        count = len(places) - steps
        if count < 2:
            return np.zeros(0, dtype=np.int64)
        still = np.ones(count, dtype=bool)
        for ahead in range(1, steps + 1):
            still &= np.linalg.norm(places[ahead : ahead + count] - places[:count], axis=1) <= within
        came = 1 + np.flatnonzero(still[1:] & ~still[:-1])
        cuts = first + came + steps
        return np.asarray(cuts[cuts < last], dtype=np.int64)

    def held_out(self, share: float, *, seed: int = 0) -> NDArray[np.bool_]:
        """A share of the episodes, drawn at random, at least one (N,).

        Raises:
            ValueError: a single episode cannot be split, or the share leaves one side empty.
        """
        held = max(1, round(share * len(self)))
        if not 0 < share < 1 or held >= len(self):
            raise ValueError(f"a share of {share:g} of {len(self)} episodes leaves one side empty")
        out = np.zeros(len(self), dtype=bool)
        out[np.random.default_rng(seed).permutation(len(self))[:held]] = True
        return out

    def split(self, share: float, *, seed: int = 0) -> tuple[Episodes, Episodes]:
        """Copies of the rest and of those that are `held_out`, in order."""
        out = self.held_out(share, seed=seed)
        return self._chosen(~out), self._chosen(out)

    def _chosen(self, which: NDArray[np.bool_]) -> Episodes:
        states = np.repeat(which, np.diff(self.offsets))
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[which])]).astype(np.int64)
        rewards = None if self.rewards is None else self.rewards[states]
        failed = None if self.terminated is None else self.terminated[which]
        return Episodes(self.observations[states], self.actions[states], offsets, rewards, failed)

    def fingerprint(self) -> str:
        """SHA-256 over shapes and values: tells whether two runs saw the same data."""
        digest = hashlib.sha256(repr((self.observations.shape, self.actions.shape)).encode())
        for array in (self.observations, self.actions, self.offsets, self.terminated):
            if array is not None:
                for part in chunks(len(array)):
                    digest.update(np.ascontiguousarray(array[part]).data)
        return digest.hexdigest()


def chunks(states: int) -> Iterator[slice]:
    """One after another, `CHUNK` states at most."""
    return (slice(begin, min(begin + CHUNK, states)) for begin in range(0, states, CHUNK))


def as_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor over an array's own memory; not to be written to, as what is mapped from a file cannot be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # torch knows no other tensors
        return torch.from_numpy(array)


def check_episode(
    number: int, observations: NDArray[Any], actions: NDArray[Any], *, like: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    """Refuse an episode that is not (T + 1, O) and (T, A), as wide as the first one's observations and actions are."""
    for name, array in (("observations", observations), ("actions", actions)):
        if array.ndim != 2:
            raise ValueError(f"{name} of episode {number} must be a matrix, got shape {array.shape}")
    if len(observations) != len(actions) + 1 or len(actions) == 0:
        raise ValueError(
            f"episode {number} has {len(observations)} observations and {len(actions)} actions; "
            "expected T + 1 and T > 0"
        )
    widths, first = (observations.shape[1], actions.shape[1]), (like[0].shape[1], like[1].shape[1])
    if widths != first:
        raise ValueError(
            f"episode {number} has widths {widths[0]} and {widths[1]}, the first has {first[0]} and {first[1]}"
        )


def _not_finite(values: NDArray[Any]) -> NDArray[np.int64]:
    """Rows with a value that is no number."""
    return np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def concatenate(parts: Iterable[Episodes]) -> Episodes:
    """All episodes of several sets as one."""
    every = list(parts)
    if not every:
        raise ValueError("no episodes were given")
    starts = np.cumsum([0, *(part.offsets[-1] for part in every[:-1])])
    offsets = [part.offsets[:-1] + start for part, start in zip(every, starts, strict=True)]
    rewards = [part.rewards for part in every if part.rewards is not None]
    failed = [part.terminated for part in every if part.terminated is not None]
    return Episodes(
        np.concatenate([part.observations for part in every]),
        np.concatenate([part.actions for part in every]),
        np.concatenate([*offsets, [starts[-1] + every[-1].offsets[-1]]]).astype(np.int64),
        np.concatenate(rewards) if len(rewards) == len(every) else None,
        np.concatenate(failed) if len(failed) == len(every) else None,
    )


def _rewards(rewards: Sequence[ArrayLike], taken: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    gains = [np.asarray(r, dtype=np.float32).ravel() for r in rewards]
    if [len(g) for g in gains] != [len(a) for a in taken]:
        raise ValueError("rewards need one number for each action of each episode")
    return np.concatenate([np.append(g, np.float32(0)) for g in gains])
