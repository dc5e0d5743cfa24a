"""Goals beyond a plan's reach: the executor plans to a stop on the way first, and to the goal once it is near."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from diffplan.planner.controllers import RacingController
from diffplan.planner.execution import Executor
from diffplan.planner.plant import Plant
from diffplan.planner.racing import courses

DT, REACH = 0.1, 1.6
"""Seconds of a step; position units that a plan reaches: 8 tokens of 2 steps at the plants' pace of 1."""


SETTINGS = {"replan_every": 20, "tolerance": np.inf, "select": "fastest", "candidates": 8}


class Far:
    """A force moves a mass from rest to a goal around the corner of an L."""

    START, GOAL = (-1.0, 1.5), (1.5, -1.0)

    def reset(self, seeds):
        self.states = np.array([[*self.START, 0, 0]] * len(seeds), np.float32)
        return self.states.copy(), np.array([self.GOAL] * len(seeds), np.float32)

    def step(self, actions):
        velocity = self.states[:, 2:] + DT * actions
        self.states = np.hstack([self.states[:, :2] + DT * velocity, velocity]).astype(np.float32)
        return self.states.copy(), np.zeros(len(actions), np.float32), np.zeros(len(actions), bool)


@pytest.fixture(scope="module")
def planner(make_planner, make_plant):
    """Untrained, in a space of two corridors that meet at (-1, -1)."""
    return make_planner(plant=placed(make_plant, visited=lambda c: (c < 1.6).any(-1)))


def placed(make_plant, **options) -> Plant:
    """In the square from -1.8 to 2.2, which is about where the untrained network plans."""
    plant = make_plant(dt=DT, size=4.0, voxel=0.1, **options)
    plant.origin[:] -= 1.8
    return plant


@pytest.fixture(scope="module")
def run(planner):
    plant = planner.plant

    def run(steps=220, **options):
        hasty = {"controller": RacingController(plant, (0, 1), (2, 3)), "hasten": functools.partial(courses, plant)}
        executor = Executor(planner, Far(), **(hasty | SETTINGS | options))
        (rollout,) = executor.run(steps=steps, seeds=[3])
        return rollout, [plan.positions[0, -1] for plan in rollout.plans]

    return run


@pytest.fixture(scope="module", params=[5, 20, 10**6])
def interval(request):
    """Plans are at most 14 steps long: some are looked at again on their way, some not before they are over."""
    return request.param


@pytest.fixture(scope="module")
def flown(run, interval):
    return run(replan_every=interval)


class TestExecution:
    def test_the_first_plan_ends_at_a_stop_and_the_last_at_the_goal(self, planner, flown):
        rollout, ends = flown
        stops = planner.stops(rollout.states[0].tolist(), Far.GOAL)
        assert len(stops) > 2
        np.testing.assert_allclose(ends[0], stops[0], atol=1e-6)
        np.testing.assert_array_equal(ends[-1], np.float32(Far.GOAL))

    def test_every_plan_ends_at_the_next_stop_from_where_it_began(self, planner, flown):
        rollout, ends = flown
        for step, end in zip(rollout.plan_steps, ends, strict=True):
            aim = planner.stops(rollout.states[step].tolist(), rollout.goal.tolist())[0]
            np.testing.assert_allclose(end, aim, atol=1e-6)

    def test_plans_to_stops_are_never_kept_and_the_one_to_the_goal_is(self, flown, interval):
        """However well they were followed: the tolerance has no bound."""
        rollout, ends = flown
        at_goal = [bool((end == np.float32(Far.GOAL)).all()) for end in ends]
        assert sorted(at_goal) == at_goal
        assert at_goal.index(True) >= 3
        last = rollout.plan_steps[-1]
        assert set(range(0, last, interval)) <= set(rollout.plan_steps)
        assert last + rollout.plans[-1].steps <= 160

    def test_who_stands_at_a_stop_plans_at_once(self, flown, interval):
        """A plan is in force until the next turn or until it is over, whichever is sooner."""
        rollout, _ = flown
        steps = rollout.plan_steps
        for step, following, plan in zip(steps, steps[1:], rollout.plans, strict=False):
            over = step + plan.steps
            turn = interval * (step // interval + 1)
            assert following == turn < over or over - plan.spec.stride < following <= min(over, turn)

    def test_it_goes_around_the_corner_and_is_there(self, flown):
        rollout, _ = flown
        assert np.linalg.norm(rollout.states[-1, :2] - Far.GOAL) < 0.1
        assert np.linalg.norm(rollout.states[:, :2] + 1.0, axis=1).min() < 1.2  # the straight way passes 1.8 from it

    @pytest.mark.parametrize("without", [{"pin_goal": False}, {"legs": 2}])
    def test_goals_that_are_not_pinned_and_plans_of_several_legs_have_no_stops(self, run, without):
        _, ends = run(steps=1, **without)
        free = not without.get("pin_goal", True)
        assert np.allclose(ends[0], Far.GOAL, atol=1e-5) != free


class TestPlanner:
    START = (*Far.START, 0.0, 0.0)

    def test_without_a_plant_only_the_goal(self, make_planner):
        assert make_planner().stops(self.START, Far.GOAL) == [Far.GOAL]

    def test_within_reach_only_the_goal(self, planner):
        assert planner.stops(self.START, (-1.0, 1.5 - 0.8 * REACH)) == [[-1.0, 1.5 - 0.8 * REACH]]

    def test_another_plant_is_another_map(self, make_planner, make_plant):
        made = make_planner(plant=placed(make_plant, visited=lambda c: (c < 1.6).any(-1)))
        around = np.array(made.stops(self.START, Far.GOAL))
        made.register_modules(plant=placed(make_plant))
        across = np.array(made.stops(self.START, Far.GOAL))
        assert len(across) < len(around)
        assert np.abs(across.sum(1) - 0.5).max() < 0.3  # on the straight way
