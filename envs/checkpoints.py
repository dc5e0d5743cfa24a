"""Saving a training run as it goes, and stopping it without losing anything."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import Accelerator

from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.training import TrainState

from .runs import save_planner


class Interrupted(Exception):
    """Training was stopped from outside, after its state was saved."""


class Saver:
    """Writes checkpoints atomically, when due."""

    def __init__(
        self, file: Path, state: TrainState, planner: TrajectoryPlanner, accelerator: Accelerator, every: float
    ) -> None:
        self.file, self.state, self.planner, self.accelerator, self.every = file, state, planner, accelerator, every
        self.last = time.monotonic()

    def when_due(self) -> None:
        if time.monotonic() - self.last > self.every:
            self.now()

    def now(self) -> None:
        if self.accelerator.is_main_process:
            self.state.save(self.file)
            save_planner(self.planner, self.file.parent / "planner")
        self.last = time.monotonic()


class Stop:
    """Turns SIGINT and SIGTERM into a request that the loop honours between updates; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
