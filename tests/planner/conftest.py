"""What the planner's tests share beside `tests/conftest.py`.

Rewarded episodes, a tiny untrained return model, and plants in a space of any shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffplan.planner.episodes import Episodes
from diffplan.planner.options import Sampling
from diffplan.planner.plan import Plan
from diffplan.planner.plant import Plant
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


@pytest.fixture(scope="session")
def make_plant() -> Callable[..., Plant]:
    """A plant as it would be fitted, free where it has been: in a part of a box with sides from 0 to `size`."""

    def make(
        axes: int = 2,
        *,
        answer: float = 1.0,
        push: float = 0.1,
        cap: float = 5.0,
        dt: float = 0.01,
        size: float = 10.0,
        voxel: float = 0.05,
        visited: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Plant:
        count = round(size / voxel) + 8
        plant = Plant(axes, dt, (count,) * axes, voxel)
        for name, value in {"answer": answer, "push": push, "cap": cap, "top": cap, "origin": -4 * voxel}.items():
            getattr(plant, name)[:] = value
        line = (np.arange(count) - 3.5) * voxel
        centres = np.stack(np.meshgrid(*[line] * axes, indexing="ij"), axis=-1)
        inside = ((centres > 0) & (centres < size)).all(-1)
        inside = inside if visited is None else inside & visited(centres)
        for name in ("visited", "free"):
            getattr(plant, name)[:] = torch.from_numpy(inside)
        return plant

    return make


class Hesitant:
    """Plans straight to the goal and takes its time, for a mass in the plane."""

    SPEED = 0.4  # position units per second

    def __init__(self, spec) -> None:
        self.spec, self.sampling = spec, Sampling()

    def problem(self, start, goal=None):
        return np.array(start), np.array(goal)

    def stops(self, start, goal, *, nearer=False):
        return [goal]

    def plan_many(self, problems, **_):
        return [self._straight(*problem) for problem in problems]

    def _straight(self, start, goal):
        way = goal - start[:2]
        tokens = 2 + int(np.linalg.norm(way) / (self.SPEED * self.spec.token_seconds))
        made = np.zeros((1, tokens, self.spec.width), np.float32)
        made[0, :, self.spec.position_columns] = (start[:2] + np.linspace(0, 1, tokens)[:, None] * way).T
        made[0, :-1, self.spec.velocity_columns] = (way / tokens / self.spec.token_seconds)[:, None]
        made[0, 0, self.spec.velocity_columns] = start[2:]
        nothing = np.zeros(1)
        return Plan(self.spec, made, np.array([tokens - 1]), nothing, nothing, nothing)


@pytest.fixture
def hesitant(spec: TrajectorySpec) -> Hesitant:
    return Hesitant(spec)
