"""Guides about motion and returns, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffplan.planner.guides import (
    Sight,
    SpeedLimit,
    effort,
    learned_return,
    length,
    smooth,
    speed,
)
from diffplan.planner.spec import TrajectorySpec


def path_of(spec: TrajectorySpec, tokens: int) -> Tensor:
    return torch.zeros(1, tokens, spec.width, dtype=torch.float64)


class TestSpeed:
    def test_a_constant_speed_of_5_under_a_limit_of_3(self, spec):
        """The excess of 2 squared, once per token by its velocity, once per step by its positions, and halved."""
        rate, seconds = torch.tensor([3.0, 4.0]).double(), spec.token_seconds * torch.arange(6).double()
        path = path_of(spec, 6)
        path[0, :, spec.velocity_columns] = rate
        assert speed(3).score(spec, path).item() == pytest.approx(-6 * 4 / 2, rel=1e-6)
        path[0, :, spec.position_columns] = seconds[:, None] * rate
        assert speed(3).score(spec, path).item() == pytest.approx(-(6 * 4 + 5 * 4) / 2, rel=1e-6)
        assert speed(5.01).score(spec, path).item() == 0
        path[0, :, spec.velocity_columns] = 0.0
        assert speed(3).score(spec, path).item() == pytest.approx(-5 * 4 / 2, rel=1e-6)

    def test_without_velocities_the_steps_count_alone(self, spec):
        bare, path = replace(spec, velocity=()), path_of(spec, 4)
        path[0, 1:, spec.position_columns] = torch.tensor([3.0, 4.0]).double() * spec.token_seconds
        assert speed(3).score(bare, path).item() == pytest.approx(-4, rel=1e-6)
        assert speed(3).score(spec, path).item() == pytest.approx(-4 / 2, rel=1e-6)

    def test_the_steps_of_every_body_count(self, space):
        """The object rests and the gripper moves at 5 m/s: an excess of 2, once for each of five steps, not halved."""
        path, rate = path_of(space, 6), torch.tensor([0.0, 3.0, 4.0]).double()
        path[0, :, space.columns(*space.bodies[0])] = space.token_seconds * torch.arange(6).double()[:, None] * rate
        assert speed(3).score(space, path).item() == pytest.approx(-5 * 4, rel=1e-6)
        assert speed(3).score(replace(space, bodies=()), path).item() == 0
        path[0, :, space.velocity_columns] = rate
        assert speed(3).score(space, path).item() == pytest.approx(-5 * 4 - 6 * 4 / 2, rel=1e-6)
        assert speed(5.01).score(space, path).item() == 0

    def test_any_number_of_positions(self):
        spec = TrajectorySpec(("a",), ("x", "v"), ("x",), ("v",))
        path = path_of(spec, 3)
        path[0, :, 2] = torch.tensor([2.0, -2.0, 0.5])
        assert speed(1.5).score(spec, path).item() == pytest.approx(-0.25, rel=1e-6)

    @pytest.mark.parametrize("limit", [0, -1, math.nan])
    def test_a_limit_that_cannot_be_is_refused(self, limit):
        with pytest.raises(ValueError, match="max"):
            speed(limit)

    def test_a_task_without_positions_is_refused(self):
        with pytest.raises(ValueError, match="no positions"):
            speed(1.0).score(TrajectorySpec(("a",), ("q",)), torch.zeros(1, 5, 3))

    def test_it_looks_like_a_limit(self):
        assert speed(2.5).marks == (SpeedLimit(2.5),)


def test_effort_is_the_mean_square_action(spec):
    path = path_of(spec, 4)
    path[0, 0, spec.actions] = torch.tensor([3.0, 4.0]).double()
    assert effort().score(spec, path).item() == pytest.approx(-25 / 4)


def test_smooth_is_the_mean_square_acceleration(spec):
    t = spec.token_seconds * torch.arange(6, dtype=torch.float64)
    path = path_of(spec, 6)
    path[0, :, spec.position_columns] = torch.stack([1.5 * t**2 + t, -2 * t**2], dim=1)
    assert smooth().score(spec, path).item() == pytest.approx(-(3**2 + 4**2))


def test_two_tokens_do_not_bend(spec, generator):
    assert smooth().score(spec, torch.randn(3, 2, spec.width, generator=generator)).tolist() == [0, 0, 0]


def test_length_counts_the_seconds_before_arrival(spec):
    path = torch.ones(1, 6, spec.width)
    path[0, :4, spec.arrived] = -1
    assert length().score(spec, path).item() == pytest.approx(-4 * spec.token_seconds)


class TestLearnedReturn:
    def sight(self, spec, generator) -> Sight:
        clean, noisy = torch.randn(2, 5, 8, spec.width, generator=generator)
        pinned = torch.rand(noisy.shape, generator=generator) < 0.2
        return Sight(spec, clean, noisy, torch.tensor([0, 1, 2, 3, 4]), pinned)

    def test_it_is_the_models_word_in_reward_units(self, spec, generator, make_returns):
        model, seen = make_returns(), self.sight(spec, generator)
        model.center.fill_(7.0)
        model.scale.fill_(3.0)
        with torch.no_grad():
            got = learned_return(model).value(seen)
            torch.testing.assert_close(got, 7 + 3 * model(seen.noisy, seen.timestep, seen.pinned))

    def test_noise_level_and_pins_reach_the_model(self, spec, generator, make_returns):
        guide, seen = learned_return(make_returns()), self.sight(spec, generator)
        value = guide.value(seen)
        assert not torch.equal(value[1:], guide.value(replace(seen, timestep=torch.zeros(5).long()))[1:])
        assert not torch.equal(value, guide.value(replace(seen, pinned=None)))

    def test_finished_trajectories_alone_are_refused(self, spec, make_returns):
        with pytest.raises(ValueError, match=r"planner\.score"):
            learned_return(make_returns()).score(spec, torch.zeros(1, 8, spec.width))
