"""Environments stepped on all cores, by processes that hold a share of them each.

What pays was measured. Most of a step is Python (a maze: 70 of 100 microseconds), so threads wait for each other;
MuJoCo's own threaded rollout leaves out what Gymnasium's environments do around a step, and with it the last digits;
Gymnasium's vector environments start a process for each, of which hundreds are too many. Here there is a process for
each core, this one among them, whatever the number of environments. The others are started once, when they are first
needed, by a process that has imported everything and is then copied; the environments' own code is the same as without
them, and so is every bit of what they do.

Only commands travel through sockets; numbers lie in memory that is shared.

Shape letters: B environments, O observations, A actions.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .parallel import cores
from .quiet import quiet_imports

if TYPE_CHECKING:
    from .simulators import Simulators
    from .tasks import Task

Array = NDArray[np.floating[Any]]

POSSIBLE = sys.platform == "linux"  # elsewhere a process that has imported much cannot be copied safely
SHARED = "/dev/shm"  # memory that looks like a file

_NUMBERS = itertools.count()
_TURN = threading.Lock()  # one question at a time: an answer belongs to the last


@dataclass(frozen=True)
class Board:
    """What a group of environments and the process that steps them both see.

    Attributes:
        actions: (B, A) float64, of the next step.
        observations: (B, O) float32, rewards: (B,) float64, ended: (B,): after the last one.
    """

    actions: NDArray[np.float64]
    observations: NDArray[np.float32]
    rewards: NDArray[np.float64]
    ended: NDArray[np.bool_]

    @classmethod
    def at(cls, path: str, count: int, actions: int, observations: int) -> Board:
        """In a file of zeros, which is made as long as it has to be."""
        shapes: list[tuple[tuple[int, ...], Any]] = [
            ((count, actions), np.float64),
            ((count,), np.float64),
            ((count, observations), np.float32),
            ((count,), np.bool_),
        ]
        sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes]
        whole = np.memmap(path, np.uint8, "r+", shape=(sum(sizes),))
        ends = np.cumsum(sizes)
        acted, paid, seen, over = (
            np.asarray(whole[end - size : end]).view(kind).reshape(shape)
            for end, size, (shape, kind) in zip(ends, sizes, shapes, strict=True)
        )
        return cls(acted, seen, paid, over)


class Spread:
    """B environments of a task, as `Simulators` has them, in other processes, which work while a context lasts.

    Args:
        task: which.
        count: B.
        processes: at most; there are no more than cores beside this one's.
        first: number of the first environment, where these are some of more.

    Attributes:
        faults: as `Simulators.faults`.

    Raises:
        RuntimeError: a process died; of every method.
    """

    def __init__(self, task: Task, count: int, processes: int, *, first: int = 0) -> None:
        self.key, self.task, self.first, self.faults = next(_NUMBERS), task, first, dict[int, str]()
        self.links = _links(os.getpid())[: min(processes, count)]
        bounds = np.linspace(0, count, len(self.links) + 1).astype(int).tolist()
        self.parts = [slice(*part) for part in itertools.pairwise(bounds)]
        self.sizes = count, len(task.spec.action_names), len(task.spec.observation_names)

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Make the environments."""
        with tempfile.NamedTemporaryFile(dir=SHARED if os.path.isdir(SHARED) else None, prefix="diffplan-") as file:
            self.board = Board.at(file.name, *self.sizes)
            board = (file.name, *self.sizes)
            try:
                with self._asked("make", [(self.task, board, part, self.first) for part in self.parts]):
                    yield
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def resetting(
        self, seeds: Sequence[int], start: ArrayLike | None, goal: ArrayLike | None
    ) -> Iterator[list[tuple[Array, Array]]]:
        """Begin an episode each; observations and goals of some after another, once the context has ended."""
        if len(seeds) != self.sizes[0]:
            count = self.first + self.sizes[0]
            raise ValueError(f"{count} environments need as many seeds, got {count + len(seeds) - self.sizes[0]}")
        self.faults = {}
        with self._asked("reset", [(seeds[part], start, goal) for part in self.parts]) as begun:
            yield begun

    @contextlib.contextmanager
    def stepping(self, actions: Array) -> Iterator[Board]:
        """Apply actions (B, A); what came of them is on the board once the context has ended."""
        self.board.actions[:] = actions
        with self._asked("step", [()] * len(self.links)) as faults:
            yield self.board
        for each in faults:
            self.faults |= each

    def close(self) -> None:
        """Close the environments; the processes stay, for others."""
        with contextlib.suppress(RuntimeError), self._asked("close", [()] * len(self.links)):
            self.links = []  # those that died have closed what they had

    @contextlib.contextmanager
    def _asked(self, verb: str, details: Sequence[tuple[Any, ...]]) -> Iterator[list[Any]]:
        """All processes do something meanwhile; their answers, once the context has ended."""
        links, answers, heard = self.links, list[Any](), list[tuple[bool, Any]]()
        with _TURN:
            with _or_none(links):
                for link, detail in zip(links, details, strict=True):
                    link.send((verb, self.key, detail))
            try:
                yield answers
            finally:
                with _or_none(links):
                    heard += [link.recv() for link in links]
        for failed, value in heard:
            if failed:
                raise value
            answers.append(value)


