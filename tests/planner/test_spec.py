from __future__ import annotations

import json
from dataclasses import replace

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


class TestBodies:
    """Further points that have a place beside the position."""

    def test_columns_of_the_position_come_first(self, space):
        assert space.body_columns == [[7, 8, 9], [3, 4, 5]]
        assert space.body_columns[0] == space.position_columns
        assert space.body_indices == [[4, 5, 6], [0, 1, 2]]
        assert [space.columns(*b) for b in (space.position, *space.bodies)] == space.body_columns

    def test_without_bodies_or_positions(self, spec):
        assert spec.body_columns == [[2, 3]]
        assert TrajectorySpec(("a",), ("q",)).body_columns == []

    def test_config_survives_json(self, space):
        config = json.loads(json.dumps(space.to_config()))
        assert config == space.to_config()
        assert config["bodies"] == [["grip_x", "grip_y", "grip_z"]]
        again = TrajectorySpec(**config)
        assert again == space
        assert hash(again) == hash(space)

    def test_configs_from_before_there_were_bodies_load(self, spec):
        config = spec.to_config()
        del config["bodies"]
        assert TrajectorySpec(**config) == spec

    @pytest.mark.parametrize(
        ("bodies", "says"),
        [
            ((("grip_x", "grip_y"),), r"\('grip_x', 'grip_y'\) must name one place for each of position"),
            (((),), "must name one place"),
            (("fingers",), "'fingers' must name one place"),
            ((("grip_x", "grip_y", "elbow"),), r"\['elbow'\] are not observations; known: grip_x"),
        ],
    )
    def test_what_is_no_body_is_refused(self, space, bodies, says):
        with pytest.raises(ValueError, match=says):
            replace(space, bodies=bodies)

    def test_without_positions_there_are_none(self):
        with pytest.raises(ValueError, match="must name one place"):
            TrajectorySpec(("a",), ("q",), bodies=(("q",),))


@pytest.mark.parametrize(
    "wrong",
    [
        {"action_names": ()},
        {"observation_names": ()},
        {"action_names": ("a", "a")},
        {"observation_names": ("x", "x", "vx")},
        {"position": ("z",)},
        {"velocity": ("z",)},
        {"rates": ("z",)},
        {"held": ("x",)},
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
