"""How much memory a process takes, of its own and with the files that it has mapped."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")
PEEK_SECONDS = 0.005


def memory_mib() -> dict[str, float]:
    """What this process has in memory now: "anonymous", its own, and "total", with mapped files, which can be dropped.

    Raises:
        ValueError: the system is not Linux, which alone tells them apart.
    """
    if not STATUS.is_file():
        raise ValueError(f"memory is measured on Linux alone: there is no {STATUS} here")
    found = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {name: int(found[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("total", "VmRSS"))}


class Peak:
    """The most that this process has in memory while the context lasts, looked at again and again.

    Attributes:
        mib: as `memory_mib`, the largest seen of each.
    """

    def __enter__(self) -> Peak:
        self.mib = memory_mib()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(PEEK_SECONDS):
            self._look()

    def _look(self) -> None:
        self.mib = {name: max(self.mib[name], now) for name, now in memory_mib().items()}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()
