"""What a task is: an environment, its data, and how its columns are called.

Shape letters: K candidates, O observations, P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.guides.places import Clearance
from diffplan.planner.plan import Plan
from diffplan.planner.spec import TrajectorySpec

from ..quiet import quiet_imports

Array = NDArray[np.float64]


class Collecting(NamedTuple):
    """How far a collection is: `done` of `total`, and in words what is going on."""

    done: int
    total: int
    words: str = ""


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """One seed per episode: the same start and goal for every method."""
    return [int(s) for s in np.random.SeedSequence([seed, 2026]).generate_state(episodes)]


@dataclass(frozen=True)
class Task:
    """An environment and its data.

    Args:
        name: as typed on the command line.
        make: builds the environment: a Gymnasium id, or a function of `render_mode`.
        dataset: Minari id of its data.
        spec: columns, duration of a step, and stride.
        horizon: tokens per plan.
        episode_steps: length of an evaluation episode.
        held_at_end: an episode is a success if its last step is rewarded; otherwise any step will do.
        stays_within: hindsight's goals are only places where the position stays (see `planner.windows.Windows`).
        cut_at_rests: (distance, steps): recordings go on from goal to goal, and are cut where the position rests for so
            many steps within that distance (see `planner.episodes.Episodes.cut_at_rests`); None leaves them whole.
        together: episodes that are run side by side at most, for environments that take much memory; 0 for any number.
        width: channels of the network's first level.
        multipliers: channels of each level as multiples of it.
        minutes: training time of the default preset.
        replan_every: environment steps between plans.
        tolerance: distance from a plan, in position units, up to which one that is about to arrive is kept; below 0
            none ever is.
        passed_within: distance from a via, in position units, at which it counts as passed.
        gains: (p, d) of the tracking controller; None executes planned actions.
        follow_states: learned inverse dynamics come with the planner also where actions are planned, too: a guide that
            bends states cannot tell which actions lead there (see `envs.control`).
        action_limit: planned actions are clipped to [-limit, limit]; None leaves them alone.
        feedforward: share of the planned action beside tracking.
        tempo: how much faster than planned a tracked plan is followed (see `planner.execution.Executor`).
        sampling: defaults of `planner.options.Sampling`.
        collect_steps: size of the dataset that `collect` makes.
        collect_minutes: that this takes on two cores; where it is long, training does not begin it by itself.
        hub: Minari ids that together are this task's data on the hub, in place of a dataset made here.
        hub_only: nothing here can make its data.
        agent_radius: of the agent in the plane, in position units: what it touches.
        avoid_clearance: metres beyond that radius to keep from what `--avoid` names: tracking has an error.
        discount: of rewards per environment step, in the returns that the return model predicts.
        normalizer: "limits" or "gaussian".
        octaves: Fourier features of the denoiser's input (see `planner.unet`).
        anchored: the denoiser says how far plans stray from where they begin (see `planner.unet`).
        training: defaults of `planner.training.TrainConfig`.
        guides: SPECs that lead where neither a goal nor a guide is given.
        presets: what a named preset means for this task, where it differs (fields of `envs.presets.Preset`).
    """

    name: str
    make: str | Callable[..., Any]
    dataset: str
    spec: TrajectorySpec
    horizon: int = 32
    episode_steps: int = 1000
    held_at_end: bool = False
    stays_within: float | None = None
    cut_at_rests: tuple[float, int] | None = None
    together: int = 0
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    minutes: float = 10.0
    replan_every: int = 20
    tolerance: float = 0.25
    passed_within: float = 0.25
    gains: tuple[float, float] | None = None
    follow_states: bool = False
    action_limit: float | None = None
    feedforward: float = 0.0
    tempo: float = 1.0
    sampling: dict[str, Any] = field(default_factory=dict)
    collect_steps: int = 1_000_000
    collect_minutes: float = 0.0
    hub: tuple[str, ...] = ()
    hub_only: bool = False
    agent_radius: float = 0.0
    avoid_clearance: float = 0.1
    discount: float = 0.99
    normalizer: str = "limits"
    octaves: int = 4
    anchored: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    guides: tuple[str, ...] = ()
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What JSON says of the task, so that `envs.tasks.task_of` finds it again."""
        return {"task": self.name}

    @property
    def as_typed(self) -> str:
        """What stands for the task on the command line where its data is made and it is trained."""
        return self.name

    @property
    def remedy(self) -> str:
        """Where its data may come from where the hub gives none, as a message ends."""
        if self.hub_only:
            return (
                f"nothing here can make it: bring a local Minari dataset of {self.make}, "
                f"with diffplan train {self.as_typed} --dataset ID"
            )
        return f"make data locally with: diffplan data collect {self.as_typed}"

    def environment(self, *, render_mode: str | None = None) -> Any:
        """A fresh Gymnasium environment, without wrappers that end or check episodes."""
        with quiet_imports():
            if not isinstance(self.make, str):
                return self.make(render_mode=render_mode)
            import gymnasium

            return gymnasium.make(self.make, render_mode=render_mode).unwrapped

    def seeds(self, seed: int, episodes: int) -> list[int]:
        """One seed per evaluation episode; a protocol with tasks of its own takes them in turn."""
        return episode_seeds(seed, episodes)

    def reset(
        self, env: Any, rng: np.random.Generator, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Begin an episode; the observation (O,) and the goal (P,), P = 0 for tasks without one.

        Raises:
            ValueError: a start is asked for and the task cannot place its agent.
        """
        if start is not None:
            raise ValueError(f"task {self.name} cannot place its agent at a chosen start; leave --start out")
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        wanted = observation.get("desired_goal", ()) if isinstance(observation, dict) else ()
        return self.flatten(observation), np.asarray(wanted if goal is None else goal, dtype=float)

    def flatten(self, observation: Any) -> Array:
        """An environment's observation as one vector (O,)."""
        raw = observation["observation"] if isinstance(observation, dict) else observation
        return self.observed(np.asarray(raw, dtype=float).ravel())

    def observed(self, raw: NDArray[Any]) -> NDArray[Any]:
        """The task's observations (..., O) from an environment's own, flat (..., R): the very same, if left alone."""
        return raw

    def reward(self, observation: Array, goal: Array, reward: float) -> float:
        """Reward of a step, from the observation (O,) after it, the goal (P,) and the environment's own reward."""
        return float(reward)

    def rewards(self, episodes: Episodes) -> NDArray[np.float32] | None:
        """Rewards (S,) of recorded episodes, as `Episodes.rewards`: the recorded ones; None for a task without any."""
        return episodes.rewards

    def failures(self, terminated: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Which recorded episodes (N,) ended in failure, of those that ended early; None where none can fail."""
        return None if self.spec.position else terminated

    def achieved(self, rewards: ArrayLike) -> NDArray[np.bool_]:
        """At which steps (T,) of an executed episode its task was achieved: those with a reward."""
        return np.asarray(rewards, dtype=float) > 0

    def lost(self, observation: Array) -> str:
        """Why nothing can be achieved any more from an observation (O,), in words; empty where something can."""
        return ""

    def reached(self, observations: ArrayLike, goal: ArrayLike) -> NDArray[np.bool_]:
        """Whether observations (..., O) are at the goal (P,): within half a unit of position."""
        columns = self.spec.position_indices
        gap = np.asarray(observations)[..., columns] - np.asarray(goal)[: len(columns)]
        return np.linalg.norm(gap, axis=-1) <= 0.5

    def check_point(self, values: Sequence[float], what: str) -> None:
        """Refuse a start or goal that cannot be.

        Raises:
            ValueError: a wrong count of numbers, or one that is not finite.
        """
        if len(values) != len(self.spec.position):
            raise ValueError(
                f"{what} {numbers(values)} has {len(values)} numbers; task {self.name} needs "
                f"{len(self.spec.position)}: {','.join(self.spec.position)}"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{what} {numbers(values)} must be finite numbers")

    def feasible(self, plan: Plan) -> NDArray[np.bool_]:
        """Which candidates (K,) can be followed as far as the task itself knows; all, where it knows no map."""
        return np.ones(len(plan.trajectories), dtype=bool)

    def clearance(self) -> Clearance | None:
        """Signed distance from the nearest wall as a differentiable function of positions; None without a map."""
        return None

    def parse_point(self, text: str, what: str) -> tuple[float, ...]:
        """A position (P,) from "X,Y".

        Raises:
            ValueError: not numbers, too few or too many, or a point that cannot be.
        """
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(
                f"{what} {text!r} is not a list of numbers; write {','.join(self.spec.position).upper()}, such as 1,1"
            ) from None
        self.check_point(values, what)
        return values

    def collect(self, *, steps: int, seed: int, **options: Any) -> Iterator[int | Collecting]:
        """Make the dataset, yielding the steps done so far, or more in words.

        Raises:
            ValueError: the task has no way to make its own data.
        """
        if self.hub_only:
            raise ValueError(
                f"the data of {self.name} is on the Minari hub alone, as {'+'.join(self.hub)}; {self.remedy}"
            )
        raise ValueError(f"task {self.name} has no collector; bring a Minari dataset: --dataset ID")


def numbers(values: ArrayLike) -> str:
    return ",".join(f"{v:g}" for v in np.asarray(values, dtype=float))
