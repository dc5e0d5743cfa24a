"""What an arm's planner does about wishes that it was never trained for, executed in MuJoCo.

Obstacles: in each episode a ball or a block is placed where the same episode without a guide goes through, with the
gripper or with what it moves. Order: another place to pass first. Choice: two goals of which either will do. Region:
no goal, but a place to end in. Loss: the block is taken out of the gripper on its way, and lies on the table again.

Shape letters: T executed steps, O observations, A actions, P positions, M points that have a place, n of a way.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffplan.envs.control import executor_for
from diffplan.envs.simulators import Array, Simulators
from diffplan.envs.tasks import ArmTask
from diffplan.envs.tasks.arms import place_object
from diffplan.envs.wishes import feasible_for, obstacles, parse_place, parse_wishes, places_at
from diffplan.planner.execution import Rollout
from diffplan.planner.guides import Box, Disc, region
from diffplan.planner.pipeline import TrajectoryPlanner

from .metrics import wilson

BETWEEN = 4  # points looked at for each executed step
BALLS, BLOCKS = (0.02, 0.04), (0.04, 0.07)  # metres: radii of balls, sides of blocks
OFF_CENTRE = 0.5  # of an obstacle's half size, by which its middle may be beside the way
ROOM = 0.05  # metres from an obstacle's edge to where things start, to the goal, and to a grasp from above
APPROACH = 0.08  # metres above the object that a grasp begins at
LONGER = 100  # steps of episodes that ask for more than one movement
REGION, REGION_WEIGHT = 0.08, 100.0  # metres of its radius; weight of its guide
LIFTED = 0.46  # metres, height of a block's middle that is no longer on the table, where it is at 0.425
ON_TABLE = 0.425


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
) -> Iterator[tuple[int, str, Rollout]]:
    """Seeds of episodes, each with an obstacle in words and the episode without a guide that it is in the way of."""
    rng, found, tried = np.random.default_rng([seed, 4]), 0, 0
    while found < count:
        seeds = task.seeds(seed, tried + count)[tried:]
        tried += count
        for own, rollout in zip(seeds, episodes(planner, task, seeds), strict=True):
            words = obstruct(task, rollout, rng)
            if words is not None and found < count:
                found += 1
                yield own, words, rollout


def avoiding(
    planner: TrajectoryPlanner, task: ArmTask, count: int, *, seed: int, **options: Any
) -> Generator[str, None, Row]:
    """Episodes with an obstacle where they went without one: kept if nothing touched it."""
    came, plain = list[tuple[bool, bool]](), list[bool]()
    for own, words, free in obstructed(planner, task, count, seed=seed):
        keep = [*places_at(task, free.states[0]), free.goal.tolist()]
        guide = parse_wishes(task, planner, avoid=[words], keep=keep)
        (done,) = episodes(planner, task, [own], guide=guide, feasible=feasible_for(task, guide), **options)
        came.append((not touches(task, done.states, placed(words)), held(task, done)))
        plain.append(held(task, free))
        if len(came) % 10 == 0:
            yield f"{task.name}, {len(came)} obstacles: {Row.of('', task, came, float(np.mean(plain)))}"
    return Row.of("an obstacle on the way", task, came, float(np.mean(plain)))


# ------------------------------------------------------------------------------- order, choice, region, loss


def in_order(planner: TrajectoryPlanner, task: ArmTask, seeds: Sequence[int], others: Sequence[Array]) -> Row:
    """Another place first: kept if it was passed on the way."""
    came = []
    for own, via in zip(seeds, others, strict=True):
        (done,) = episodes(planner, task, [own], steps=LONGER, vias=[via.tolist()])
        gaps = np.linalg.norm(done.states[:, task.spec.position_indices] - via, axis=-1)
        came.append((bool(gaps.min() <= task.passed_within), held(task, done)))
    return Row.of("another place first", task, came)


def of_two(planner: TrajectoryPlanner, task: ArmTask, seeds: Sequence[int], others: Sequence[Array]) -> Row:
    """Either of two goals: kept if the one that was chosen is the nearer one in the air."""
    came = []
    for own, other in zip(seeds, others, strict=True):
        (done,) = episodes(planner, task, [own], or_goals=[other.tolist()])
        begun = done.states[0, task.spec.position_indices]
        goals = [goal_of(task, own), other]
        nearer = min(goals, key=lambda g: float(np.linalg.norm(g - begun)))
        came.append((bool(np.allclose(done.goal, nearer, atol=1e-4)), held(task, done)))
    return Row.of("the nearer of two goals", task, came)


def in_region(planner: TrajectoryPlanner, task: ArmTask, seeds: Sequence[int]) -> Row:
    """No goal, a region around where it would have been: kept and reached if the episode ends within."""
    came = []
    for own in seeds:
        middle = goal_of(task, own)
        x, y, z = middle.tolist()
        guide = REGION_WEIGHT * region(x, y, radius=REGION, z=z)
        (done,) = episodes(planner, task, [own], guide=guide, pin_goal=False, steps=LONGER)
        within = bool(np.linalg.norm(done.states[-1, task.spec.position_indices] - middle) <= REGION)
        came.append((within, within))
    return Row.of("a region instead of a goal", task, came)


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
                place_object(env, np.array([x, y, ON_TABLE]))
        return super().step(actions)


def after_loss(planner: TrajectoryPlanner, task: ArmTask, seeds: Sequence[int]) -> Row:
    """The block is lost on the way: kept if it was lifted again; only episodes in which it was lifted at all."""
    simulators = TakenAway(task, len(seeds))
    with simulators:
        executor = executor_for(planner, task, simulators, keep_plans=False)
        done = executor.run(steps=LONGER, seeds=seeds)
    came = [(again(task, r.states), held(task, r)) for r, was in zip(done, simulators.taken, strict=True) if was]
    return Row.of("the block is lost on the way", task, came)


def again(task: ArmTask, states: Array) -> bool:
    """Whether a block was lifted, lay on the table after that, and was lifted once more."""
    up = states[:, task.spec.position_indices[2]] > LIFTED
    return int((np.diff(up.astype(int)) == 1).sum()) > 1


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


def goal_of(task: ArmTask, seed: int) -> Array:
    """The goal (P,) of the episode of a seed."""
    with Simulators(task, 1) as simulators:
        return simulators.reset([seed])[1][0]


def measure(
    planner: TrajectoryPlanner, task: ArmTask, count: int, *, seed: int
) -> Generator[str, None, list[dict[str, Any]]]:
    """All rows of one planner, yielding lines to show: obstacles, and with an object everything else."""
    made = [(yield from _timed(avoiding(planner, task, count, seed=seed)))]
    if task.has_object:
        seeds, more = task.seeds(seed, count), task.seeds(seed, 2 * count)[count:]
        others = [goal_of(task, s) for s in more]
        for row in (
            lambda: in_order(planner, task, seeds, others),
            lambda: of_two(planner, task, seeds, others),
            lambda: in_region(planner, task, seeds),
            lambda: after_loss(planner, task, seeds),
        ):
            began = time.monotonic()
            made.append(row())
            yield f"{made[-1]} ({time.monotonic() - began:.0f} s)"
    return [row.record() for row in made]


def _timed(lines: Generator[str, None, Row]) -> Generator[str, None, Row]:
    began = time.monotonic()
    row = yield from lines
    yield f"{row} ({time.monotonic() - began:.0f} s)"
    return row


def wishes_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first): a row for each wish."""
    header = ["wish", "task", "episodes", "wish kept", "goal held at the end", "both", "goal held without the wish"]
    rows = []
    for row in report["rows"]:
        shares = [_share(row, name) for name in ("kept", "reached", "both")]
        without = row["reached_without"]
        rows.append(
            [row["wish"], row["task"], str(row["episodes"]), *shares, "" if without is None else f"{without:.0%}"]
        )
    return [header, *rows]


def _share(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_ci95"]
    return f"{row[name]:.0%} ({low:.0%} to {high:.0%})"
