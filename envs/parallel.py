"""The same work on all cores: processes of their own, results in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_all_cores(work: Callable[[Job], Result], jobs: Sequence[Job], *, most: int | None = None) -> Iterator[Result]:
    """Results of `work` for each job, in the order of the jobs, each as soon as it and those before it are there.

    Args:
        work: a function of a module; it runs in a fresh process, so nothing of this one's state is seen.
        jobs: its arguments, which travel by pickle between the two.
        most: processes; as many as cores, if left out.

    Raises:
        RuntimeError: a process died, for want of memory perhaps.
    """
    count = min(most or cores(), len(jobs))
    if count <= 1:
        yield from map(work, jobs)
        return
    with _processes(count) as pool:
        yield from pool.map(work, jobs)


def alone(work: Callable[[Job], Result], job: Job) -> Result:
    """Result of `work` in a fresh process of its own, for what depends on all that was done in a process before.

    Args and errors as for `on_all_cores`.
    """
    with _processes(1) as pool:
        return pool.submit(work, job).result()


@contextlib.contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=leave_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of {count} worker processes died, as happens where memory runs out; "
            "close other programs, or ask for less"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def leave_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it cannot tell its workers."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
