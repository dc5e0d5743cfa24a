"""Trains behaviour policies with Stable-Baselines3, and remembers all that they tried.

D4RL's recipe: "medium" is a policy stopped at a stated return, "medium-replay" everything it tried until then,
"medium-expert" half medium and half the same policy trained on to a higher return. A learner lives in a folder of its
own, so a killed training goes on where it was and one training serves all three. Tensors are read with `weights_only`
and transitions without pickle.

Shape letters: T steps of an episode, O observations, A actions.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.files import whole_file

from .quiet import quiet_imports
from .storage import versions_of
from .trajectories import Trajectory, damaged, diary, load_trajectories, save_trajectories

CHUNK = 1000  # steps between two looks at the learner
SAVE_EVERY = 10_000  # steps between two saved states
RECENT = 10  # training episodes whose mean return is compared with the wanted one

Algorithm = Literal["sac", "ppo"]
SETTINGS: dict[str, dict[str, Any]] = {
    "sac": {"learning_starts": 5000, "batch_size": 256, "buffer_size": 1_000_000},
    "ppo": {"n_steps": 256, "batch_size": 256, "n_epochs": 10, "learning_rate": 3e-4},
}
ENVIRONMENTS = {"sac": 1, "ppo": 8}  # stepped side by side while learning


@dataclass(frozen=True)
class Recipe:
    """Which policy to train.

    Args:
        environment: Gymnasium id.
        levels: mean return of the latest training episodes at which a level is reached, rising.
        algorithm: "sac", or "ppo" where minutes matter more than samples.
        seed: of network, exploration and environment.
    """

    environment: str
    levels: dict[str, float]
    algorithm: Algorithm = "sac"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm not in get_args(Algorithm):
            raise ValueError(f"unknown algorithm {self.algorithm!r}; known: {', '.join(get_args(Algorithm))}")


@dataclass
class Progress:
    """How far a learner is: steps taken, and for each level reached its steps and mean return then."""

    steps: int = 0
    recent: float = float("nan")
    levels: dict[str, dict[str, Any]] = field(default_factory=dict)


class Learner:
    """A policy being trained in a folder, from where it was left.

    Raises:
        ValueError: Stable-Baselines3 is not installed, or the folder belongs to another recipe.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.settings = SETTINGS[recipe.algorithm]
        self.history: list[Trajectory] = []
        self.progress = Progress()
        algorithm = _algorithm(recipe)
        self.environment = self._vectorised()
        self.model = algorithm("MlpPolicy", self.environment, device="cpu", seed=recipe.seed, **self.settings)
        if (folder / "progress.json").is_file():
            self._load()

    def _vectorised(self) -> Any:
        import gymnasium
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

        def remembered() -> Any:
            return diary()(gymnasium.make(self.recipe.environment), self.history)

        together = DummyVecEnv([remembered] * ENVIRONMENTS[self.recipe.algorithm])
        return VecNormalize(together) if self.recipe.algorithm == "ppo" else together

    def reach(self, level: str, *, most_steps: int) -> Iterator[Progress]:
        """Train until a level is reached or the steps are used up, saving on the way."""
        goal, saved = self.recipe.levels[level], self.progress.steps
        while not self._reached(level) and self.progress.steps < most_steps:
            self.model.learn(CHUNK, reset_num_timesteps=False)
            self.progress.steps = int(self.model.num_timesteps)
            latest = [t.total for t in self.history[-RECENT:]]
            self.progress.recent = float(np.mean(latest)) if latest else float("nan")
            if len(latest) == RECENT and self.progress.recent >= goal:
                self._mark(level, reached=True)
            if self.progress.steps - saved >= SAVE_EVERY:
                saved = self.progress.steps
                self.save()
            yield self.progress
        if not self._reached(level):
            self._mark(level, reached=False)  # as good as the steps allowed; more steps train it on
        self.save()

    def _reached(self, level: str) -> bool:
        return bool(self.progress.levels.get(level, {}).get("reached", False))

    def _mark(self, level: str, *, reached: bool) -> None:
        """Keep the policy as it is now."""
        from safetensors.torch import save_file

        tensors = {k: v.detach().clone().contiguous() for k, v in self.model.policy.state_dict().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / f"{level}.safetensors") as path:
            save_file(tensors | self._scales(), path)
        self.progress.levels[level] = {
            "steps": self.progress.steps,
            "recent_return": self.progress.recent,
            "episodes": len(self.history),
            "reached": reached,
        }

    def _scales(self) -> dict[str, Any]:
        """The observations' normalisation, for algorithms that have one."""
        import torch

        if self.recipe.algorithm != "ppo":
            return {}
        scales = self.environment.obs_rms
        values = {"mean": scales.mean, "var": scales.var, "count": np.array(scales.count)}
        return {f"scales.{name}": torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}

    def save(self) -> None:
        """Everything that continuing needs, each file whole or absent; what counts the steps goes last."""
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / "learner.pt") as path:
            torch.save({"parameters": self.model.get_parameters(), "scales": self._scales()}, path)
        save_trajectories(self.folder / "experience.npz", self.history)
        record = {
            "recipe": vars(self.recipe),
            "versions": versions_of("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy"),
            "progress": vars(self.progress),
        }
        with whole_file(self.folder / "progress.json") as path:
            path.write_text(json.dumps(record, indent=1))

    def _load(self) -> None:
        import torch

        record = _record(self.folder / "progress.json")
        if record["recipe"] != vars(self.recipe):
            raise ValueError(
                f"{self.folder} trains {record['recipe']}, not {vars(self.recipe)}; delete it to begin anew"
            )
        path = self.folder / "learner.pt"
        try:
            known = torch.load(path, weights_only=True)
            self.model.set_parameters(known["parameters"])
            self._set_scales(known["scales"])
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise damaged(path, error) from error
        self.history.extend(load_trajectories(self.folder / "experience.npz"))
        self.progress = Progress(**record["progress"])
        self.model.num_timesteps = self.progress.steps
        self.model.set_random_seed(self.recipe.seed + self.progress.steps)  # not the same chances over again
        if self.recipe.algorithm == "sac":
            for trajectory in self.history:
                self._remember(trajectory)

    def _set_scales(self, scales: dict[str, Any]) -> None:
        if scales:
            known = self.environment.obs_rms
            known.mean, known.var = scales["scales.mean"].numpy(), scales["scales.var"].numpy()
            known.count = float(scales["scales.count"])

    def _remember(self, trajectory: Trajectory) -> None:
        """Fill the replay buffer as if the episode had just been lived; it wants actions between -1 and 1."""
        buffer, last = self.model.replay_buffer, len(trajectory.actions) - 1
        scaled = self.model.policy.scale_action(trajectory.actions)
        for step, (action, reward) in enumerate(zip(scaled, trajectory.rewards, strict=True)):
            before, after = trajectory.observations[step : step + 2]
            over = step == last
            info = {"TimeLimit.truncated": over and not trajectory.terminated}
            buffer.add(before[None], after[None], action[None], np.array([reward]), np.array([over]), [info])

    def policy(self, level: str) -> Policy:
        """The policy as it was when it reached a level.

        Raises:
            ValueError: it did not reach it yet.
        """
        import torch
        from safetensors.torch import load_file

        if level not in self.progress.levels:
            raise ValueError(f"{self.folder} did not reach {level!r} yet")
        tensors = load_file(self.folder / f"{level}.safetensors")
        scales = {k: tensors.pop(k).numpy() for k in list(tensors) if k.startswith("scales.")}
        with torch.random.fork_rng():  # a network of its own: the learner's goes on learning
            own = self.model.policy
            network = type(own)(**own._get_constructor_parameters())
        network.load_state_dict(tensors)
        network.set_training_mode(False)
        return Policy(network, scales.get("scales.mean"), scales.get("scales.var"))


