from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.planner.plan import Plan, sorted_plans
from diffplan.planner.selection import Verdict

TOKENS = 7


def motion(spec, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (n, 2) under constant acceleration at environment steps."""
    t = spec.dt_seconds * steps[:, None]
    rate, force = np.array([0.5, 1.5]), np.array([-0.7, 0.3])
    return 1.0 + rate * t + force * t**2 / 2, rate + force * t


def plan_of(spec, trajectories, arrivals=None) -> Plan:
    count, horizon = trajectories.shape[:2]
    arrivals = np.full(count, horizon - 1) if arrivals is None else np.asarray(arrivals)
    zeros = np.zeros(count)
    return Plan(spec, trajectories.astype(np.float32), arrivals, -np.arange(count, dtype=float), zeros, zeros)


@pytest.fixture
def spec(spec):
    return replace(spec, stride=5)


@pytest.fixture
def smooth(spec) -> Plan:
    position, velocity = motion(spec, spec.stride * np.arange(TOKENS))
    actions = np.random.default_rng(0).normal(size=(TOKENS, 2))
    return plan_of(spec, np.hstack([actions, position, velocity, -np.ones((TOKENS, 1))])[None])


@pytest.fixture
def random(spec) -> Plan:
    return plan_of(spec, np.random.default_rng(0).normal(size=(3, TOKENS, spec.width)), arrivals=[4, 6, 2])


def test_shapes_and_durations(random, spec):
    assert random.observations.shape == (3, TOKENS, 4)
    assert random.actions.shape == (3, TOKENS, 2)
    assert random.positions.shape == (3, TOKENS, 2)
    assert random.steps == 4 * 5
    assert random.duration_seconds == pytest.approx(4 * 5 * 0.1)
    assert "3 candidates" in repr(random)


@pytest.mark.parametrize("candidate", [0, 1, 2])
def test_reference_passes_through_the_tokens(random, spec, candidate):
    got = random.reference(spec.stride * np.arange(TOKENS), candidate)
    np.testing.assert_allclose(got.observation, random.observations[candidate], atol=1e-6)
    np.testing.assert_allclose(got.position, random.positions[candidate], atol=1e-6)
    np.testing.assert_allclose(got.action, random.actions[candidate], atol=1e-6)
    before = random.arrivals[candidate]
    velocity = random.trajectories[candidate][:, spec.velocity_columns]
    np.testing.assert_allclose(got.velocity[:before], velocity[:before], atol=1e-5)


def test_reference_is_exact_for_constant_acceleration(smooth, spec):
    steps = np.arange(spec.stride * (TOKENS - 1) + 1)
    position, velocity = motion(spec, steps)
    got = smooth.reference(steps)
    np.testing.assert_allclose(got.position, position, atol=1e-5)
    np.testing.assert_allclose(got.velocity, velocity, atol=1e-5)


def test_velocity_is_the_positions_derivative(random):
    steps, h = np.array([2.5, 7.5, 11.5, 21.5, 28.5]), 1e-3
    rise = random.reference(steps + h).position - random.reference(steps - h).position
    np.testing.assert_allclose(random.reference(steps).velocity, rise / (2 * h * 0.1), atol=1e-4)


def test_actions_are_held_not_blended(random, spec):
    got = random.reference(np.arange(spec.stride * TOKENS)).action
    np.testing.assert_array_equal(got, np.repeat(random.actions[0], spec.stride, axis=0))


def test_after_the_end_the_last_token_is_held(random, spec):
    got = random.reference(spec.stride * (TOKENS - 1) + np.array([0, 1, 7, 1000]))
    for name in ("observation", "position", "action"):
        last = getattr(random, f"{name}s")[0, -1:]
        np.testing.assert_allclose(getattr(got, name), np.repeat(last, 4, axis=0), atol=1e-6)


def test_an_absorbed_plan_rests(spec):
    """Where all tokens from arrival on share one position, it stays there, whatever velocities say."""
    path = np.random.default_rng(0).normal(size=(1, TOKENS, spec.width))
    path[0, 3:, spec.position_columns] = np.array([[2.0], [1.0]])
    got = plan_of(spec, path, arrivals=[3]).reference(np.arange(15, 40))
    np.testing.assert_allclose(got.position, np.tile([2.0, 1.0], (25, 1)), atol=1e-6)
    np.testing.assert_allclose(got.velocity, 0, atol=1e-6)


def test_without_velocities_the_reference_runs_straight(spec):
    spec = replace(spec, velocity=())
    path = np.random.default_rng(0).normal(size=(1, TOKENS, spec.width)).astype(np.float32)
    got = plan_of(spec, path).reference(np.array([0, 1, 5, 8]))
    a = path[0][:, spec.position_columns]
    want = np.stack([a[0], 0.8 * a[0] + 0.2 * a[1], a[1], 0.4 * a[1] + 0.6 * a[2]])
    np.testing.assert_allclose(got.position, want, atol=1e-6)
    assert (got.velocity == 0).all()


class TestBodies:
    @pytest.fixture
    def carrying(self, space) -> Plan:
        return plan_of(space, np.random.default_rng(0).normal(size=(2, TOKENS, space.width)), arrivals=[4, 6])

    @pytest.mark.parametrize("candidate", [0, 1])
    def test_its_way_runs_straight_from_token_to_token(self, carrying, space, candidate):
        got, arrival = carrying.path(candidate, body=1), carrying.arrivals[candidate]
        tokens = carrying.trajectories[candidate][: arrival + 1, space.columns(*space.bodies[0])]
        assert len(got) == len(carrying.path(candidate)) == space.stride * arrival + 1
        np.testing.assert_allclose(got[:: space.stride], tokens, atol=1e-6)
        np.testing.assert_allclose(got[1 :: space.stride], (tokens[1:] + tokens[:-1]) / 2, atol=1e-6)
        np.testing.assert_array_equal(carrying.path(candidate, body=1, every=3), got[::3])

    def test_the_positions_own_comes_first_of_all(self, carrying):
        position, gripper = carrying.paths(1)
        np.testing.assert_array_equal(position, carrying.path(1))
        np.testing.assert_array_equal(gripper, carrying.path(1, body=1))

    def test_without_a_place_there_is_none(self, space):
        bare = replace(space, position=(), velocity=(), bodies=())
        assert plan_of(bare, np.zeros((1, TOKENS, bare.width))).paths() == []

    @pytest.mark.parametrize("tempo", [0.5, 1.0])
    def test_its_fastest_step_is_a_top_speed(self, space, tempo):
        path = np.zeros((1, TOKENS, space.width))
        path[0, 3:, space.columns("grip_z")] = 0.6  # in one token of 0.2 s
        path[0, 6, space.columns("grip_z")] = 9.0  # after the plan has arrived
        plan = replace(plan_of(space, path, arrivals=[5]), tempo=tempo)
        assert plan.top_speed() == pytest.approx(3.0 * tempo)
        assert replace(plan, spec=replace(space, velocity=())).top_speed() == pytest.approx(3.0 * tempo)
        assert plan.slowed(0.3).top_speed() == pytest.approx(0.3)
        assert replace(plan, spec=replace(space, bodies=())).top_speed() == 0


def test_remainder_of_nothing_is_identity(random):
    np.testing.assert_array_equal(random.remainder(0), random.trajectories)


def test_remainder_shifts_by_whole_tokens_and_holds_the_last(random, spec):
    got = random.remainder(2 * spec.stride)
    np.testing.assert_allclose(got[:, :-2], random.trajectories[:, 2:], atol=1e-6)
    np.testing.assert_allclose(got[:, -2:], np.repeat(random.trajectories[:, -1:], 2, axis=1), atol=1e-6)
    last = np.repeat(random.trajectories[:, -1:], TOKENS, axis=1)
    np.testing.assert_allclose(random.remainder(1000), last, atol=1e-6)


def test_remainder_between_tokens_is_blended(random, spec):
    want = 0.6 * random.trajectories[:, :-1] + 0.4 * random.trajectories[:, 1:]
    np.testing.assert_allclose(random.remainder(2)[:, :-1], want, atol=1e-6)


class TestTempo:
    @pytest.mark.parametrize("tempo", [0.25, 0.8, 1.0])
    def test_half_the_tempo_is_the_same_way_at_half_the_rates(self, random, spec, tempo):
        slow, steps = replace(random, tempo=tempo), np.arange(0, 29, 0.7)
        got, want = slow.reference(steps / tempo), random.reference(steps)
        np.testing.assert_allclose(got.position, want.position, atol=1e-5)
        np.testing.assert_allclose(got.action, want.action, atol=1e-6)
        np.testing.assert_allclose(got.velocity, tempo * want.velocity, atol=1e-5)
        pace = np.ones(4)
        pace[spec.velocity_indices] = tempo
        np.testing.assert_allclose(got.observation, pace * want.observation, atol=1e-5)

    def test_it_arrives_later(self, random):
        assert replace(random, tempo=0.5).steps == 2 * random.steps
        assert replace(random, tempo=0.3).arrival_steps(1) == 100
        assert replace(random, tempo=0.7).duration_seconds == pytest.approx(2.9)
        assert len(replace(random, tempo=0.5).path()) == 41

    def test_what_remains_of_it_is_what_was_not_followed(self, random):
        np.testing.assert_allclose(replace(random, tempo=0.4).remainder(20), random.remainder(8), atol=1e-6)

    def test_the_top_speed_is_that_of_its_fastest_moment(self, smooth):
        """Under constant acceleration it is at either end: |(-1.6, 2.4)| after three seconds."""
        assert smooth.top_speed() == pytest.approx(np.hypot(1.6, 2.4), rel=1e-4)
        assert replace(smooth, tempo=0.5).top_speed() == pytest.approx(np.hypot(1.6, 2.4) / 2, rel=1e-4)

    def test_slowed_it_keeps_to_the_limit_and_is_never_hurried(self, smooth):
        limit = smooth.top_speed() / 3
        slow = smooth.slowed(limit)
        assert slow.tempo == pytest.approx(1 / 3)
        assert slow.top_speed() == pytest.approx(limit, rel=1e-4)
        assert smooth.slowed(99.0).tempo == 1.0
        assert slow.slowed(99.0).tempo == slow.tempo
        assert slow.slowed(limit / 2).tempo == pytest.approx(1 / 6, rel=1e-4)
        np.testing.assert_array_equal(slow.trajectories, smooth.trajectories)

    @pytest.mark.parametrize("seed", range(12))
    def test_slowed_it_never_passes_the_limit_anywhere(self, spec, seed):
        """Random plans, looked at every 1/97 of a token: between tokens a spline may be faster than at them."""
        rng = np.random.default_rng(seed)
        paths = rng.normal(size=(2, TOKENS, spec.width)) * rng.choice([0.1, 1.0, 10.0], size=spec.width)
        plan = replace(plan_of(spec, paths, arrivals=rng.integers(1, TOKENS, 2)), tempo=rng.choice([1.0, 0.3]))
        limit = plan.top_speed() * rng.uniform(0.05, 0.95)
        slow = plan.slowed(limit)
        end = int(slow.arrivals[0]) * spec.stride / slow.tempo
        asked = slow.reference(np.linspace(0, end, 97 * int(slow.arrivals[0]) + 1))
        speeds = np.stack([asked.velocity, asked.observation[:, spec.velocity_indices]])
        fastest = np.linalg.norm(speeds, axis=-1).max()
        assert 0.99 * limit < fastest < 1.005 * limit
        assert slow.tempo < plan.tempo

    def test_joined_the_slower_leg_decides(self, smooth, random):
        assert replace(smooth, tempo=0.5).then(random).tempo == 0.5
        assert smooth.then(replace(random, tempo=0.25)).tempo == 0.25


def test_preferring_moves_the_refused_behind_and_keeps_the_order_else(random):
    got = random.preferring(np.array([False, True, True]))
    np.testing.assert_array_equal(got.trajectories, random.trajectories[[1, 2, 0]])
    assert got.arrivals.tolist() == [6, 2, 4]
    assert got.scores.tolist() == [-1, -2, 0]


def test_ranked_sorts_by_the_given_scores(random):
    got = random.ranked(np.array([1.0, 3.0, 2.0]))
    np.testing.assert_array_equal(got.trajectories, random.trajectories[[1, 2, 0]])
    assert got.arrivals.tolist() == [6, 2, 4]
    assert got.scores.tolist() == [3, 2, 1]
    np.testing.assert_array_equal(random.ranked(np.zeros(3)).trajectories, random.trajectories)


def test_each_problems_candidates_are_sorted_best_first(spec, generator):
    """Six trajectories that are numbered in every value; equal scores keep their order."""
    paths = torch.arange(6.0).reshape(6, 1, 1).expand(6, TOKENS, spec.width)
    verdict = Verdict(torch.arange(6), torch.arange(6.0) / 10, torch.arange(6.0) / 100)
    scores = torch.tensor([0.5, 2.0, 0.5, -1.0, 3.0, -5.0])
    first, second = sorted_plans(spec, paths, verdict, scores, problems=2, guides=("effort@1",))
    for plan, order in ((first, [1, 0, 2]), (second, [4, 3, 5])):
        np.testing.assert_array_equal(plan.trajectories, paths[order].numpy())
        assert plan.arrivals.tolist() == order
        np.testing.assert_allclose(plan.scores, scores[order])
        np.testing.assert_allclose(plan.consistency, np.array(order) / 10)
        np.testing.assert_allclose(plan.implausibility, np.array(order) / 100)
        assert plan.guides == ("effort@1",)


def test_then_follows_the_best_until_it_arrives(random, smooth, spec):
    joined = smooth.then(random)
    np.testing.assert_array_equal(joined.trajectories[:, TOKENS - 1 :], random.trajectories)
    np.testing.assert_array_equal(joined.observations[1, : TOKENS - 1], smooth.observations[0, :-1])
    assert (joined.trajectories[:, : TOKENS - 1, spec.arrived] == -1).all()
    assert joined.arrivals.tolist() == [10, 12, 8]
