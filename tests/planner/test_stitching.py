"""Plans of several legs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffplan.planner.conditions import arrive_at, pass_through, start_at
from diffplan.planner.guides import Guide
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.selection import GUIDE_SHARE
from diffplan.planner.stitching import PREFERENCE, Chain
from diffplan.planner.windows import arrival

START, GOAL = [0.1, -0.2, 0.3, 0.0], [0.7, 0.9]
EAST = Guide.of(lambda spec, path: -path[:, 3, 2], "east")
CANDIDATES = 4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ask(planner: TrajectoryPlanner, legs: int, **options) -> Plan:
    options = {"candidates": CANDIDATES, "generator": seeded(5)} | options
    return planner.plan(planner.problem(START, GOAL), legs=legs, **options)


@pytest.mark.parametrize("legs", [2, 3])
class TestChains:
    def test_as_many_of_each_number_of_legs_best_first(self, planner, legs):
        plan = ask(planner, legs)
        assert len(plan.trajectories) == legs * CANDIDATES
        assert (np.diff(plan.scores) <= 0).all()
        doubted = plan.implausibility > 0
        dearer = np.log(-plan.scores[doubted] / plan.implausibility[doubted]) / np.log(PREFERENCE)
        np.testing.assert_allclose(dearer, dearer.round(), atol=1e-6)
        assert set(dearer.round()) <= set(range(legs))
        assert (plan.scores[~doubted] == 0).all()

    def test_they_begin_at_the_start_and_end_at_the_goal(self, planner, legs):
        plan = ask(planner, legs)
        np.testing.assert_array_equal(plan.observations[:, 0], np.tile(np.float32(START), (len(plan.scores), 1)))
        np.testing.assert_array_equal(plan.positions[:, -1], np.tile(np.float32(GOAL), (len(plan.scores), 1)))
        assert (plan.trajectories[:, -1, planner.spec.arrived] == 1).all()

    def test_they_arrive_once_where_their_numbers_say(self, planner, legs):
        plan = ask(planner, legs)
        paths = torch.from_numpy(plan.trajectories)
        np.testing.assert_array_equal(plan.arrivals, arrival(planner.spec, paths))

    def test_what_a_single_leg_can_do_is_among_them(self, planner, legs):
        """Padded by staying where it ends."""
        chains, direct = ask(planner, legs), ask(planner, 1, select="unprompted")
        longer = chains.trajectories.shape[1] - planner.horizon
        for i, path in enumerate(direct.trajectories):
            padded = np.concatenate([path, np.repeat(path[-1:], longer, axis=0)])
            (found,) = np.flatnonzero((chains.trajectories == padded).all(axis=(1, 2)))
            assert chains.scores[found] == direct.scores[i]
            assert chains.arrivals[found] == direct.arrivals[i]

    def test_a_problem_is_the_same_alone_and_beside_others(self, planner, legs):
        problems = [planner.problem(START, GOAL), planner.problem([0, 0, 0, 0], [-1, 0])]
        options = {"legs": legs, "candidates": CANDIDATES}
        plans = planner.plan_many(problems, generators=[seeded(1), seeded(2)], **options)
        for i, problem in enumerate(problems):
            alone = planner.plan(problem, generator=seeded(i + 1), **options)
            np.testing.assert_allclose(plans[i].trajectories[0], alone.trajectories[0], atol=1e-4)
            np.testing.assert_allclose(plans[i].scores, alone.scores, atol=1e-4)

    def test_a_seed_is_a_plan(self, planner, legs):
        a, b, other = (ask(planner, legs, generator=seeded(s)) for s in (1, 1, 2))
        np.testing.assert_array_equal(a.trajectories, b.trajectories)
        assert not np.array_equal(a.scores, other.scores)

    @pytest.mark.parametrize("guidance", ["both", "gradient", "candidates", "particles"])
    def test_a_guide_of_weight_zero_is_none(self, planner, legs, guidance):
        free, guided = ask(planner, legs), ask(planner, legs, guide=0 * EAST, guidance=guidance)
        np.testing.assert_array_equal(guided.trajectories, free.trajectories)

    def test_a_guide_chooses_among_whole_chains(self, planner, legs):
        free = ask(planner, legs)
        chosen = ask(planner, legs, guide=1e5 * EAST, guidance="candidates")
        assert (np.diff(planner.score(EAST, chosen)) <= 1e-5).all()
        bent = ask(planner, legs, guide=0.1 * EAST)
        rest = bent.scores - GUIDE_SHARE * planner.score(0.1 * EAST, bent)
        assert (rest <= 1e-4).all()
        assert len(chosen.scores) == len(bent.scores) == len(free.scores)


class TestJoining:
    def chain(self, spec, tokens: int, arrival: int, value: float, doubt: float) -> Chain:
        path = np.full((tokens, spec.width), value, dtype=np.float32)
        path[:, spec.arrived] = np.where(np.arange(tokens) >= arrival, 1.0, -1.0)
        return Chain(path, arrival, doubt, doubt / 10)

    def test_the_first_until_it_arrives_then_the_second(self, spec):
        a, b = self.chain(spec, 6, 4, 1.0, 0.3), self.chain(spec, 6, 2, 2.0, 0.1)
        both = a.then(b, spec.arrived)
        assert both.tokens[:, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
        assert both.tokens[:, spec.arrived].tolist() == [-1] * 6 + [1] * 4
        assert (both.arrival, both.legs) == (6, 2)
        for joined in (both, b.then(a, spec.arrived)):  # a chain is as doubtful as its worst leg
            assert (joined.doubt, joined.consistency) == pytest.approx((0.3, 0.03))
        assert (a.tokens[4:, spec.arrived] == 1).all()

    def test_it_is_associative(self, spec):
        a, b, c = (self.chain(spec, 6, n, float(n), n / 10) for n in (1, 2, 3))
        left, right = a.then(b, spec.arrived).then(c, spec.arrived), a.then(b.then(c, spec.arrived), spec.arrived)
        np.testing.assert_array_equal(left.tokens, right.tokens)
        for name in ("arrival", "doubt", "consistency", "legs"):
            assert getattr(left, name) == getattr(right, name)


class TestRefusals:
    @pytest.mark.parametrize("legs", [0, -1, 17])
    def test_numbers_of_legs_that_cannot_be(self, planner, legs):
        with pytest.raises(ValueError, match=f"legs={legs}"):
            ask(planner, legs)

    def test_problems_whose_legs_would_not_know_what_is_theirs(self, planner, spec):
        h = planner.horizon
        wrong = [
            planner.problem(START),
            planner.problem(START, GOAL) | pass_through(spec, h, 3, [0.0, 0.0]),
            arrive_at(spec, h, GOAL),
        ]
        for problem in wrong:
            with pytest.raises(ValueError, match="pin nothing between"):
                planner.plan(problem, legs=2)
        assert planner.plan(start_at(spec, h, START) | arrive_at(spec, h, GOAL), legs=2).arrivals[0] > 0
