"""Arrays that are written piece by piece, and never held in memory as a whole."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Growing:
    """An .npy file that grows by rows; NumPy's header leaves room for any length, and is written again at the end.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 - closed when the context ends
        self.rows, self.body = 0, 0
        self.like: NDArray[Any] | None = None

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, ...), of the first ones' type and width."""
        if self.like is None:
            self.like = rows[:0]
            self.body = self._write_header()
        self.file.write(np.ascontiguousarray(rows, dtype=self.like.dtype).data)
        self.rows += len(rows)

    def _write_header(self) -> int:
        """Its length in bytes."""
        assert self.like is not None
        described = np.lib.format.header_data_from_array_1_0(self.like)
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, described | {"shape": (self.rows, *self.like.shape[1:])})
        return self.file.tell()

    def __enter__(self) -> Growing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.file:
            if self.like is None or kind is not None:
                return
            if self._write_header() != self.body:
                raise OSError(f"the header of {self.file.name} has no room for {self.rows} rows")
            self.file.flush()
            os.fsync(self.file.fileno())  # a crash must not leave a whole length and half of the rows
