"""What an arm's planner does about wishes that it was never trained for, executed in MuJoCo.

Obstacles: in each episode a ball or a block is placed where the same episode without a guide goes through, with the
gripper or with what it moves. Order: another place to pass first. Choice: two goals of which either will do. Region:
no goal, but a place to end in. Loss: the block is taken out of the gripper on its way, and lies on the table again.

Shape letters: T executed steps, O observations, A actions, P positions, M points that have a place, n of a way.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.control import executor_for
from diffplan.envs.experts import TABLE
from diffplan.envs.parallel import on_all_cores
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Array, Simulators
from diffplan.envs.tasks import ArmTask
from diffplan.envs.tasks.arms import place_object
from diffplan.envs.wishes import feasible_for, obstacles, parse_place, parse_wishes, places_at
from diffplan.planner.execution import Rollout
from diffplan.planner.guides import Box, Disc, region
from diffplan.planner.pipeline import TrajectoryPlanner

from .metrics import wilson
from .report import share_of
from .trained import setting

BETWEEN = 4  # points looked at for each executed step
BALLS, BLOCKS = (0.02, 0.04), (0.04, 0.07)  # metres: radii of balls, sides of blocks
OFF_CENTRE = 0.5  # of an obstacle's half size, by which its middle may be beside the way
ROOM = 0.05  # metres from an obstacle's edge to where things start, to the goal, and to a grasp from above
APPROACH = 0.08  # metres above the object that a grasp begins at
LONGER = 100  # steps of episodes that ask for more than one movement
REGION, REGION_WEIGHT = 0.08, 100.0  # metres of its radius; weight of its guide
LIFTED = 0.46  # metres, height of a block's middle that is no longer on the table
AIR = 0.05  # metres by which a goal in the air is higher than that, at least


@dataclass(frozen=True)
class Row:
    """One row: of how many episodes the wish came true, and of how many the goal was held at the end.

    Attributes:
        wish: in words.
        task: whose planner.
        episodes: N.
        kept: share in which the wish came true.
        reached: share in which the goal was held at the end.
        both: share in which both did.
        plain: share of the same episodes that held their own goal where nothing was wished for; None where that says
            nothing.
    """

    wish: str
    task: str
    episodes: int
    kept: float
    reached: float
    both: float
    plain: float | None

    @classmethod
    def of(cls, wish: str, task: ArmTask, came: Sequence[tuple[bool, bool]], plain: float | None = None) -> Row:
        """From (wish came true, goal held) of each episode."""
        kept, reached = (float(np.mean(each)) for each in zip(*came, strict=True))
        return cls(wish, task.name, len(came), kept, reached, float(np.mean([all(c) for c in came])), plain)

    def record(self) -> dict[str, Any]:
        """As JSON, with Wilson's 95% intervals."""
        shares = {name: getattr(self, name) for name in ("kept", "reached", "both")}
        bounds = {f"{name}_ci95": [round(v, 4) for v in wilson(s, self.episodes)] for name, s in shares.items()}
        named = {"wish": self.wish, "task": self.task, "episodes": self.episodes}
        return named | shares | bounds | {"reached_without": self.plain}


# ------------------------------------------------------------------------------------------------ obstacles


def ways(task: ArmTask, states: Array) -> NDArray[np.float64]:
    """Where the position and the bodies went (M, n, P), between the steps (T + 1, O) too."""
    at = np.arange((len(states) - 1) * BETWEEN + 1) / BETWEEN
    steps = np.arange(len(states))
    return np.array(
        [
            np.stack([np.interp(at, steps, column) for column in states[:, body].T], axis=-1)
            for body in task.spec.body_indices
        ]
    )


def touches(task: ArmTask, states: Array, places: Sequence[Disc | Box]) -> bool:
    """Whether anything that moves came into one of the places."""
    points = torch.from_numpy(ways(task, states))
    return any(float(place.clearance(points).min()) < task.agent_radius for place in places)


