"""What this machine has, what it lacks, and how to mend it."""

from __future__ import annotations

import os

import torch

from .datasets import datasets_folder, list_local
from .runs import RUNS, SHIPPED, find_run, versions


def examine(backend: str | None) -> list[list[str]]:
    """Rows of what, state and remedy."""
    rows = [[name, version, ""] for name, version in versions().items()]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    rows.append(["GPU", gpu, "" if gpu != "none" else "planning and training run on the CPU"])
    rows.append(["CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()}", ""])
    rows.append(
        [
            "rendering",
            backend or "top view only",
            "" if backend else "install libosmesa6 (Debian: apt-get install libosmesa6), or EGL of a GPU driver",
        ]
    )
    data = list_local()
    rows.append(["datasets", f"{len(data)} in {datasets_folder()}", "" if data else "diffplan data collect maze2d"])
    run = find_run()
    rows.append(
        [
            "default RUN",
            str(run) if run != SHIPPED else "the planner that ships with diffplan",
            "" if run != SHIPPED else f"diffplan train maze2d (runs go to {RUNS}/)",
        ]
    )
    return rows
