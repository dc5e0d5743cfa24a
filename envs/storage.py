"""Episodes made here, written as Minari datasets that say how they were made."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .quiet import quiet_imports


def episode_buffer(index: int, observations: Any, actions: ArrayLike, rewards: ArrayLike, *, terminated: bool) -> Any:
    """One episode as Minari stores it: its last step ends it, in failure or by being cut."""
    with quiet_imports():
        from minari.data_collector import EpisodeBuffer

    taken = np.asarray(actions, dtype=np.float32)
    last = np.arange(len(taken)) == len(taken) - 1
    return EpisodeBuffer(
        id=index,
        observations=observations,
        actions=taken,
        rewards=list(np.asarray(rewards, dtype=float)),
        terminations=list(last & terminated),
        truncations=list(last & (not terminated)),
    )


def store_buffers(
    dataset_id: str,
    buffers: Sequence[Any],
    env: Any,
    made: dict[str, Any],
    *,
    algorithm: str,
    description: str,
    requirements: Sequence[str],
) -> None:
    """Write buffers as a dataset of an environment, which is closed, with its provenance in the metadata."""
    with quiet_imports():
        import minari

        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            list(buffers),
            env=env,
            algorithm_name=algorithm,
            author="diffplan",
            code_permalink="https://pypi.org/project/diffplan",
            description=description,
            requirements=list(requirements),
        )
        env.close()
    dataset.storage.update_metadata({"diffplan_provenance": json.dumps(made)})


def versions_of(*names: str) -> dict[str, str]:
    """Installed versions of packages, by name; those that are not installed are left out."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
