"""Inverse dynamics: the action between two states, and plans of states alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from diffplan.planner.controllers import InverseController
from diffplan.planner.inverse import InverseDynamics, predicting_actions, transitions
from diffplan.planner.objectives import draw_pins
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.training import TrainConfig, TrainState, train
from diffplan.planner.windows import Windows

START, GOAL = [0.0, 0.0, 0.0, 0.0], [1.0, 0.5]


@pytest.fixture(scope="module")
def trained(episodes) -> InverseDynamics:
    """On a mass that forces push: v' = v + f dt, so f is known from two states."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = InverseDynamics(4, 2, width=32)
    model.fit_scale(episodes)
    config = TrainConfig(steps=600, batch_size=64, learning_rate=3e-3, warmup=20)
    state = TrainState.begin(model, config)
    list(
        train(
            state, predicting_actions(episodes, config, torch.device("cpu")), config, accelerator=Accelerator(cpu=True)
        )
    )
    return state.ema.eval()


def test_transitions_never_cross_an_episode(episodes):
    now, ahead, taken = (part.numpy() for part in transitions(episodes))
    assert len(now) == episodes.steps
    whole = [episodes.episode(i) for i in range(len(episodes))]
    np.testing.assert_array_equal(now, np.concatenate([o[:-1] for o, _ in whole]))
    np.testing.assert_array_equal(ahead, np.concatenate([o[1:] for o, _ in whole]))
    np.testing.assert_array_equal(taken, np.concatenate([a for _, a in whole]))


def test_it_learns_the_force_that_did_it(trained, episodes):
    now, ahead, taken = transitions(episodes)
    with torch.no_grad():
        off = trained(now, ahead) - taken
    assert off.square().mean() < 0.01 * taken.square().mean()


def test_scales_are_the_datas(episodes):
    model = InverseDynamics(4, 2)
    model.fit_scale(episodes)
    now, ahead, taken = transitions(episodes)
    torch.testing.assert_close(model.center, now.mean(0))
    torch.testing.assert_close(model.step, (ahead - now).std(0))
    torch.testing.assert_close(model.spread, taken.std(0))


def test_a_column_that_never_moves_divides_by_nothing(episodes):
    still = replace(
        episodes, observations=np.zeros_like(episodes.observations), actions=np.zeros_like(episodes.actions)
    )
    model = InverseDynamics(4, 2)
    model.fit_scale(still)
    assert torch.isfinite(model(torch.zeros(1, 4), torch.ones(1, 4))).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_tokens_act_towards_the_next_at_its_pace(trained, spec, stride, generator):
    spec = replace(spec, stride=stride)
    path = torch.randn(3, 5, spec.width, generator=generator)
    made = trained.acted(spec, path)
    seen = path[..., spec.observations]
    for token in range(4):
        ahead = seen[:, token] + (seen[:, token + 1] - seen[:, token]) / stride
        with torch.no_grad():
            torch.testing.assert_close(made[:, token, spec.actions], trained(seen[:, token], ahead))
    torch.testing.assert_close(made[:, -1, spec.actions], made[:, -2, spec.actions])
    torch.testing.assert_close(made[..., spec.observations], seen)


def test_the_controller_applies_what_leads_to_the_next_state_from_where_it_is(trained, make_planner):
    planner = make_planner()
    plan = planner.plan(planner.problem(START, GOAL))
    now, ahead = plan.reference(np.array([0])), plan.reference(np.array([1]))
    here = now.observation + 0.1
    with torch.no_grad():
        expected = trained(torch.tensor(here).float(), torch.tensor(ahead.observation).float()).numpy()
    np.testing.assert_allclose(InverseController(trained).act(here, now, ahead), expected, atol=1e-6)
    bounded = InverseController(trained, limit=0.01).act(here, now, ahead)
    np.testing.assert_allclose(bounded, np.clip(expected, -0.01, 0.01), atol=1e-6)


