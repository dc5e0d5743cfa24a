"""Episodes as behaviour policies live them: remembered, saved and read as plain arrays.

Shape letters: T steps of an episode, O observations, A actions.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.files import whole_file


@dataclass(frozen=True)
class Trajectory:
    """One episode: observations (T + 1, O), actions (T, A), rewards (T,), and whether it ended in failure."""

    observations: NDArray[np.float64]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    terminated: bool

    @property
    def total(self) -> float:
        """Undiscounted return."""
        return float(self.rewards.sum())


def diary() -> type:
    """A Gymnasium wrapper that remembers every finished episode in a list (gymnasium is imported late)."""
    import gymnasium

    class Diary(gymnasium.Wrapper):
        """Remembers every finished episode in a list."""

        def __init__(self, env: Any, finished: list[Trajectory]) -> None:
            super().__init__(env)
            self.finished = finished

        def reset(self, **options: Any) -> Any:
            observation, info = self.env.reset(**options)
            self.observations: list[Any] = [observation]
            self.actions: list[Any] = []
            self.rewards: list[float] = []
            return observation, info

        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self.observations.append(observation)
            self.actions.append(np.asarray(action, np.float32))
            self.rewards.append(float(reward))
            if terminated or truncated:
                episode = np.array(self.observations), np.array(self.actions), np.array(self.rewards)
                self.finished.append(Trajectory(*episode, bool(terminated)))
            return observation, reward, terminated, truncated, info

    return Diary


def damaged(path: Path, error: Exception) -> ValueError:
    """What to say of a file of a learner that cannot be read."""
    return ValueError(f"{path} is damaged ({error}); delete its folder to train the policy anew")


def save_trajectories(path: Path, trajectories: list[Trajectory]) -> None:
    """As plain arrays, laid end to end."""
    ends = np.cumsum([len(t.actions) for t in trajectories], dtype=np.int64)
    stacked: dict[str, Any] = {
        name: np.concatenate([getattr(t, name) for t in trajectories]) if trajectories else np.empty(0)
        for name in ("observations", "actions", "rewards")
    }
    with whole_file(path) as scratch:
        np.savez(scratch, ends=ends, terminated=np.array([t.terminated for t in trajectories], bool), **stacked)


def load_trajectories(path: Path) -> list[Trajectory]:
    """What `save_trajectories` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ends, terminated = arrays["ends"], arrays["terminated"]
            observations, actions, rewards = (arrays[n] for n in ("observations", "actions", "rewards"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error
    begins = np.concatenate([[0], ends]).astype(np.int64)[:-1]
    return [
        Trajectory(observations[a + i : b + i + 1], actions[a:b], rewards[a:b], bool(terminated[i]))
        for i, (a, b) in enumerate(zip(begins, ends, strict=True))
    ]
