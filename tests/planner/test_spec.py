from __future__ import annotations

import json

import pytest
import torch

from diffplan.planner.spec import TrajectorySpec


def test_join_and_split_are_inverse(spec, generator):
    path = torch.randn(3, 5, spec.width, generator=generator)
    actions, observations, arrived = spec.split(path)
    assert actions.shape == (3, 5, 2)
    assert observations.shape == (3, 5, 4)
    assert arrived.shape == (3, 5)
    assert torch.equal(spec.join(actions, observations, arrived), path)


def test_columns_are_where_the_docstring_draws_them(spec):
    row = torch.arange(spec.width)
    assert row[spec.actions].tolist() == [0, 1]
    assert row[spec.observations].tolist() == [2, 3, 4, 5]
    assert row[spec.arrived] == 6
    assert spec.columns("vy", "x") == [5, 2]
    assert spec.position_columns == [2, 3]
    assert spec.velocity_columns == [4, 5]


def test_a_token_lasts_stride_steps(spec):
    assert spec.token_seconds == pytest.approx(0.2)


def test_config_survives_json(spec):
    assert TrajectorySpec(**json.loads(json.dumps(spec.to_config()))) == spec


@pytest.mark.parametrize(
    "wrong",
    [
        {"action_names": ()},
        {"observation_names": ()},
        {"action_names": ("a", "a")},
        {"observation_names": ("x", "x", "vx")},
        {"position": ("z",)},
        {"velocity": ("z",)},
        {"position": ("x",), "velocity": ("vx", "vy")},
        {"stride": 0},
        {"dt_seconds": 0.0},
        {"dt_seconds": -1.0},
    ],
)
def test_refusals(spec, wrong):
    with pytest.raises(ValueError):
        TrajectorySpec(**(spec.to_config() | wrong))


def test_unknown_observation_is_named(spec):
    with pytest.raises(ValueError, match="'z'"):
        spec.columns("x", "z")
