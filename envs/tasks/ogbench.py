"""OGBench (Park et al. 2025): point mazes and an arm that moves cubes, with its own evaluation protocol.

Each environment has five fixed tasks, a start and a goal each, of which every episode is about one; an episode ends
in success or after a fixed number of steps, and success in its last step is what counts.

Shape letters: O observations, P positions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffplan.planner.episodes import Episodes
from diffplan.planner.spec import TrajectorySpec

from .arms import FIRST_ACTIONS, UNSMOOTHED
from .task import Array, Collecting, Task

TASKS, ROLLOUTS = 5, 50  # of an environment, and of each of these: 250 episodes are the protocol

Kind = Literal["navigate", "stitch", "play"]
Within = tuple[tuple[tuple[str, ...], float], ...]


@dataclass(frozen=True)
class OgbenchTask(Task):
    """An environment of OGBench with one kind of its data.

    Args:
        kind: of data: "navigate", "stitch" or "play".
        recorded_steps: of each recorded episode.
        within: observations that are at the goal if they are no farther than so much from it, in their own units:
            what success means.
    """

    kind: Kind = "navigate"
    recorded_steps: int = 1000
    within: Within = ()

    @property
    def published_name(self) -> str:
        """Of its data, as OGBench and published tables have it, without a version."""
        return self.name if self.name.endswith(self.kind) else f"{self.name}-{self.kind}"

    def environment(self, *, render_mode: str | None = None) -> Any:
        """A fresh environment.

        Raises:
            ValueError: OGBench is not installed.
        """
        from ..ogbench_scene import make_environment, need_ogbench

        need_ogbench(self.name)
        return make_environment(str(self.make), **({"width": 480, "height": 480} if render_mode else {}))

    def seeds(self, seed: int, episodes: int) -> list[int]:
        """Seeds that take the five tasks in turn: episode i is about task 1 + i % 5."""
        return [self._seed(seed, i) for i in range(episodes)]

    @staticmethod
    def task_number(seed: int | np.random.Generator) -> int:
        """Which of the five tasks, 1 to 5, the episode of a seed is about."""
        return 1 + int(np.random.default_rng(seed).integers(TASKS))

    def reset(
        self, env: Any, rng: np.random.Generator, *, start: ArrayLike | None = None, goal: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        from ..ogbench_scene import begin

        number = self.task_number(rng)
        observation, info = begin(env, int(rng.integers(2**31)), task_id=number)
        target = np.asarray(info["goal"], dtype=float)[self.spec.position_indices]
        return self.place(env, np.asarray(observation, dtype=float), target, start, goal)

    def place(
        self, env: Any, observation: Array, target: Array, start: ArrayLike | None, goal: ArrayLike | None
    ) -> tuple[Array, Array]:
        """Observation (O,) and goal (P,) of an episode that has begun, after what a user chose of them.

        Raises:
            ValueError: a start is chosen, and the environment knows no other than its own.
        """
        from ..ogbench_scene import aim

        if start is not None:
            raise ValueError(f"task {self.name} has OGBench's {TASKS} starts and no others; leave --start out")
        if goal is not None:
            target = np.asarray(goal, dtype=float)
            aim(env, dict(zip(self.spec.position, target.tolist(), strict=True)))
        return observation, target

    def rewards(self, episodes: Episodes) -> NDArray[np.float32] | None:
        """None: the data knows no goal."""
        return None

    def reached(self, observations: ArrayLike, goal: ArrayLike) -> NDArray[np.bool_]:
        """Whether observations (..., O) are at the goal (P,), each of its parts within its own distance."""
        seen, wanted = np.asarray(observations), dict(zip(self.spec.position, np.asarray(goal), strict=True))
        there = np.ones(seen.shape[:-1], dtype=bool)
        for names, distance in self.within:
            columns = [self.spec.observation_names.index(n) for n in names]
            there &= np.linalg.norm(seen[..., columns] - [wanted[n] for n in names], axis=-1) <= distance
        return there

    def collect(self, *, steps: int, seed: int, **options: Any) -> Iterator[int | Collecting]:
        """Download the package's own data, or record its oracles here; see `envs.ogbench_data`."""
        from ..ogbench_data import collect_ogbench

        yield from collect_ogbench(self, steps=steps, seed=seed, **options)

    def _seed(self, seed: int, index: int) -> int:
        tried = (int(np.random.SeedSequence([seed, 2026, index, n]).generate_state(1)[0]) for n in itertools.count())
        return next(s for s in tried if self.task_number(s) == 1 + index % TASKS)


@dataclass(frozen=True)
class PointTask(OgbenchTask):
    """A point in a maze, moved by up to 0.2 per axis and step; walls stop it."""

    def place(
        self, env: Any, observation: Array, target: Array, start: ArrayLike | None, goal: ArrayLike | None
    ) -> tuple[Array, Array]:
        if start is not None:
            env.set_xy(np.asarray(start, dtype=float))
            observation = np.asarray(env.get_ob(), dtype=float)
        if goal is not None:
            target = np.asarray(goal, dtype=float)
            env.set_goal(goal_xy=target)
        return observation, target


