"""What the planner's tests share beside `tests/conftest.py`: rewarded episodes and a tiny untrained return model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffplan.planner.episodes import Episodes
from diffplan.planner.returns import ReturnModel
from diffplan.planner.spec import TrajectorySpec


@pytest.fixture(scope="session")
def rewarded() -> Episodes:
    """Sixty smooth motions of 30 steps from all over the plane; the reward is the velocity along x."""
    rng = np.random.default_rng(0)
    observations, actions, rewards = [], [], []
    for _ in range(60):
        forces = np.clip(np.cumsum(rng.normal(0, 0.5, (30, 2)), axis=0) + rng.normal(0, 0.5, 2), -1, 1)
        velocity = rng.normal(size=2) + np.vstack([np.zeros((1, 2)), np.cumsum(0.1 * forces, axis=0)])
        moved = 0.05 * (velocity[1:] + velocity[:-1])
        position = rng.normal(size=2) + np.vstack([np.zeros((1, 2)), np.cumsum(moved, axis=0)])
        observations.append(np.hstack([position, velocity]))
        actions.append(forces)
        rewards.append(velocity[1:, 0])
    return Episodes.from_arrays(observations, actions, rewards)


@pytest.fixture(scope="session")
def make_returns(spec: TrajectorySpec) -> Callable[..., ReturnModel]:
    """A fresh untrained return model, always with the same weights."""

    def make(**changes: object) -> ReturnModel:
        sizes = {"discount": 0.9, "stride": spec.stride, "width": 8, "multipliers": (1, 2), "kernel_size": 3}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ReturnModel(spec.width, **(sizes | {"octaves": 1} | changes)).eval()

    return make
