"""Data of any size in moments: points that are pushed about in a box, exact double integrators.

Shape letters: N episodes, T steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffplan.envs.arrays import Row, recorded

HALF_SIDE = 1.4  # metres, of the box: as large as the umaze
PUSH, DT = 0.24, 0.01  # metres per second that an action of 1 adds in a step, and the seconds of one
HELD, TOGETHER, LENGTH = 25, 1000, 200  # steps that an action is held, episodes made at once, steps of an episode


def points_in_a_box(steps: int, *, seed: int = 0) -> Iterator[Row]:
    """Episodes of at least so many steps: observations (T + 1, 4) of x, y, vx, vy, and actions (T, 2).

    What runs into a side of the box bounces off it; everywhere else v' = v + PUSH u and p' = p + DT v'.
    """
    rng = np.random.default_rng(seed)
    left = -(-steps // LENGTH)
    while left > 0:
        count = min(left, TOGETHER)
        actions = rng.uniform(-1, 1, (LENGTH // HELD, count, 2)).repeat(HELD, axis=0)
        state = np.concatenate([rng.uniform(-HALF_SIDE, HALF_SIDE, (count, 2)), np.zeros((count, 2))], axis=1)
        states = [state]
        for action in actions:
            states.append(_pushed(states[-1], action))
        observations, taken = np.stack(states, axis=1), actions.swapaxes(0, 1)
        for i in range(count):
            yield Row(observations[i], taken[i], np.zeros(LENGTH), False)
        left -= count


def _pushed(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """States (N, 4) a step later."""
    velocity = state[:, 2:] + PUSH * action
    ahead = state[:, :2] + DT * velocity
    out = np.abs(ahead) > HALF_SIDE
    return np.concatenate([np.where(out, state[:, :2], ahead), np.where(out, -velocity, velocity)], axis=1)


def store_points(folder: Path, dataset_id: str, steps: int) -> None:
    """Such data as a dataset in a folder of datasets: what Minari says of one, and the arrays beside it."""
    data = folder / dataset_id / "data"
    data.mkdir(parents=True)
    episodes = -(-steps // LENGTH)
    (data / "metadata.json").write_text(json.dumps({"total_episodes": episodes, "total_steps": episodes * LENGTH}))
    recorded(folder / dataset_id, dataset_id, lambda _: ("", points_in_a_box(steps)), dtype="float32")
