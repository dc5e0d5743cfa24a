"""How the arm's wishes are measured: obstacles that are where they have to be, and what counts as kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffplan.benchmarks import arm_wishes
from diffplan.benchmarks.arm_wishes import BETWEEN, ROOM, Row, TakenAway, again, obstruct, placed, touches, ways
from diffplan.benchmarks.metrics import wilson
from diffplan.envs.experts import EXPERTS
from diffplan.envs.tasks import ArmTask, find_task
from diffplan.planner.execution import Rollout


@pytest.fixture(scope="module")
def task() -> ArmTask:
    found = find_task("fetch-pick-and-place")
    assert isinstance(found, ArmTask)
    return found


def states_of(task: ArmTask, grip: np.ndarray, thing: np.ndarray) -> np.ndarray:
    """Observations (T + 1, O) with places (T + 1, 3) of gripper and object, all else zero."""
    states = np.zeros((len(grip), len(task.spec.observation_names)), np.float32)
    position, gripper = task.spec.body_indices
    states[:, position], states[:, gripper] = thing, grip
    return states


def line(a: tuple[float, ...], b: tuple[float, ...], steps: int = 10) -> np.ndarray:
    return np.linspace(a, b, steps + 1)


def executed(task: ArmTask, states: np.ndarray, goal: tuple[float, ...]) -> Rollout:
    steps = len(states) - 1
    return Rollout(np.array(goal), states, np.zeros((steps, 4)), np.zeros(steps), (0,), ())


def test_ways_go_through_every_step_and_straight_between(task):
    grip, thing = line((1.3, 0.7, 0.5), (1.4, 0.8, 0.6)), line((1.2, 0.6, 0.425), (1.2, 0.6, 0.625))
    found = ways(task, states_of(task, grip, thing))
    assert found.shape == (2, 10 * BETWEEN + 1, 3)
    for way, points in zip(found, (thing, grip), strict=True):
        np.testing.assert_allclose(way[::BETWEEN], points, atol=1e-6)
        np.testing.assert_allclose(np.diff(way, axis=0), np.diff(way, axis=0)[:1].repeat(10 * BETWEEN, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "touched"),
    [
        ("1.35,0.75,0.55,0.02", True),  # on the gripper's way, between two steps
        ("1.2,0.6,0.5,0.03", True),  # on the object's
        ("1.35,0.75,0.65,0.04", False),
        ("1.35,0.75,0.55,0.02,0.02,0.02", True),
        ("1.2,0.8,0.5,0.1,0.1,0.1", False),
    ],
)
def test_touching_is_about_everything_that_moves_and_between_steps(task, words, touched):
    coarse = states_of(
        task,
        line((1.3, 0.7, 0.5), (1.4, 0.8, 0.6), steps=2)[[0, 2]],
        line((1.2, 0.6, 0.425), (1.2, 0.6, 0.625), steps=2)[[0, 2]],
    )
    assert touches(task, coarse, placed(words)) == touched


def test_an_obstacle_is_on_the_way_and_leaves_room(task):
    """The block is carried up and across; what stands at its start, at its goal and above it stays free."""
    up, across = line((1.2, 0.6, 0.425), (1.2, 0.6, 0.6)), line((1.2, 0.6, 0.6), (1.5, 0.9, 0.6))
    thing = np.concatenate([np.repeat(up[:1], 10, 0), up, across[1:]])
    grip = np.concatenate([line((1.3, 0.75, 0.5), (1.2, 0.6, 0.425), 9), up, across[1:]])
    rollout = executed(task, states_of(task, grip, thing), (1.5, 0.9, 0.6))
    for seed in range(20):
        words = obstruct(task, rollout, np.random.default_rng(seed))
        assert words is not None
        places = placed(words)
        assert touches(task, rollout.states, places)
        above = [thing[0] + (0, 0, height) for height in (0.04, 0.08)]
        free = torch.from_numpy(np.array([grip[0], thing[0], *above, (1.5, 0.9, 0.6)]))
        assert places[0].clearance(free).min() >= ROOM - 1e-4


def test_there_is_no_room_on_a_short_way(task):
    short = states_of(task, line((1.3, 0.7, 0.5), (1.32, 0.7, 0.5)), line((1.3, 0.7, 0.45), (1.32, 0.7, 0.45)))
    assert obstruct(task, executed(task, short, (1.32, 0.7, 0.45)), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("heights", "lifted_again"),
    [
        ([0.425, 0.5, 0.6], False),
        ([0.425, 0.5, 0.425, 0.43], False),
        ([0.425, 0.5, 0.425, 0.55], True),
        ([0.425, 0.425, 0.425], False),
    ],
)
def test_lifted_again_is_two_lifts(task, heights, lifted_again):
    thing = np.array([(1.3, 0.7, h) for h in heights])
    assert again(task, states_of(task, thing, thing)) == lifted_again


def test_shares_of_a_row_and_their_intervals(task):
    row = Row.of("a wish", task, [(True, True), (True, False), (False, True), (True, True)], plain=1.0)
    assert (row.kept, row.reached, row.both, row.episodes) == (0.75, 0.75, 0.5, 4)
    record = row.record()
    assert record["both_ci95"] == [round(v, 4) for v in wilson(0.5, 4)]
    assert record["reached_without"] == 1.0
    header, shown = arm_wishes.wishes_rows({"rows": [record]})
    assert len(header) == len(shown)
    low, high = wilson(0.75, 4)
    assert shown[3] == f"75% ({low:.0%} to {high:.0%})"
    assert shown[-1] == "100%"


def test_a_block_is_taken_once_and_the_expert_brings_it_all_the_same(task):
    """The experts remember nothing, so they prove the disturbance: gone from the gripper, and lifted again."""
    goal = np.array([1.35, 0.75, 0.6])
    with TakenAway(task, 1, goal=goal) as simulators:
        seen, goals = simulators.reset([3])
        states = [seen[0]]
        for _ in range(arm_wishes.LONGER):
            action = EXPERTS["pick-and-place"](seen[0].astype(float), goals[0].astype(float))
            seen, *_ = simulators.step(action[None])
            states.append(seen[0])
        assert simulators.taken.all()
    found = np.array(states)
    assert again(task, found)
    assert task.reached(found[-1], goal)


def test_a_run_that_moves_no_arm_is_refused(run_folder):
    with pytest.raises(ValueError, match="about the Fetch arm"):
        list(arm_wishes.measure(str(run_folder), 1, seed=0))
