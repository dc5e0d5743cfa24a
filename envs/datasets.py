"""Minari datasets as `Episodes`: local ones, downloaded ones, and ones made on the spot."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.episodes import Episodes, concatenate
from diffplan.planner.windows import check_widths

from .arrays import Recorded, Row, recorded
from .quiet import quiet_imports
from .tasks import Task
from .tasks.task import Collecting

PATIENCE_MINUTES = 5.0  # longer collections are not begun unasked


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a local dataset."""

    id: str
    episodes: int
    steps: int
    megabytes: float
    provenance: dict[str, Any]


def datasets_folder() -> Path:
    """Where Minari keeps datasets: $MINARI_DATASETS_PATH, or ~/.minari/datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def is_local(dataset_id: str) -> bool:
    """Whether a dataset is on this machine; several, joined by "+", all of them."""
    parts = dataset_id.split("+")
    return all((datasets_folder() / part / "data" / "metadata.json").is_file() for part in parts)


def dataset_of(task: Task) -> str:
    """Id of a task's data: the one made here, or else what was downloaded from the hub."""
    from_hub = "+".join(task.hub)
    return from_hub if task.hub and not is_local(task.dataset) and is_local(from_hub) else task.dataset


def list_local() -> list[DatasetInfo]:
    """All local datasets, by name."""
    folder = datasets_folder()
    found = (p.parent.parent.relative_to(folder) for p in folder.glob("**/data/metadata.json"))
    names = sorted(str(p) for p in found if not p.parts[0].startswith("."))
    return [describe(name) for name in names]


def describe(dataset_id: str) -> DatasetInfo:
    """What a local dataset's metadata says.

    Raises:
        ValueError: the dataset is not there, or its metadata cannot be read.
    """
    path = datasets_folder() / dataset_id / "data"
    if not is_local(dataset_id):
        known = ", ".join(i.id for i in list_local()) or "none"
        raise ValueError(
            f"no local dataset {dataset_id!r}; local ones: {known}; make one with: diffplan data collect TASK"
        )
    try:
        meta = json.loads((path / "metadata.json").read_text())
        made = json.loads(meta.get("diffplan_provenance", "{}"))
        size = sum(f.stat().st_size for f in path.iterdir()) / 1e6
        return DatasetInfo(dataset_id, int(meta["total_episodes"]), int(meta["total_steps"]), size, made)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / 'metadata.json'} is damaged: {error}") from error


def download(dataset_id: str, task: Task) -> None:
    """Fetch a dataset from Minari's hub.

    Raises:
        ValueError: an id that Minari does not accept, or a hub that does not answer or does not have it.
    """
    with quiet_imports():
        import minari
    try:
        with quiet_imports():
            minari.load_dataset(dataset_id, download=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"dataset {dataset_id!r} is not on this machine and the Minari hub did not give it ({reason}); "
            + task.remedy
        ) from error


def load_episodes(dataset_id: str, task: Task) -> Episodes:
    """Read a local dataset (several, joined by "+", as one), with the task's own rewards.

    Raises:
        ValueError: it is not there, cannot be read, has NaN, was recorded in another environment, or its widths are
            not the task's; the message names it.
    """
    if "+" in dataset_id:
        return concatenate(load_episodes(part, task) for part in dataset_id.split("+"))
    describe(dataset_id)
    plain = type(task).observed is Task.observed
    try:
        found = recorded(datasets_folder() / dataset_id, dataset_id, _read, dtype="float32" if plain else None)
    except Exception as error:
        raise ValueError(
            f"dataset {dataset_id!r} in {datasets_folder()} cannot be read ({error}); delete its folder and "
            "collect or download it again"
        ) from error
    try:
        _check_environment(found.environment, task)
        states = found.observations if plain else _observed(found, task)
        failed = task.failures(found.terminated)
        episodes = Episodes(states, found.actions, found.offsets, found.rewards, failed)
        check_widths(episodes, task.spec)
        if task.cut_at_rests is not None:
            within, steps = task.cut_at_rests
            episodes = episodes.cut_at_rests(task.spec.position_indices, within=within, steps=steps)
    except ValueError as error:
        raise ValueError(f"dataset {dataset_id!r} does not fit task {task.name}: {error}") from error
    return dataclasses.replace(episodes, rewards=task.rewards(episodes))


def _observed(found: Recorded, task: Task) -> NDArray[np.float32]:
    """What a task makes of the recorded observations (S, O), in memory."""
    parts = [task.observed(found.observations[a:b]) for a, b in itertools.pairwise(found.offsets)]
    return np.concatenate([np.asarray(part, dtype=np.float32) for part in parts])