class Policy:
    """A stochastic policy, as it explored: observations (B, O) to actions (B, A) as the environment takes them."""

    def __init__(self, network: Any, mean: NDArray[np.float64] | None, var: NDArray[np.float64] | None) -> None:
        self.network, self.mean, self.var = network, mean, var

    def __call__(self, observations: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
        import torch

        if self.mean is not None and self.var is not None:
            observations = np.clip((observations - self.mean) / np.sqrt(self.var + 1e-8), -10, 10)
        seen = torch.as_tensor(observations, dtype=torch.float32)
        with torch.no_grad():
            if hasattr(self.network, "actor"):  # SAC: a Gaussian squashed into the actions' range
                mean, log_std, _ = self.network.actor.get_action_dist_params(seen)
                std = log_std.exp()
            else:
                known = self.network.get_distribution(seen).distribution
                mean, std = known.mean, known.stddev
            drawn = (mean + std * torch.from_numpy(rng.standard_normal(mean.shape)).float()).numpy()
        if hasattr(self.network, "actor"):
            return self.network.unscale_action(np.tanh(drawn))
        space = self.network.action_space
        return np.clip(drawn, space.low, space.high)


def _algorithm(recipe: Recipe) -> Any:
    with quiet_imports():
        try:
            import stable_baselines3
        except ImportError as error:
            raise ValueError(
                "making this data needs Stable-Baselines3, which is not installed; install it with: "
                "pip install 'diffplan[collect]'"
            ) from error
    return {"sac": stable_baselines3.SAC, "ppo": stable_baselines3.PPO}[recipe.algorithm]


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return {"recipe": found["recipe"], "progress": found["progress"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
