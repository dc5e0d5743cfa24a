"""Recorded episodes as flat arrays in files that are mapped, not read: made once, beside their dataset.

    DATASET/data/          what Minari keeps
    DATASET/arrays/STAMP/  observations.npy  actions.npy  rewards.npy  offsets.npy  terminated.npy  index.json

The stamp is that of the files in data/: when one of them changes, arrays are made anew and the old ones removed. The
index says how large each file was and when it was written; arrays of which that is not true any more, because they
were cut short or something else stands in their place, are made anew, too.

Shape letters: N episodes, T steps of one, S states of all episodes together, A actions, R recorded observations.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.episodes import check_episode

from .growing import Growing

FORMAT = 1  # of the files; counts up when what they hold changes
NAMES = ("observations", "actions", "rewards", "offsets", "terminated")
UNFINISHED = ".making-"
FORGOTTEN_SECONDS = 86_400  # after which what was begun and never finished is removed


class Row(NamedTuple):
    """One episode: observations (T + 1, R), actions (T, A), rewards (T,), and whether it ended in failure."""

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[Any]
    failed: bool


Read = Callable[[str], tuple[str, Iterator[Row]]]
"""Environment id and episodes of a dataset, one after another."""

Kind = Literal["float32"] | None
"""Of the observations; None as they were recorded."""


@dataclass(frozen=True)
class Recorded:
    """What a dataset holds, not to be written to.

    Attributes:
        environment: its id; empty where nobody knows.
        observations: (S, R) as recorded.
        actions: (S, A) float32; zero in an episode's last state, as are rewards.
        rewards: (S,) float32.
        offsets: (N + 1,) where each episode begins, and S at the end.
        terminated: (N,) whether it ended in failure.
    """

    environment: str
    observations: NDArray[Any]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    offsets: NDArray[np.int64]
    terminated: NDArray[np.bool_]


def recorded(folder: Path, dataset_id: str, read: Read, *, dtype: Kind = None) -> Recorded:
    """A dataset's arrays, mapped from files that are made if need be; in memory where no files can be written.

    Args:
        folder: of the dataset.
        dataset_id: what `read` is asked for.
        read: the dataset, episode by episode: none but the one that is being written is held in memory.
        dtype: of the observations; None as they were recorded.

    Raises:
        ValueError: no episodes, or some that do not fit together; whatever `read` raises.
    """
    stamp = _stamp(folder / "data", dtype)
    home = folder / "arrays"
    if (found := _opened(home / stamp)) is not None:
        return found
    with contextlib.suppress(OSError):  # a folder that cannot be written to, or a full disk
        return _kept(home, stamp, dataset_id, read, dtype)
    return _gathered(stamp, dataset_id, read, dtype)


def _kept(home: Path, stamp: str, dataset_id: str, read: Read, dtype: Kind) -> Recorded:
    """Made beside where they belong, and moved there as a whole.

    Raises:
        OSError: they cannot be written.
    """
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=UNFINISHED, ignore_cleanup_errors=True) as scratch:
        made, target = Path(scratch) / stamp, home / stamp
        made.mkdir()
        environment, rows = read(dataset_id)
        _write(made, _parts(rows, dtype))
        seals = {name: _seal(made / f"{name}.npy") for name in NAMES}
        (made / "index.json").write_text(json.dumps({"environment": environment, "files": seals}))
        if _opened(target) is None:  # or somebody else was sooner
            shutil.rmtree(target, ignore_errors=True)
            os.replace(made, target)
    with contextlib.suppress(OSError):  # others may be about the same
        _forget(home, stamp)
    if (found := _opened(home / stamp)) is None:
        raise OSError(f"{home / stamp} is not what was written there")
    return found


@functools.lru_cache(maxsize=1)
def _gathered(stamp: str, dataset_id: str, read: Read, dtype: Kind) -> Recorded:
    """In memory, kept until something else is asked for: benchmarks ask for the same data often."""
    environment, rows = read(dataset_id)
    observations, actions, rewards, failed = zip(*_parts(rows, dtype), strict=True)
    states, taken, gains = (np.concatenate(parts) for parts in (observations, actions, rewards))
    return Recorded(environment, states, taken, gains, _offsets([len(o) for o in observations]), np.array(failed))


def _parts(rows: Iterator[Row], dtype: Kind) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], bool]]:
    """Observations, actions and rewards of each episode as they are laid end to end, and whether it failed.

    Raises:
        ValueError: there is no episode, or one does not fit the first.
    """
    first: tuple[NDArray[Any], NDArray[Any]] | None = None
    for number, row in enumerate(rows):
        observations = np.asarray(row.observations, dtype=dtype if first is None else first[0].dtype)
        actions = np.asarray(row.actions, dtype=np.float32)
        first = first or (observations[:1], actions[:1])
        check_episode(number, observations, actions, like=first)
        rewards = np.asarray(row.rewards, dtype=np.float32).ravel()
        if len(rewards) != len(actions):
            raise ValueError(f"episode {number} has {len(actions)} actions and {len(rewards)} rewards")
        yield observations, np.pad(actions, ((0, 1), (0, 0))), np.pad(rewards, (0, 1)), bool(row.failed)
    if first is None:
        raise ValueError("it has no episodes")


def _write(folder: Path, parts: Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], bool]]) -> None:
    """Arrays as files, each episode as it comes."""
    lengths, failed = [], []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(Growing(folder / f"{name}.npy")) for name in NAMES[:3]]
        for *arrays, lost in parts:
            for file, array in zip(files, arrays, strict=True):
                file.append(array)
            lengths.append(len(arrays[0]))
            failed.append(lost)
    np.save(folder / "offsets.npy", _offsets(lengths))
    np.save(folder / "terminated.npy", np.array(failed))


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Where each of N episodes of so many states begins, and S at the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _opened(folder: Path) -> Recorded | None:
    """What was made before, mapped; None where there is nothing, or anything else than what was written."""
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["files"] != {name: _seal(folder / f"{name}.npy") for name in NAMES}:
            return None
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in NAMES]
        return Recorded(str(index["environment"]), *(np.asarray(array) for array in arrays))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seal(file: Path) -> list[int]:
    """Size in bytes and time of the last change, in nanoseconds: who writes to a file changes one of them."""
    known = file.stat()
    return [known.st_size, known.st_mtime_ns]


def _stamp(data: Path, dtype: Kind) -> str:
    """Tells whether arrays are those of the files in a folder, as they are now."""
    files = [(file.name, *_seal(file)) for file in sorted(data.iterdir())]
    kind = "recorded" if dtype is None else np.dtype(dtype).name
    return f"{hashlib.sha256(repr((FORMAT, files)).encode()).hexdigest()[:16]}-{kind}"


def _forget(home: Path, stamp: str) -> None:
    """Remove the arrays of files that have changed since, and what a process that was killed has left."""
    now = time.time()
    for other in home.iterdir():
        begun = other.name.startswith(UNFINISHED)
        stale = now - other.stat().st_mtime > FORGOTTEN_SECONDS if begun else other.name[:16] != stamp[:16]
        if stale:
            shutil.rmtree(other, ignore_errors=True)