def obstruct(task: ArmTask, rollout: Rollout, rng: np.random.Generator) -> str | None:
    """An obstacle on the way of an episode, in words for `--avoid`; None where there is no room for one.

    It leaves `ROOM` to where everything started and to the goal, and lets the gripper come to the object from above.
    """
    everything = ways(task, rollout.states)
    begun = everything[:, 0]
    grasp = [begun[0] + (0, 0, share * APPROACH) for share in (0.5, 1.0) if task.has_object]
    free = torch.from_numpy(np.array([*begun, *grasp, rollout.goal]))
    for point in rng.permutation(everything.reshape(-1, 3)):
        sizes = rng.uniform(*BALLS, 1) if rng.uniform() < 0.5 else rng.uniform(*BLOCKS, 3)
        half = sizes.min() / (1 if len(sizes) == 1 else 2)
        middle = point + OFF_CENTRE * half * rng.uniform(-1, 1, 3) / np.sqrt(3)
        words = ",".join(f"{v:.4f}" for v in (*middle, *sizes))
        places = placed(words)
        if float(places[0].clearance(free).min()) >= ROOM and touches(task, rollout.states, places):
            return words
    return None


def placed(words: str) -> list[Disc | Box]:
    """The obstacle that `--avoid` makes of words."""
    return obstacles(parse_place(words, axes=3))


def obstructed(
    planner: TrajectoryPlanner, task: ArmTask, count: int, *, seed: int
) -> Generator[str, None, list[tuple[int, str, bool]]]:
    """Seeds of episodes, each with an obstacle in words, and whether the goal is held where it is not there."""
    rng, found, tried = np.random.default_rng([seed, 4]), list[tuple[int, str, bool]](), 0
    while len(found) < count:
        seeds = task.seeds(seed, tried + count)[tried:]
        tried += count
        for own, rollout in zip(seeds, episodes(planner, task, seeds), strict=True):
            words = obstruct(task, rollout, rng)
            found += [(own, words, held(task, rollout))] if words is not None else []
        yield f"{task.name}: room for an obstacle in {len(found)} of {tried} episodes"
    return found[:count]


# ------------------------------------------------------------------------------------------------- episodes

Came = tuple[bool, bool]
"""Whether a wish came true, and whether the goal was held at the end."""


def around(planner: TrajectoryPlanner, task: ArmTask, seed: int, words: str) -> Came:
    """An obstacle, as `--avoid` takes it: kept if nothing that moves came into it."""
    with Simulators(task, 1) as simulators:
        (begun,), (goal,) = simulators.reset([seed])
    guide = parse_wishes(task, planner, avoid=[words], keep=[*places_at(task, begun), goal.tolist()])
    (done,) = episodes(planner, task, [seed], guide=guide, feasible=feasible_for(task, guide))
    return not touches(task, done.states, placed(words)), held(task, done)


def in_order(planner: TrajectoryPlanner, task: ArmTask, seed: int, other: Sequence[float]) -> Came:
    """Another place first: kept if it was passed on the way."""
    (done,) = episodes(planner, task, [seed], steps=LONGER, vias=[other])
    gaps = np.linalg.norm(done.states[:, task.spec.position_indices] - other, axis=-1)
    return bool(gaps.min() <= task.passed_within), held(task, done)


def of_two(planner: TrajectoryPlanner, task: ArmTask, seed: int, other: Sequence[float]) -> Came:
    """Either of two goals: kept if the one that was chosen is the nearer one in the air."""
    (done,) = episodes(planner, task, [seed], or_goals=[other])
    begun = done.states[0, task.spec.position_indices]
    nearer = min((*goals_of(task, [seed]), np.array(other)), key=lambda g: float(np.linalg.norm(g - begun)))
    return bool(np.allclose(done.goal, nearer, atol=1e-4)), held(task, done)


def in_region(planner: TrajectoryPlanner, task: ArmTask, seed: int, other: Sequence[float]) -> Came:
    """No goal, but a region around another place: kept, and as good as held, if the episode ends within."""
    x, y, z = other
    guide = REGION_WEIGHT * region(x, y, radius=REGION, z=z)
    (done,) = episodes(planner, task, [seed], guide=guide, pin_goal=False)
    within = bool(np.linalg.norm(done.states[-1, task.spec.position_indices] - other) <= REGION)
    return within, within


def after_loss(planner: TrajectoryPlanner, task: ArmTask, seed: int, other: Sequence[float]) -> Came:
    """The block is lost on the way to another place, but in the air: kept if it was lifted again."""
    x, y, z = other
    with TakenAway(task, 1, goal=(x, y, max(z, LIFTED + AIR))) as simulators:
        executor = executor_for(planner, task, simulators, keep_plans=False)
        (done,) = executor.run(steps=LONGER, seeds=[seed])
    return again(task, done.states), held(task, done)


