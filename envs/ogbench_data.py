"""OGBench's data: the package's own where its server answers, else made here by its oracles, on all cores.

Shape letters: N episodes, S rows of all of them together, T steps, O observations, A actions.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import math
import socket
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .ogbench_oracles import (
    NOISE_SMOOTHING,
    PLAN_NOISE,
    POINT_NOISE,
    STACKED,
    STITCH_CELLS,
    Recorded,
    follow_routes,
    play,
)
from .ogbench_scene import make_environment, need_ogbench
from .parallel import on_all_cores
from .quiet import quiet_imports
from .storage import episode_buffer, store_buffers, versions_of
from .tasks.task import Collecting

if TYPE_CHECKING:
    from .tasks.ogbench import Kind, OgbenchTask

ANSWER_SECONDS, SILENCE_SECONDS = 10.0, 60.0  # until a server that says nothing counts as one that does not answer
JOB_STEPS = {"navigate": 20_000, "stitch": 20_000, "play": 5_000}  # recorded before a process reports back


def collect_ogbench(
    task: OgbenchTask, *, steps: int, seed: int, local: bool = False, most: int | None = None
) -> Iterator[Collecting]:
    """Get a task's data and store it.

    Args:
        task: whose.
        steps: to record. The server is asked only where these are the task's own number: it has no choice of sizes.
        seed: of everything random in a recording.
        local: do not ask the server.
        most: processes; as many as cores, if left out.

    Raises:
        ValueError: OGBench is not installed.
    """
    need_ogbench(task.name)
    if not local and steps == task.collect_steps:
        yield Collecting(0, steps, f"asking OGBench's server for {task.published_name}-v0")
        with tempfile.TemporaryDirectory() as folder:
            file = download(f"{task.published_name}-v0", Path(folder))
            if file is not None:
                store(task, read_npz(file), {"source": "OGBench's server", "file": file.name})
                return
    recorded: list[Recorded] = []
    for part in on_all_cores(record, jobs(task, steps, seed), most=most):
        recorded += part
        done = sum(len(one.actions) for one in recorded)
        yield Collecting(min(done, steps), steps, f"{done:,} steps of OGBench's oracles")
    store(task, recorded, {"source": "recorded here", "oracle": oracle_of(task), "seed": seed})


# ---------------------------------------------------------------------- recording


class Job(NamedTuple):
    """What one process records at a time: an episode of each seed."""

    environment: str
    kind: Kind
    steps: int
    seeds: tuple[int, ...]


def jobs(task: OgbenchTask, steps: int, seed: int) -> list[Job]:
    """Whole episodes, at least so many steps; an episode is its seed's, whichever process records it."""
    length = min(task.recorded_steps, steps)
    seeds = np.random.SeedSequence([seed, 2026]).generate_state(math.ceil(steps / length)).tolist()
    each = max(1, JOB_STEPS[task.kind] // length)
    parts = [tuple(seeds[i : i + each]) for i in range(0, len(seeds), each)]
    return [Job(str(task.make), task.kind, length, part) for part in parts]


def record(job: Job) -> list[Recorded]:
    """The episodes of a job."""
    need_ogbench(job.environment)
    env = _recorder(job.environment, job.kind)
    return [_episode(env, job, seed) for seed in job.seeds]


def _episode(env: Any, job: Job, seed: int) -> Recorded:
    if job.kind != "play":
        return follow_routes(env, steps=job.steps, seed=seed, pieces=job.kind == "stitch")
    while True:
        made = play(env, steps=job.steps, seed=seed)
        if job.environment != "scene-v0" or in_sight(made.observations):
            return made
        seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


@functools.lru_cache(maxsize=1)
def _recorder(environment: str, kind: Kind) -> Any:
    """The environment of a process, kept from job to job: a scene takes a second to compile."""
    options = {"mode": "data_collection", "visualize_info": False} if kind == "play" else {}
    return make_environment(environment, terminate_at_goal=False, **options)


def in_sight(observations: ArrayLike) -> bool:
    """Whether the scene's cube stays where a camera would see it or in the drawer, in all of (T + 1, O).

    OGBench leaves other episodes out of its data, and so does this.
    """
    y, z = np.asarray(observations)[:, 20:22].T / 10  # metres
    lost = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
    return not ((y >= 0.29) | lost).any()


def oracle_of(task: OgbenchTask) -> dict[str, object]:
    """How a recording was made: everything needed to make it again."""
    if task.kind == "play":
        return {
            "name": "OGBench's plan oracles, one target after another",
            "plan_noise": PLAN_NOISE,
            "noise_smoothing": NOISE_SMOOTHING,
            "stacking_chance": STACKED[str(task.make)],
            "episode_steps": task.recorded_steps,
        }
    return {
        "name": "shortest routes from cell to cell",
        "action_noise_std": POINT_NOISE,
        "episode_steps": task.recorded_steps,
        **({"cells_of_an_episode": STITCH_CELLS} if task.kind == "stitch" else {}),
    }


# ---------------------------------------------------------------------- downloading


def download(name: str, folder: Path) -> Path | None:
    """OGBench's own file of a dataset, by the package's own means; None where its server does not answer."""
    import ogbench.utils

    file, before = folder / f"{name}.npz", socket.getdefaulttimeout()
    asked = urllib.request.Request(f"{ogbench.utils.DATASET_URL}/{file.name}", method="HEAD")
    with contextlib.suppress(OSError, http.client.HTTPException):
        urllib.request.urlopen(asked, timeout=ANSWER_SECONDS).close()
        try:
            socket.setdefaulttimeout(SILENCE_SECONDS)  # the package itself would wait for ever
            with quiet_imports():
                ogbench.utils.download_datasets([name], str(folder))
        finally:
            socket.setdefaulttimeout(before)
    return file if zipfile.is_zipfile(file) else None


def read_npz(file: Path) -> list[Recorded]:
    """Episodes of OGBench's format: rows (S, O) and (S, A), where the last action of an episode leads nowhere."""
    with np.load(file) as found:
        observations, actions = found["observations"], found["actions"]
        ends = np.flatnonzero(found["terminals"]) + 1
    pieces = zip(np.split(observations, ends)[: len(ends)], np.split(actions, ends)[: len(ends)], strict=True)
    return [Recorded(seen.astype(np.float32), taken[:-1].astype(np.float32)) for seen, taken in pieces]


# ---------------------------------------------------------------------- storing


def store(task: OgbenchTask, recorded: Sequence[Recorded], made: dict[str, Any]) -> None:
    """Write episodes as a Minari dataset with its provenance in the metadata."""
    buffers = [
        episode_buffer(index, one.observations, one.actions, np.zeros(len(one.actions)), terminated=False)
        for index, one in enumerate(recorded)
    ]
    versions = versions_of("ogbench", "mujoco", "dm_control", "gymnasium", "numpy")
    store_buffers(
        task.dataset,
        buffers,
        make_environment(str(task.make)),
        made | {"environment": task.make, "kind": task.kind, "versions": versions},
        algorithm="OGBench's oracles",
        description=f"OGBench's {task.published_name}, {made['source']}.",
        requirements=["ogbench>=1.2,<1.3", "mujoco>=3.3,<3.11"],
    )