def spreadable(task: Task) -> bool:
    """Whether other processes can make a task's environments: its parts have names there, too."""
    try:
        pickle.dumps(task)
    except Exception:
        return False
    return POSSIBLE


# ------------------------------------------------------------------------------------------- the asking side


@contextlib.contextmanager
def _or_none(links: Sequence[Connection]) -> Iterator[None]:
    """All are told and heard, or none any more: an answer that is left may not be taken for another one's.

    Raises:
        RuntimeError: a process died.
    """
    try:
        yield
    except BaseException as error:
        for link in links:
            link.close()
        _links.cache_clear()
        if not isinstance(error, (EOFError, OSError)):
            raise
        raise RuntimeError(
            "a process that steps environments died, as happens where memory runs out; "
            "run fewer environments at once, or Simulators(..., processes=1)"
        ) from error


@functools.lru_cache(maxsize=1)
def _links(asking: int) -> list[Connection]:
    """From a process to one for each other core; they end when it does, as nobody is left to ask them."""
    pairs = [socket.socketpair() for _ in range(max(1, cores() - 1))]
    theirs = [other.fileno() for _, other in pairs]
    code = f"from diffplan.envs.workers import raise_workers; raise_workers({theirs})"
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    known = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.Popen([sys.executable, "-P", "-c", code], pass_fds=theirs, env=known, stdout=subprocess.DEVNULL)
    for _, other in pairs:
        other.close()
    return [Connection(mine.detach()) for mine, _ in pairs]


# ------------------------------------------------------------------------------------------ the answering side


def raise_workers(sockets: Sequence[int]) -> None:
    """Import what environments need, then become a process for each socket: what is imported they share."""
    with quiet_imports():
        import gymnasium  # noqa: F401
        import gymnasium_robotics  # noqa: F401
        import mujoco  # noqa: F401

        from . import simulators  # noqa: F401
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for who asks
    gc.freeze()
    for own in sockets:
        if os.fork() == 0:
            for other in sockets:
                if other != own:
                    os.close(other)
            _serve(Connection(own))
            os._exit(0)
    for each in sockets:
        os.close(each)
    for _ in sockets:
        os.wait()


def _serve(link: Connection) -> None:
    """Answer until nobody is left to ask."""
    groups: dict[int, _Share] = {}
    while True:
        try:
            verb, key, detail = link.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (False, _VERBS[verb](groups, key, *detail))
        except Exception as error:
            answer = (True, error)
        try:
            link.send(answer)
        except (pickle.PicklingError, TypeError, AttributeError):
            link.send((True, RuntimeError(repr(answer[1]))))


@dataclass(frozen=True)
class _Share:
    """Some of a group's environments, and where their numbers are."""

    simulators: Simulators
    board: Board
    part: slice


def _make(
    groups: dict[int, _Share], key: int, task: Task, board: tuple[str, int, int, int], part: slice, first: int
) -> None:
    from .simulators import Simulators

    simulators = Simulators(task, part.stop - part.start, processes=1, first=first + part.start)
    groups[key] = _Share(simulators, Board.at(*board), part)


def _reset(
    groups: dict[int, _Share], key: int, seeds: Sequence[int], start: ArrayLike | None, goal: ArrayLike | None
) -> tuple[Array, Array]:
    simulators = groups[key].simulators
    simulators.start, simulators.goal = start, goal
    return simulators.reset(seeds)


def _step(groups: dict[int, _Share], key: int) -> dict[int, str]:
    share = groups[key]
    board, part = share.board, share.part
    board.observations[part], board.rewards[part], board.ended[part] = share.simulators.step(board.actions[part])
    return share.simulators.faults


def _close(groups: dict[int, _Share], key: int) -> None:
    if (share := groups.pop(key, None)) is not None:
        share.simulators.close()


_VERBS: dict[str, Callable[..., Any]] = {"make": _make, "reset": _reset, "step": _step, "close": _close}
