"""diffplan doctor"""

from __future__ import annotations


def doctor() -> None:
    """Versions, device, rendering backend, datasets; what is missing and how to mend it."""
    from diffplan.envs.backend import use_backend

    backend = use_backend()
    from diffplan.envs.checkup import examine

    from .screen import table

    table("diffplan doctor", ["what", "state", "remedy"], examine(backend))
