from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from diffplan.planner.controllers import PlannedActions, RacingController, TrackingController
from diffplan.planner.execution import Executor
from diffplan.planner.plan import Reference
from diffplan.planner.racing import courses

DT = 0.1
CONTROLLER = TrackingController((0, 1), (2, 3))


class PointMass:
    """A force moves a mass; each episode ends after its own number of steps, and every step is worth 1."""

    def __init__(self, lives=(1000, 1000, 1000)) -> None:
        self.lives = np.array(lives)

    def reset(self, seeds):
        rngs = [np.random.default_rng(s) for s in seeds]
        self.clock = np.zeros(len(seeds), int)
        self.states = np.array([r.normal(0, 0.3, 4) for r in rngs], np.float32)
        return self.states.copy(), np.array([r.normal(0, 0.3, 2) for r in rngs], np.float32)

    def step(self, actions):
        velocity = self.states[:, 2:] + DT * actions
        position = self.states[:, :2] + DT * velocity
        self.states = np.hstack([position, velocity]).astype(np.float32)
        self.clock += 1
        return self.states.copy(), np.ones(len(actions), np.float32), self.clock >= self.lives


def executor(planner, environments=None, **options) -> Executor:
    options = {"controller": CONTROLLER, "replan_every": 4, "tolerance": -1.0} | options
    return Executor(planner, environments or PointMass(), **options)


def test_side_by_side_equals_one_after_another(planner):
    lives = (5, 13, 9)
    together = executor(planner, PointMass(lives)).run(steps=11, seeds=[3, 4, 5])
    for i, seed in enumerate((3, 4, 5)):
        (alone,) = executor(planner, PointMass(lives[i : i + 1])).run(steps=11, seeds=[seed])
        assert together[i].plan_steps == alone.plan_steps
        for name in ("goal", "states", "actions", "rewards"):
            np.testing.assert_allclose(getattr(together[i], name), getattr(alone, name), atol=5e-5)


def test_it_plans_when_promised(planner):
    runner = executor(planner)
    for rollout in runner.run(steps=10, seeds=[0, 1, 2]):
        assert rollout.plan_steps == (0, 4, 8)
        assert len(rollout.plans) == 3
        assert rollout.states.shape == (11, 4)
        assert rollout.actions.shape == (10, 2)
        for step, plan in zip(rollout.plan_steps, rollout.plans, strict=True):
            np.testing.assert_array_equal(plan.observations[0, 0], rollout.states[step])
            np.testing.assert_array_equal(plan.positions[0, -1], rollout.goal)
    assert len(runner.plan_seconds) == 3


def test_a_plan_about_to_arrive_is_kept_while_it_is_followed(planner):
    """At most 14 steps long, every plan is within 20 steps of arriving."""
    options = {"replan_every": 20}
    kept = executor(planner, tolerance=np.inf, **options).run(steps=45, seeds=[0, 1, 2])
    assert [r.plan_steps for r in kept] == [(0,)] * 3
    left = executor(planner, tolerance=-1.0, **options).run(steps=45, seeds=[0, 1, 2])
    assert [r.plan_steps for r in left] == [(0, 20, 40)] * 3


def test_ended_episodes_earn_nothing_and_are_cut(planner):
    runner = executor(planner, PointMass((3, 6, 1000)))
    moments = list(runner.moments(steps=9, seeds=[0, 1, 2]))
    rewards = np.array([m.rewards for m in moments[1:]])
    np.testing.assert_array_equal(rewards.sum(0), [3, 6, 9])
    assert [r.rewards.sum() for r in runner.rollouts(moments)] == [3, 6, 9]
    assert [len(r.states) for r in runner.rollouts(moments)] == [4, 7, 10]
    assert [r.plan_steps for r in runner.rollouts(moments)] == [(0,), (0, 4), (0, 4, 8)]


def test_it_stops_when_all_have_ended(planner):
    moments = list(executor(planner, PointMass((3, 6, 2))).moments(steps=100, seeds=[0, 1, 2]))
    assert [m.step for m in moments] == list(range(7))


def test_moments_begin_with_the_reset(planner):
    first = next(executor(planner).moments(steps=5, seeds=[0, 1, 2]))
    observations, _ = PointMass().reset([0, 1, 2])
    np.testing.assert_array_equal(first.observations, observations)
    assert first.step == 0
    assert first.replanned.all()
    assert len(first.plans) == 3