# ---------------------------------------------------------------------- which tasks there are

ARM = (
    *(f"joint{i}" for i in range(1, 7)),
    *(f"w_joint{i}" for i in range(1, 7)),
    *("hand_x", "hand_y", "hand_z", "cos_hand", "sin_hand", "closed", "contact"),
)
"""The arm's own observations: angles and rates of its joints, and its hand, which is where cubes are measured from."""
CUBE = ("x", "y", "z", "qw", "qx", "qy", "qz", "cos", "sin")
SWITCHES = (
    *(f"{name}_{what}" for name in ("button1", "button2") for what in ("locks", "frees", "travel", "rate")),
    *("drawer", "drawer_rate", "window", "window_rate"),
)
"""The scene's: which state each button is in, of two, how far it is pressed, and how far drawer and window are open."""

LONGEST_STEPS = 500  # of a plan in a maze; what is farther is reached by way of stops
ONE_THING: dict[str, Any] = {"cut_at_rests": (0.05, 10), "stays_within": 0.2}
"""Of data in which one thing is moved at a time, for goals that one motion reaches; a unit is 10 cm."""

CELL_STEPS = 25  # that the data's point takes from one cell's middle to the next's, which is 4 units away


def _cube(number: int, *parts: str) -> tuple[str, ...]:
    return tuple(f"cube{number}_{part}" for part in parts or CUBE)


def ogbench_tasks() -> dict[str, Task]:
    """Mazes with two kinds of data, and the arm's scenes."""
    made: list[Task] = [_maze(size, kind) for size in MAZES for kind in ("navigate", "stitch")]
    near: Within = ((_cube(1, "x", "y", "z"), 0.4),)  # a unit of a cube's place is 10 cm
    also: Within = ((_cube(2, "x", "y", "z"), 0.4),)
    switches: Within = ((("button1_frees",), 0.5), (("button2_frees",), 0.5), (("drawer",), 0.72), (("window",), 0.6))
    cubes = (*_cube(1), *_cube(2))
    made += [
        _scene("cube-single", _cube(1), near, stride=2, horizon=48, episode_steps=200, **ONE_THING),
        _scene("cube-double", cubes, near + also, stride=4, horizon=64, episode_steps=500),
        _scene("scene", (*_cube(1), *SWITCHES), near + switches, stride=5, horizon=64, episode_steps=750),
    ]
    return {task.name: task for task in made}


MAZES: dict[str, dict[str, Any]] = {
    "medium": {"cells": 11, "minutes": 10.0},
    "large": {"cells": 19, "minutes": 15.0},
    "giant": {"cells": 31, "minutes": 20.0},
}
"""Of each maze the cells of its longest route, and what its size asks for."""


def _maze(size: str, kind: Kind) -> PointTask:
    known, stitch = MAZES[size], kind == "stitch"
    tokens = 32 if stitch else 40
    # An episode of pieces goes four cells and stays.
    steps = 160 if stitch else min(CELL_STEPS * (known["cells"] + 1), LONGEST_STEPS)
    return PointTask(
        name=f"pointmaze-{size}-{kind}",
        make=f"pointmaze-{size}-v0",
        dataset=f"diffplan/ogbench/pointmaze-{size}-{kind}-v0",
        spec=TrajectorySpec(("dx", "dy"), ("x", "y"), ("x", "y"), dt_seconds=0.1, stride=math.ceil(steps / tokens)),
        horizon=tokens,
        episode_steps=1000,
        minutes=known["minutes"],
        replan_every=100,  # the point goes where it is told: plans hold
        gains=(5.0, 0.0),  # an action of 1 goes 0.2
        sampling={"select": "fastest"},
        collect_minutes=1.0,
        kind=kind,
        recorded_steps=200 if stitch else 2000 if size == "giant" else 1000,
        within=((("x", "y"), 1.0),),
    )


def _scene(
    name: str, things: Sequence[str], within: Within, *, stride: int, horizon: int, **settings: Any
) -> OgbenchTask:
    """An arm and things on a table; the goal is about the observations that `within` names."""
    goal = tuple(itertools.chain.from_iterable(names for names, _ in within))
    columns = (*ARM, *things)
    rates = tuple(n for n in columns if n.startswith("w_") or n.endswith("_rate"))
    return OgbenchTask(
        name=name,
        make=f"{name}-v0",
        dataset=f"diffplan/ogbench/{name}-play-v0",
        spec=TrajectorySpec(
            ("dx", "dy", "dz", "dyaw", "dclosed"), columns, goal, dt_seconds=0.05, stride=stride, rates=rates
        ),
        horizon=horizon,
        minutes=40.0,
        replan_every=4,
        tolerance=-1.0,
        action_limit=1.0,
        follow_states=True,
        normalizer="gaussian",
        octaves=1,
        anchored=True,
        training=FIRST_ACTIONS,
        sampling=UNSMOOTHED,
        collect_steps=300_000,
        collect_minutes=8.0,
        together=25,
        kind="play",
        within=within,
        **settings,
    )
