"""Places to pass in order on the way to a goal."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from diffplan.planner.controllers import RacingController
from diffplan.planner.execution import Executor
from diffplan.planner.racing import courses

DT = 0.1


class Free:
    """A force moves a mass in the open from rest."""

    def __init__(self, goal=(1.0, 0.0)) -> None:
        self.goal = goal

    def reset(self, seeds):
        self.states = np.zeros((len(seeds), 4), np.float32)
        return self.states.copy(), np.tile(np.float32(self.goal), (len(seeds), 1))

    def step(self, actions):
        velocity = self.states[:, 2:] + DT * actions
        self.states = np.hstack([self.states[:, :2] + DT * velocity, velocity]).astype(np.float32)
        return self.states.copy(), np.zeros(len(actions), np.float32), np.zeros(len(actions), bool)


@pytest.fixture
def run(hesitant, make_plant):
    plant = make_plant(dt=DT, size=20.0, voxel=0.2)
    plant.origin[:] -= 10

    def run(goal=(1.0, 0.0), steps=150, seeds=(0, 1), **options):
        hasty = {
            "controller": RacingController(plant, (0, 1), (2, 3)),
            "hasten": functools.partial(courses, plant),
        }
        settings = {"replan_every": 10, "passed_within": 0.1}
        return Executor(hesitant, Free(goal), **(hasty | settings | options)).run(steps=steps, seeds=seeds)

    return run


def nearest_to(states, place) -> tuple[int, float]:
    """When a way (T, 4) is nearest to a place (2,), and how near that is."""
    gaps = np.linalg.norm(states[:, :2] - np.asarray(place), axis=1)
    return int(gaps.argmin()), float(gaps.min())


class TestVias:
    PLACES = ((0.8, 0.8), (-0.6, 0.4))

    @pytest.mark.parametrize("interval", [3, 10, 10**6])
    def test_they_are_passed_in_order_and_the_goal_is_last(self, run, interval):
        for order in (self.PLACES, self.PLACES[::-1]):
            for rollout in run(vias=order, replan_every=interval):
                (first, near), (second, near_too) = (nearest_to(rollout.states, place) for place in order)
                assert first < second
                assert max(near, near_too) <= 0.1
                assert np.linalg.norm(rollout.states[-1, :2] - (1.0, 0.0)) < 0.05

    def test_every_plan_leads_to_the_next_place(self, run):
        (rollout, _) = run(vias=self.PLACES)
        ends = [plan.positions[0, -1] for plan in rollout.plans]
        told = [
            int(np.argmin([np.linalg.norm(end - np.float32(p)) for p in (*self.PLACES, (1.0, 0.0))])) for end in ends
        ]
        assert told == sorted(told)
        assert set(told) == {0, 1, 2}
        for end, place in zip(ends, told, strict=True):
            np.testing.assert_allclose(end, (*self.PLACES, (1.0, 0.0))[place], atol=1e-6)

    def test_what_was_passed_is_replanned_at_once(self, run):
        (rollout, _) = run(vias=self.PLACES, replan_every=10**6)
        first = int(np.flatnonzero(np.linalg.norm(rollout.states[:, :2] - self.PLACES[0], axis=1) <= 0.1)[0])
        assert rollout.plan_steps[:2] == (0, first)

    def test_side_by_side_equals_alone(self, run):
        together = run(vias=self.PLACES, seeds=(4, 5), steps=60)
        for i, seed in enumerate((4, 5)):
            (alone,) = run(vias=self.PLACES, seeds=(seed,), steps=60)
            np.testing.assert_allclose(together[i].states, alone.states, atol=1e-4)
            assert together[i].plan_steps == alone.plan_steps

    def test_without_any_nothing_changes(self, run):
        for with_none, plain in zip(run(vias=()), run(), strict=True):
            np.testing.assert_array_equal(with_none.states, plain.states)


@pytest.mark.parametrize("wish", [{"vias": [(1.0, 1.0)]}, {"or_goals": [(1.0, 1.0)]}])
def test_they_need_a_pinned_goal(run, wish):
    with pytest.raises(ValueError, match="need a pinned goal"):
        run(pin_goal=False, **wish)