def test_planned_actions_are_applied(planner):
    (rollout,) = executor(planner, PointMass((99,)), controller=PlannedActions(), replan_every=6).run(
        steps=12, seeds=[0]
    )
    expected = [plan.actions[0, step // 2] for plan in rollout.plans for step in range(6)]
    np.testing.assert_allclose(rollout.actions, expected, atol=1e-6)


def test_plans_can_be_forgotten(planner):
    rollout = executor(planner, keep_plans=False).run(steps=5, seeds=[0, 1, 2])[0]
    assert rollout.plans == ()
    assert rollout.plan_steps == (0, 4)


class TestGoalsThatAreNotPinned:
    def test_plans_are_those_of_a_free_end(self, planner):
        rollouts = executor(planner, pin_goal=False).run(steps=3, seeds=[7, 8, 9])
        for rollout, seed in zip(rollouts, (7, 8, 9), strict=True):
            problem = planner.problem(rollout.states[0].tolist())
            alone = planner.plan(problem, generator=torch.Generator().manual_seed(seed))
            np.testing.assert_allclose(rollout.plans[0].trajectories, alone.trajectories, atol=5e-5)
            assert abs(rollout.plans[0].positions[0, -1] - rollout.goal).max() > 1e-3

    def test_there_is_nothing_to_keep_to(self, planner):
        """The same plans, about to arrive and followed well enough, are kept where the goal is pinned."""
        options = {"replan_every": 20, "tolerance": np.inf}
        free, held = (executor(planner, pin_goal=p, **options).run(steps=45, seeds=[0, 1, 2]) for p in (False, True))
        assert [r.plan_steps for r in free] == [(0, 20, 40)] * 3
        assert [r.plan_steps for r in held] == [(0,)] * 3


@pytest.mark.parametrize("tempo", [1.0, 1.5])
def test_a_guide_is_given_to_the_planner_with_the_tempo(planner, tempo):
    def slowly(spec, path):
        return 30 * path[..., spec.velocity_columns].square().sum((1, 2))

    (rollout,) = executor(planner, PointMass((99,)), guide=slowly, tempo=tempo).run(steps=2, seeds=[3])
    problem = planner.problem(rollout.states[0].tolist(), rollout.goal.tolist())
    seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
    alone = planner.plan(problem, generator=seeded[0], guide=slowly, tempo=tempo)
    free = planner.plan(problem, generator=seeded[1])
    assert rollout.plans[0].guides == ("slowly@1",)
    np.testing.assert_allclose(rollout.plans[0].trajectories, alone.trajectories, atol=1e-5)
    assert abs(alone.trajectories - free.trajectories).max() > 1e-3


class TestControllers:
    NOW = Reference(np.zeros((1, 4)), np.zeros((1, 2)), np.zeros((1, 2)), np.array([[0.2, -0.4]]))
    AHEAD = Reference(np.zeros((1, 4)), np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.ones((1, 2)))
    SEEN = np.array([[0.5, 2.5, 2.0, 6.0]])

    def test_planned(self):
        np.testing.assert_array_equal(PlannedActions().act(self.SEEN, self.NOW, self.AHEAD), self.NOW.action)

    def test_tracking_closed_form(self):
        """0.5 (0.2, -0.4) + 0.3 (0.5, -0.5) + 0.1 (1, -2)."""
        controller = TrackingController((0, 1), (2, 3), p_gain=0.3, d_gain=0.1, feedforward=0.5)
        np.testing.assert_allclose(controller.act(self.SEEN, self.NOW, self.AHEAD), [[0.35, -0.55]])

    def test_tracking_is_clipped(self):
        controller = TrackingController((0, 1), (2, 3), p_gain=100, limit=0.7)
        np.testing.assert_allclose(controller.act(self.SEEN, self.NOW, self.AHEAD), [[0.7, -0.7]])

    def test_tracking_finds_its_columns(self):
        order = [3, 1, 0, 2]
        plain = TrackingController((0, 1), (2, 3), limit=99).act(self.SEEN, self.NOW, self.AHEAD)
        mixed = TrackingController((2, 1), (3, 0), limit=99).act(self.SEEN[:, order], self.NOW, self.AHEAD)
        np.testing.assert_allclose(mixed, plain)


@pytest.mark.parametrize("wrong", [0, -3])
def test_refusals(planner, wrong):
    with pytest.raises(ValueError, match="replan_every"):
        executor(planner, replan_every=wrong)


@pytest.mark.parametrize("tempo", [0, -1, 11, float("nan")])
def test_a_tempo_that_cannot_be_is_refused(planner, tempo):
    with pytest.raises(ValueError, match="tempo"):
        Executor(planner, None, controller=PlannedActions(), tempo=tempo)  # type: ignore[arg-type]


class Far(PointMass):
    """The same from rest, with goals 2 to 5 units away."""

    def reset(self, seeds):
        observations, _ = super().reset(seeds)
        self.states[:, 2:] = observations[:, 2:] = 0
        rngs = [np.random.default_rng(s) for s in seeds]
        angles, far = ([r.uniform(*ends) for r in rngs] for ends in ((0, 6), (2, 5)))
        ways = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(far)[:, None]
        return observations, (observations[:, :2] + ways).astype(np.float32)


class Near(Far):
    """The same with goals at a fifth of the way."""

    def reset(self, seeds):
        observations, goals = super().reset(seeds)
        return observations, observations[:, :2] + (goals - observations[:, :2]) / 5


class TestHastened:
    """Plans are followed along the fastest course that a plant allows."""

    @pytest.fixture(scope="class")
    def plant(self, make_plant):
        """The very one: v' = v + 0.1 u, wherever."""
        made = make_plant(dt=DT, size=20.0, voxel=0.2)
        made.origin[:] -= 10
        return made

    @pytest.fixture(scope="class")
    def hasty(self, plant):
        return {"controller": RacingController(plant, (0, 1), (2, 3)), "hasten": functools.partial(courses, plant)}

    @staticmethod
    def arrivals(rollouts) -> list[int]:
        """First step within 0.05 of the goal, from which on it stays there."""
        made = []
        for rollout in rollouts:
            away = np.linalg.norm(rollout.states[:, :2] - rollout.goal, axis=1) > 0.05
            made.append(int(np.flatnonzero(away)[-1]) + 1)
        return made

    def test_it_is_there_sooner_and_stays(self, hesitant, hasty):
        planner, seeds = hesitant, [0, 1, 2]
        options = {"replan_every": 10, "tolerance": 0.25}
        slow = self.arrivals(executor(planner, Far(), **options).run(steps=300, seeds=seeds))
        rollouts = executor(planner, Far(), **options, **hasty).run(steps=300, seeds=seeds)
        fast = self.arrivals(rollouts)
        assert max(slow) < 300
        for rollout, early, late in zip(rollouts, fast, slow, strict=True):
            assert early < 0.8 * late
            reach = np.abs(rollout.goal - rollout.states[0, :2]).max()
            assert early * DT > 2 * np.sqrt(max(reach - 0.05, 0)) - 2 * DT  # nothing is faster than physics

    def test_time_is_near_the_best_there_is(self, hesitant, hasty):
        """From rest to rest with force 1 along the longer axis: 2 sqrt(d), and a reserve."""
        planner = hesitant
        rollouts = executor(planner, Far(), replan_every=1000, **hasty).run(steps=100, seeds=[3, 4, 5])
        for rollout, steps in zip(rollouts, self.arrivals(rollouts), strict=True):
            reach = np.abs(rollout.goal - rollout.states[0, :2]).max()
            assert steps * DT < 1.1 * 2 * np.sqrt(reach)

    def test_few_candidates_are_raced_unless_more_are_asked_for(self, planner, hasty, monkeypatch):
        own = planner.sampling.changed({"raced_candidates": 1, "raced_steps": 2, "select": "fastest"})
        monkeypatch.setattr(planner, "sampling", own)
        known = {"controller": PlannedActions(), "hasten": lambda plans: plans}
        assert Executor(planner, None, **known).options == {"candidates": 1, "steps": 2}
        assert Executor(planner, None, **known, candidates=3, steps=None).options == {"candidates": 3, "steps": 2}
        assert Executor(planner, None, **known, guide=lambda spec, path: path.sum((1, 2))).options == {}
        assert Executor(planner, None, controller=PlannedActions()).options == {}

    def test_the_denoisers_own_plans_arrive_too(self, planner, hasty):
        """They are pinned at both ends; what an untrained network puts between is straightened."""
        rollouts = executor(planner, Far(), replan_every=1000, **hasty).run(steps=120, seeds=[0, 1, 2])
        assert max(self.arrivals(rollouts)) < 110

    def test_side_by_side_equals_one_after_another(self, hesitant, hasty):
        """Among ways that are all short enough to have as many points."""
        planner = hesitant
        together = executor(planner, Near(), **hasty).run(steps=15, seeds=[3, 4, 5])
        for i, seed in enumerate((3, 4, 5)):
            (alone,) = executor(planner, Near((1000,)), **hasty).run(steps=15, seeds=[seed])
            np.testing.assert_allclose(together[i].states, alone.states, atol=1e-5)
            assert together[i].plan_steps == alone.plan_steps

    def test_replanning_begins_where_the_plan_is_by_then(self, hesitant, hasty):
        """A hastened plan is older than the steps since it was made."""
        planner, told = hesitant, []

        def plan_many(problems, *, previous=None, **rest):
            told.append(previous)
            return type(planner).plan_many(planner, problems, **rest)

        planner.plan_many = plan_many
        executor(planner, Far(), replan_every=10, **hasty).run(steps=11, seeds=[0, 1, 2])
        assert told[0] is None
        for plan, age in told[1]:
            assert 10 < age <= plan.steps

    def test_planning_seconds_include_the_hurry(self, hesitant, hasty):
        runner = executor(hesitant, Far(), **hasty)
        runner.run(steps=1, seeds=[0, 1, 2])
        assert runner.plan_seconds[0] > 1e-4
