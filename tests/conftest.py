"""What the tests share: a point mass in the plane, a few of its episodes, and a tiny untrained planner."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from diffplan.envs.backend import use_backend
from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.unet import TemporalUNet

HORIZON = 8

use_backend()  # before any test imports mujoco, which reads its backend once


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def spec() -> TrajectorySpec:
    """Two forces move a mass with position x, y and velocity vx, vy; a token every 2 steps of 0.1 s."""
    names = ("x", "y", "vx", "vy")
    return TrajectorySpec(("fx", "fy"), names, names[:2], names[2:], dt_seconds=0.1, stride=2)


@pytest.fixture(scope="session")
def space() -> TrajectorySpec:
    """A gripper carries an object through space: the position is the object's, the gripper another body."""
    grip, thing, rates = (tuple(f"{name}_{axis}" for axis in "xyz") for name in ("grip", "object", "rate"))
    names = (*grip, "fingers", *thing, *rates)
    return TrajectorySpec(("ax", "ay", "az"), names, thing, rates, dt_seconds=0.1, stride=2, bodies=(grip,))


@pytest.fixture(scope="session")
def episodes() -> Episodes:
    """Five smooth random motions of 5 to 40 steps: forces wander, the mass follows."""
    rng = np.random.default_rng(0)
    observations, actions = [], []
    for steps in (40, 25, 9, 5, 31):
        forces = np.clip(np.cumsum(rng.normal(0, 0.3, (steps, 2)), axis=0), -1, 1)
        velocity = np.vstack([np.zeros((1, 2)), np.cumsum(0.1 * forces, axis=0)])
        moved = 0.05 * (velocity[1:] + velocity[:-1])
        position = rng.normal(size=2) + np.vstack([np.zeros((1, 2)), np.cumsum(moved, axis=0)])
        observations.append(np.hstack([position, velocity]))
        actions.append(forces)
    return Episodes.from_arrays(observations, actions)


@pytest.fixture(scope="session")
def make_planner(spec: TrajectorySpec, episodes: Episodes) -> Callable[..., TrajectoryPlanner]:
    """A fresh untrained planner, always with the same weights."""

    def make(**options: object) -> TrajectoryPlanner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = TemporalUNet(columns=spec.width, width=8, multipliers=(1, 2), blocks=1, kernel_size=3, octaves=1)
        defaults = {"task": "test", "consistency_bound": 0.1, "sampling": {"candidates": 3, "steps": 4}}
        return TrajectoryPlanner(
            network,
            Normalizer.fit(episodes, spec),
            make_scheduler("ddim", train_steps=8),
            spec=spec.to_config(),
            horizon=HORIZON,
            **(defaults | options),
        )

    return make


@pytest.fixture(scope="session")
def planner(make_planner: Callable[..., TrajectoryPlanner]) -> TrajectoryPlanner:
    """The same for tests that leave it as it is."""
    return make_planner()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def exact_denoiser() -> Callable[..., Callable[..., torch.Tensor]]:
    """The perfect network for entries that are N(mean, deviation^2), each by itself."""

    def make(mean: float, deviation: float, alphas_cumprod: torch.Tensor, prediction: str = "x0") -> Callable:
        def network(noisy: torch.Tensor, timestep: torch.Tensor, _: object = None) -> torch.Tensor:
            level = alphas_cumprod[timestep].reshape(-1, 1, 1)
            alpha, sigma, variance = level.sqrt(), (1 - level).sqrt(), deviation**2
            clean = mean + variance * alpha / (alpha**2 * variance + sigma**2) * (noisy - alpha * mean)
            noise = (noisy - alpha * clean) / sigma
            return {"x0": clean, "eps": noise, "v": alpha * noise - sigma * clean}[prediction]

        return network

    return make


DATA_STEPS = 20_000


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A small maze2d-umaze dataset in a folder of its own; how many steps were asked for."""
    from diffplan.envs.datasets import collect
    from diffplan.envs.tasks import find_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        list(collect(find_task("maze2d"), steps=DATA_STEPS))
        yield DATA_STEPS


@pytest.fixture(scope="session")
def run_folder(data: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of maze2d-umaze, trained for a moment."""
    from diffplan.envs.presets import find_preset
    from diffplan.envs.tasks import find_task
    from diffplan.envs.training import train_run
    from diffplan.planner.training import TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = TrainConfig(steps=60, batch_size=16)
    list(train_run(find_task("maze2d"), folder, config, preset=find_preset("default"), command="diffplan train maze2d"))
    return folder


@pytest.fixture(scope="session")
def robot_folder(data: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs/hopper was trained for a moment, on a little data of hopper-medium that chance made."""
    from diffplan.envs.presets import find_preset
    from diffplan.envs.robot_data import record_policy, store
    from diffplan.envs.tasks import find_task
    from diffplan.envs.training import train_run
    from diffplan.planner.training import TrainConfig

    def chance(observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(-1, 1, (len(observations), 3)).astype(np.float32)

    folder, task = tmp_path_factory.mktemp("robot"), find_task("hopper-medium")
    made = {"policy": {"algorithm": "chance"}, "recorded": {"return_mean": 0.0}}
    store(task, list(record_policy("Hopper-v5", chance, steps=900, seed=0)), made)
    config = TrainConfig(**task.training | {"batch_size": 16}, steps=25)
    list(train_run(task, folder / "runs" / "hopper", config, preset=find_preset("default", task)))
    return folder


@pytest.fixture
def copy_run(tmp_path: Path) -> Callable[..., Path]:
    """Copies a run folder, to be broken."""
    numbers = itertools.count()

    def copy(folder: Path, target: Path | None = None) -> Path:
        return Path(shutil.copytree(folder, target or tmp_path / f"copy-{next(numbers)}"))

    return copy