def _read(dataset_id: str) -> tuple[str, Iterator[Row]]:
    """Environment id, and the episodes, one after another."""
    with quiet_imports():
        import minari
    with quiet_imports(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = minari.load_dataset(dataset_id)
    rows = (row for episode in dataset.iterate_episodes() for row in _by_goal(episode))
    return getattr(dataset.spec.env_spec, "id", ""), rows


def _by_goal(episode: Any) -> Iterator[Row]:
    """Rows of an episode, cut where it goes on to another goal, as mazes are recorded.

    What idles at a goal before there is another would be a way to that one, which plans would imitate.
    """
    parts = (_states(episode.observations), episode.actions, episode.rewards)
    states, actions, rewards = (np.asarray(part) for part in parts)
    goals = episode.observations.get("desired_goal") if isinstance(episode.observations, dict) else None
    if not isinstance(goals, np.ndarray):
        goals = np.zeros((len(states), 0))
    changes = 1 + np.flatnonzero((np.diff(goals, axis=0) != 0).any(axis=1))
    cuts = [0, *changes[changes < len(actions)].tolist(), len(actions)]
    for begin, end in itertools.pairwise(cuts):
        failed = bool(episode.terminations[-1]) and end == len(actions)
        yield Row(states[begin : end + 1], actions[begin:end], rewards[begin:end], failed)


def _check_environment(recorded: str, task: Task) -> None:
    """Refuse data of another environment, or of another version of the same: columns, physics or rewards differ."""
    wanted = task.make if isinstance(task.make, str) else ""
    if not recorded or not wanted or recorded == wanted:
        return
    name, _, version = recorded.partition("-v")
    own, _, _ = wanted.partition("-v")
    what = (
        f"version {version} of the environment, whose observations, physics or rewards may differ"
        if name == own
        else "another environment"
    )
    raise ValueError(
        f"it was recorded in {recorded}, {what}; the task runs {wanted}: use data of {wanted}, or "
        f"{'get' if task.hub_only else 'make'} it with: diffplan data collect {task.name}"
    )


def obtain(
    task: Task, dataset_id: str | None = None, *, steps: int | None = None, seed: int = 0
) -> Iterator[Collecting]:
    """Make sure that a dataset is local: the task's own is downloaded or collected, any other downloaded.

    Yields how far it is while it collects; nothing where the data is there.

    Raises:
        ValueError: the hub does not have it, or making it takes so long that it has to be asked for.
    """
    wanted = dataset_id or dataset_of(task)
    if is_local(wanted):
        return
    if dataset_id is not None and wanted != task.dataset:
        for part in wanted.split("+"):
            download(part, task)
        return
    if task.hub:
        yield Collecting(0, 1, f"asking the Minari hub for {' and '.join(task.hub)}")
        if from_hub(task):
            return
    if task.collect_minutes > PATIENCE_MINUTES and steps is None:
        raise ValueError(
            f"the data of {task.name} is not on this machine{' and the Minari hub did not give it' * bool(task.hub)}; "
            f"make it with: diffplan data collect {task.name} (about {task.collect_minutes:.0f} minutes on 2 cores)"
        )
    yield from collect(task, steps=steps, seed=seed)


def from_hub(task: Task) -> bool:
    """Download a task's data where the hub has it and answers; whether it did.

    Raises:
        ValueError: it did not, and nothing else can give this data.
    """
    try:
        for part in task.hub:
            if not is_local(part):
                download(part, task)
    except ValueError:
        if task.hub_only:
            raise
        return False
    return bool(task.hub)


def collect(task: Task, *, steps: int | None = None, seed: int = 0, **options: Any) -> Iterator[Collecting]:
    """Make the task's dataset here, yielding how far it is.

    Raises:
        ValueError: it is there already, or the task has no collector.
    """
    total = steps or task.collect_steps
    if is_local(task.dataset):
        raise ValueError(
            f"dataset {task.dataset!r} is there already, in {datasets_folder() / task.dataset}; "
            "delete that folder to collect it anew"
        )
    root = datasets_folder()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".collecting-") as scratch:
        steps_done = task.collect(steps=total, seed=seed, **options)
        while True:
            with _minari_folder(scratch):
                done = next(steps_done, None)
            if done is None:
                break
            yield done if isinstance(done, Collecting) else Collecting(min(done, total), total)
        _move_into_place(Path(scratch), root, task.dataset)


@contextlib.contextmanager
def _minari_folder(folder: str) -> Iterator[None]:
    """Let Minari keep its datasets elsewhere for a moment."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def _move_into_place(scratch: Path, root: Path, dataset_id: str) -> None:
    """A dataset that is whole, and its namespaces' metadata, to where they belong."""
    target = root / dataset_id
    shutil.rmtree(target, ignore_errors=True)  # what an older, broken attempt left behind
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(scratch / dataset_id, target)
    for file in scratch.rglob("namespace_metadata.json"):
        if not (known := root / file.relative_to(scratch)).exists():
            os.replace(file, known)


def _states(observations: Any) -> np.ndarray:
    """Observations (T + 1, O) of an episode; a goal environment's are under the key "observation"."""
    states = np.asarray(observations["observation"] if isinstance(observations, dict) else observations)
    return states.reshape(len(states), -1)
