"""A plan that is about to arrive is kept: planning again from within reach of the goal only adds noise."""

import numpy as np
import pytest

from diffplan.planner.controllers import TrackingController
from diffplan.planner.execution import Executor


class Rail:
    """One point mass per seed that goes exactly where its reference goes, unless it is pushed off."""

    def __init__(self, push_at: int | None = None, goal_width: int = 2) -> None:
        self.push_at, self.goal_width = push_at, goal_width

    def reset(self, seeds):
        self.state, self.count = np.zeros((len(seeds), 4), np.float32), 0
        return self.state.copy(), np.ones((len(seeds), self.goal_width), np.float32)

    def step(self, actions):
        self.count += 1
        self.state[:, :2] = actions
        if self.push_at is not None and self.count >= self.push_at:
            self.state[:, :2] += 9.0
        return self.state.copy(), np.zeros(len(actions)), np.zeros(len(actions), dtype=bool)


class Follow(TrackingController):
    """Says where to be, which is all that a `Rail` needs."""

    def act(self, observations, now, ahead):
        return np.asarray(ahead.position)


@pytest.mark.parametrize(("push_at", "replans_after_arrival"), [(None, False), (30, True)])
def test_replanning_stops_at_the_goal_unless_pushed_away(planner, push_at, replans_after_arrival):
    controller = Follow((0, 1), (2, 3))
    executor = Executor(planner, Rail(push_at), controller=controller, replan_every=4, tolerance=0.25)
    (rollout,) = executor.run(steps=60, seeds=[0])
    arrived = next(s + p.steps for s, p in zip(rollout.plan_steps, rollout.plans, strict=True) if p.steps - 4 <= 4)
    late = [s for s in rollout.plan_steps if s > max(arrived, 30)]
    assert bool(late) == replans_after_arrival


def test_without_a_goal_there_is_nothing_to_hold(planner):
    executor = Executor(planner, Rail(goal_width=0), controller=Follow((0, 1), (2, 3)), replan_every=4)
    (rollout,) = executor.run(steps=40, seeds=[0])
    assert rollout.plan_steps == tuple(range(0, 40, 4))


@pytest.mark.parametrize("tempo", [1.0, 1.5, 2.0])
def test_tempo_is_plan_time_per_executed_time(planner, tempo):
    """A perfect follower stands, after n steps, where the plan is after tempo * n."""
    executor = Executor(planner, Rail(), controller=Follow((0, 1), (2, 3)), replan_every=100, tempo=tempo)
    (rollout,) = executor.run(steps=12, seeds=[0])
    expected = rollout.plans[0].reference(tempo * np.arange(1, 13)).position
    np.testing.assert_allclose(rollout.states[1:, :2], expected, atol=1e-5)