class TestStatesAlone:
    def test_windows_leave_actions_out(self, episodes, spec, generator):
        state = generator.get_state()
        both, _ = Windows(episodes, spec, horizon=8).sample(50, generator)
        generator.set_state(state)
        alone, _ = Windows(episodes, spec, horizon=8, state_only=True).sample(50, generator)
        assert (alone[..., spec.actions] == 0).all()
        assert (both[..., spec.actions] != 0).any()
        torch.testing.assert_close(alone[..., spec.actions.stop :], both[..., spec.actions.stop :])

    def test_actions_are_always_pinned(self, spec, generator):
        length = torch.full((200,), 4)
        state = generator.get_state()
        usual = draw_pins(spec, length, 8, generator)
        generator.set_state(state)
        alone = draw_pins(spec, length, 8, generator, state_only=True)
        assert alone[..., spec.actions].all()
        assert not usual[..., spec.actions].all(dim=(1, 2)).all()
        torch.testing.assert_close(alone[..., spec.actions.stop :], usual[..., spec.actions.stop :])

    @pytest.fixture
    def planner(self, make_planner, trained):
        made = make_planner()
        made.register_modules(inverse=trained)
        made.register_to_config(state_only=True)
        return made

    def test_plans_have_the_actions_between_their_states(self, planner, trained):
        plan = planner.plan(planner.problem(START, GOAL))
        paths = torch.from_numpy(plan.trajectories)
        torch.testing.assert_close(paths, trained.acted(planner.spec, paths))
        np.testing.assert_allclose(plan.positions[:, -1], np.tile(np.float32(GOAL), (len(paths), 1)))

    def test_what_the_network_sees_of_actions_is_zero(self, planner, monkeypatch):
        """At every denoising step, also where the plan goes on from one whose actions were found."""
        seen = []
        forward = planner.denoiser.forward
        monkeypatch.setattr(
            planner.denoiser, "forward", lambda x, *a, **k: (seen.append(x.clone()), forward(x, *a, **k))[1]
        )
        before = planner.plan(planner.problem(START, GOAL))
        planner.plan(planner.problem(START, GOAL), previous=(before, 2.0))
        zero = planner.normalizer.normalize(torch.zeros(planner.spec.width))[planner.spec.actions]
        for noisy in seen:
            actions = noisy[..., planner.spec.actions]
            torch.testing.assert_close(actions, zero.expand_as(actions))

    def test_it_is_saved_and_read_with_the_rest(self, planner, tmp_path):
        planner.save_pretrained(tmp_path, safe_serialization=True)
        loaded = TrajectoryPlanner.from_pretrained(tmp_path)
        problem = planner.problem(START, GOAL)
        np.testing.assert_array_equal(loaded.plan(problem).trajectories, planner.plan(problem).trajectories)

    def test_joint_plans_keep_the_actions_that_were_planned(self, make_planner, trained):
        """There the inverse dynamics are for whoever follows the states, say because a guide has bent them."""
        plain, both = make_planner(), make_planner()
        both.register_modules(inverse=trained)
        problem = both.problem(START, GOAL)
        assert not problem.mask[:, both.spec.actions].any()
        np.testing.assert_array_equal(both.plan(problem).trajectories, plain.plan(problem).trajectories)

    def test_states_alone_without_inverse_dynamics_are_refused(self, make_planner):
        made = make_planner()
        with pytest.raises(ValueError, match="states alone need inverse dynamics"):
            TrajectoryPlanner(
                made.denoiser, made.normalizer, made.scheduler, spec=made.spec.to_config(), state_only=True
            )

    def test_planners_without_one_are_as_they_were(self, make_planner, tmp_path):
        planner = make_planner()
        planner.save_pretrained(tmp_path, safe_serialization=True)
        assert TrajectoryPlanner.from_pretrained(tmp_path).inverse is None
        assert not planner.problem(START, GOAL).mask[:, planner.spec.actions].any()


@pytest.mark.parametrize("wrong", [{"observations": 0}, {"actions": 0}, {"width": 0}])
def test_refusals(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        InverseDynamics(**({"observations": 4, "actions": 2} | wrong))