class TakenAway(Simulators):
    """The arm, out of whose gripper each block is taken once, on its way: it lies on the table again, beneath."""

    def reset(self, seeds: Sequence[int]) -> tuple[Array, Array]:
        self.taken = np.zeros(len(seeds), dtype=bool)
        return super().reset(seeds)

    def step(self, actions: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
        columns = self.task.spec.position_indices
        for i, env in enumerate(self.envs):
            x, y, z = self._observations[i, columns]
            if z > LIFTED and not self.taken[i]:
                self.taken[i] = True
                place_object(env, np.array([x, y, TABLE]))
        return super().step(actions)


def again(task: ArmTask, states: Array) -> bool:
    """Whether a block was lifted, lay on the table after that, and was lifted once more."""
    up = states[:, task.spec.position_indices[2]] > LIFTED
    return int((np.diff(up.astype(int)) == 1).sum()) > 1


WISHES: dict[str, tuple[str, Callable[..., Came]]] = {
    "around": ("an obstacle on the way", around),
    "order": ("another place first", in_order),
    "two": ("the nearer of two goals", of_two),
    "region": ("a region instead of a goal", in_region),
    "loss": ("the block is lost on the way", after_loss),
}
"""Rows by name: in words, and what one episode of them is."""


# ------------------------------------------------------------------------------------------------- together


def episodes(
    planner: TrajectoryPlanner, task: ArmTask, seeds: Sequence[int], *, steps: int | None = None, **options: Any
) -> list[Rollout]:
    """Episodes in MuJoCo side by side, replanning as the task does."""
    with Simulators(task, len(seeds)) as simulators:
        executor = executor_for(planner, task, simulators, keep_plans=False, **options)
        return executor.run(steps=steps or task.episode_steps, seeds=seeds)


def held(task: ArmTask, rollout: Rollout) -> bool:
    """Whether the goal that was pursued is held at the end of an episode."""
    return bool(task.reached(rollout.states[-1], rollout.goal))


def goals_of(task: ArmTask, seeds: Sequence[int]) -> Array:
    """The goals (n, P) of the episodes of seeds."""
    with Simulators(task, len(seeds)) as simulators:
        return simulators.reset(seeds)[1]


def measure(run: str, count: int, *, seed: int) -> Generator[str, None, dict[str, Any]]:
    """Report on one planner, measured on all cores, yielding lines to show.

    Args:
        run: whose planner; of one that moves no object only obstacles are asked.
        count: episodes of each row.
        seed: of them.
    """
    planner, task = _loaded(run)
    made, jobs = list[dict[str, Any]](), list[tuple[str, str, int, Any]]()
    seeds = task.seeds(seed, 2 * count)
    others = goals_of(task, seeds[count:]).tolist() if task.has_object else []
    for name in WISHES if task.has_object else ("around",):
        plain = None
        if name == "around":
            scenes = yield from obstructed(planner, task, count, seed=seed)
            jobs = [(run, name, own, words) for own, words, _ in scenes]
            plain = float(np.mean([reached for *_, reached in scenes]))
        else:
            jobs = [(run, name, own, other) for own, other in zip(seeds[:count], others, strict=True)]
        began = time.monotonic()
        row = Row.of(WISHES[name][0], task, list(on_all_cores(_one, jobs)), plain)
        made.append(row.record())
        yield f"{row} ({time.monotonic() - began:.0f} s)"
    return setting(planner, task, seed=seed, episodes=count) | {"rows": made}


@functools.lru_cache(maxsize=1)
def _loaded(run: str) -> tuple[TrajectoryPlanner, ArmTask]:
    planner, task = load_planner(run)
    if not isinstance(task, ArmTask):
        raise ValueError(f"benchmark 'arms' is about the Fetch arm; {run} was trained for {task.name}")
    return planner, task


def _one(job: tuple[str, str, int, Any]) -> Came:
    """One episode: the work of one process, which takes one core."""
    run, name, seed, more = job
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return WISHES[name][1](*_loaded(run), seed, more)


def wishes_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first): a row for each wish."""
    header = ["wish", "task", "episodes", "wish kept", "goal held at the end", "both", "goal held without the wish"]
    rows = []
    for row in report["rows"]:
        shares = [share_of(row, name, f"{name}_ci95") for name in ("kept", "reached", "both")]
        without = row["reached_without"]
        rows.append(
            [row["wish"], row["task"], str(row["episodes"]), *shares, "" if without is None else f"{without:.0%}"]
        )
    return [header, *rows]
