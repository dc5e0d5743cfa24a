"""Files that are never half written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A scratch path beside `path`, with its suffix: moved into place if all went well, removed if not.

    A reader finds the old file or the new one, whenever the writer is stopped.
    """
    target = Path(path)
    scratch = target.with_name(f".{target.stem}-{os.getpid()}{target.suffix}")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
