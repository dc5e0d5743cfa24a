"""Wishes that no planner was trained for, executed with those that ship: an order, a choice, a region, a loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.benchmarks.arm_wishes import WISHES, episodes, goals_of, obstruct
from diffplan.envs.requests import Request, answer, settle
from diffplan.envs.rollouts import Ride, describe, execute
from diffplan.envs.runs import ASSETS, SHIPPED, load_planner
from diffplan.envs.simulators import Simulators
from diffplan.planner.batch import Batch
from diffplan.planner.guides import region
from diffplan.planner.options import Sampling
from diffplan.planner.steering import Wish

START, NEAR, FAR, CORNER = "cell:3,1", "cell:1,1", "cell:1,2", "cell:1,3"
"""The umaze is a U on its side: from (3, 1) along its way lie (3, 3), (1, 3), (1, 2) and (1, 1)."""


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def shipped():
    return load_planner(SHIPPED, device="cpu", task="multi2d-umaze")


@pytest.fixture(scope="module")
def ride(shipped):
    planner, task = shipped

    def ride(**words):
        *_, result = execute(planner, Ride.parse(task, planner, **words))
        return result

    return ride


def when_near(result, place, within=0.25) -> int:
    gaps = np.linalg.norm(result.rollout.states[:, :2] - np.asarray(place), axis=1)
    assert gaps.min() <= within + 1e-6
    return int(np.flatnonzero(gaps <= within)[0])


class TestOrder:
    def test_back_and_forth_is_done_in_order(self, ride, shipped):
        """First to the end of the U, then back to its bend, though the bend lies on the way."""
        _, task = shipped
        end, bend = (task.maze.center(c) for c in ((1, 1), (2, 3)))
        result = ride(start=START, goal="cell:2,3", via=["cell:1,1"])
        assert result.reached_at is not None
        there = when_near(result, end)
        back = [np.hypot(*(s[:2] - bend)) for s in result.rollout.states[there:]]
        assert back[-1] < 0.5

    def test_a_via_that_cannot_be_is_refused(self, ride):
        with pytest.raises(ValueError, match="via"):
            ride(start=START, goal="cell:1,1", via=["cell:2,2"])

    def test_without_a_goal_there_is_no_order(self, ride):
        with pytest.raises(ValueError, match="leave --no-goal out"):
            ride(goal="cell:1,1", via=["cell:1,2"], pin_goal=False, guides=["goal:x=1,y=1@1"])


class TestChoice:
    @pytest.mark.parametrize(("goal", "other"), [("cell:1,1", "cell:3,3"), ("cell:3,3", "cell:1,1")])
    def test_the_nearer_along_the_way_is_chosen(self, shipped, ride, goal, other):
        """As the crow flies (1, 1) is as near as (3, 3); around the wall it is three times as far."""
        planner, task = shipped
        nearer = task.maze.center((3, 3))
        request = Request.parse(task, planner, start=START, goal=goal, or_goal=[other])
        settled = settle(planner, request)
        np.testing.assert_allclose(settled.goal, nearer)
        np.testing.assert_allclose(answer(planner, settled).positions[0, -1], nearer, atol=1e-5)
        result = ride(start=START, goal=goal, or_goal=[other])
        np.testing.assert_allclose(result.rollout.goal, nearer, atol=1e-6)
        assert result.reached_at is not None

    def test_one_goal_is_settled_already(self, shipped):
        planner, task = shipped
        request = Request.parse(task, planner, start=START, goal=NEAR)
        assert settle(planner, request) is request

    def test_a_choice_needs_a_first(self, shipped):
        planner, task = shipped
        with pytest.raises(ValueError, match="give that too"):
            Request.parse(task, planner, goal=None, or_goal=[FAR], guides=["length@1"])


class TestRegion:
    def test_it_ends_within_a_region_instead_of_at_a_point(self, ride, shipped):
        _, task = shipped
        x, y = task.maze.center((1, 3))
        spec = f"region:x={x:g},y={y:g},radius=0.4@100"
        for seed in (0, 1):
            result = ride(start=START, goal=CORNER, pin_goal=False, guides=[spec], seed=seed)
            gaps = np.linalg.norm(result.rollout.states[:, :2] - (x, y), axis=1)
            assert gaps[-1] <= 0.4
            asked = Ride.parse(task, shipped[0], start=START, pin_goal=False, guides=[spec], seed=seed)
            assert "ended within the region" in describe(asked, result)
            elsewhere = replace(asked, guide=region(5.0, 5.0, radius=0.4))
            assert "ended outside the region" in describe(elsewhere, result)

    def test_every_candidate_is_asked_for_an_end_of_its_own_in_it(self, shipped):
        planner, task = shipped
        x, y = task.maze.center((1, 3))
        start = [*task.maze.center((3, 1)), 0.0, 0.0]
        within = 10.0 * region(x, y, radius=0.4)
        plan = planner.plan(planner.problem(start), guide=within, candidates=6)
        ends = plan.trajectories[:, -1, planner.spec.position_columns]
        assert np.linalg.norm(ends - (x, y), axis=-1).max() <= 0.8 * 0.4 + 1e-5
        assert len(np.unique(ends.round(3), axis=0)) == 6
        assert (plan.trajectories[:, -1, planner.spec.arrived] == 1).all()

    def test_a_goal_that_is_given_is_kept_to_and_what_is_to_be_left_is_not_gone_to(self, shipped):
        planner, task = shipped
        x, y = task.maze.center((1, 3))
        start, corner = [*task.maze.center((3, 1)), 0.0, 0.0], [*task.maze.center((1, 1))]
        plan = planner.plan(planner.problem(start, corner), guide=region(x, y, radius=0.4), candidates=3)
        np.testing.assert_allclose(plan.trajectories[:, -1, planner.spec.position_columns], [corner] * 3, atol=1e-6)
        away = planner.plan(planner.problem(start), guide=-1.0 * region(x, y, radius=0.4), candidates=3)
        assert np.linalg.norm(away.trajectories[:, -1, planner.spec.position_columns] - (x, y), axis=-1).min() > 0.4

    def test_what_others_of_the_batch_ask_for_changes_nothing(self, shipped):
        """One with a goal beside one without: each plan is what it is alone."""
        planner, task = shipped
        start, corner = [*task.maze.center((3, 1)), 0.0, 0.0], [*task.maze.center((1, 1))]
        asked = {"guide": region(*task.maze.center((1, 3)), radius=0.4), "candidates": 16}
        problems = [planner.problem(start, corner), planner.problem(start)]
        together = planner.plan_many(problems, generators=[generator(1), generator(2)], **asked)
        for number, (problem, plan) in enumerate(zip(problems, together, strict=True), start=1):
            alone = planner.plan(problem, generator=generator(number), **asked)
            np.testing.assert_allclose(plan.trajectories, alone.trajectories, atol=1e-4)

    @pytest.mark.parametrize(("legs", "pinned"), [(1, True), (2, False)])
    def test_legs_of_a_plan_have_no_ends_there_they_lead_there_together(self, shipped, legs, pinned):
        planner, task = shipped
        wish = Wish(region(1.0, 1.0, radius=0.4), planner.spec, planner.normalizer)
        problem = planner.problem([*task.maze.center((3, 1)), 0.0, 0.0])
        batch = Batch([problem], [generator(0)], Sampling(candidates=3, legs=legs), wish)
        mask, _ = batch.pins(planner.spec, planner.horizon, torch.device("cpu"))
        assert (mask[:, -1, planner.spec.position_columns] == pinned).all()

    def test_ends_of_two_regions_are_shared_among_candidates(self, shipped):
        planner, task = shipped
        one, other = task.maze.center((1, 3)), task.maze.center((1, 1))
        both = region(*one, radius=0.4) + region(*other, radius=0.4)
        start = [*task.maze.center((3, 1)), 0.0, 0.0]
        plan = planner.plan(planner.problem(start), guide=both, candidates=5)
        ends = plan.trajectories[:, -1, planner.spec.position_columns]
        near = [(np.linalg.norm(ends - place, axis=-1) < 0.4).sum() for place in (one, other)]
        assert sorted(near) == [2, 3]


class TestTheArm:
    """The same with the arm that ships, which picks and places; rates over many episodes are `diffplan bench arms`."""

    @pytest.fixture(scope="class")
    def arm(self):
        planner, task = load_planner(ASSETS / "fetch-pick-and-place", device="cpu")
        assert planner.task == task.name
        return planner, task

    def test_regions_with_and_without_a_height_share_candidates(self, arm):
        planner, task = arm
        (seed,) = task.seeds(0, 1)
        with Simulators(task, 1) as simulators:
            (begun,), _ = simulators.reset([seed])
        both = region(1.3, 0.8, z=0.6, radius=0.05) + region(1.4, 0.7, radius=0.05)
        plan = planner.plan(planner.problem(begun.tolist()), guide=both, candidates=4)
        ends = plan.trajectories[:, -1, planner.spec.position_columns]
        near = np.linalg.norm(ends - (1.3, 0.8, 0.6), axis=-1) <= 0.05
        flat = np.linalg.norm(ends[:, :2] - (1.4, 0.7), axis=-1) <= 0.05
        assert near.sum() == flat.sum() == 2 and (near ^ flat).all()

    @pytest.mark.parametrize("wish", sorted(WISHES))
    def test_it_gets_what_was_wished_for(self, arm, wish):
        """One episode of two at least: an episode is a matter of luck, two failures are not."""
        planner, task = arm
        own, more = task.seeds(0, 2), goals_of(task, task.seeds(0, 4)[2:]).tolist()
        if wish == "around":
            free = episodes(planner, task, own)
            more = [obstruct(task, rollout, np.random.default_rng(0)) for rollout in free]
        chances = [(s, m) for s, m in zip(own, more, strict=True) if m is not None]
        assert any(all(WISHES[wish][1](planner, task, s, m)) for s, m in chances)
