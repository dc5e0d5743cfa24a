"""Stops lead to goals beyond a plan's reach, through visited space."""

from __future__ import annotations

import numpy as np
import pytest

from diffplan.planner.roadmap import IN_REACH, LEG, ROOM, Roadmap

SPAN = 2.0
"""Position units that a plan reaches: the plants' pace is 1."""


def gaps_of(start, stops) -> np.ndarray:
    return np.linalg.norm(np.diff(np.vstack([[start], stops]), axis=0), axis=1)


@pytest.mark.parametrize("axes", [1, 2])
def test_what_is_in_reach_needs_no_stops(make_plant, axes):
    start, goal = np.full(axes, 2.0), np.full(axes, 2.0) + 0.9 * SPAN / np.sqrt(axes)
    (only,) = Roadmap(make_plant(axes), SPAN).stops(start, goal)
    np.testing.assert_array_equal(only, goal)


def test_stops_lead_around_a_wall(make_plant):
    plant = make_plant(voxel=0.1, visited=lambda c: (np.abs(c[..., 0] - 5) > 0.5) | (c[..., 1] > 8))
    start, goal = [2.0, 2.0], [8.0, 2.0]
    stops = np.array(Roadmap(plant, SPAN).stops(start, goal))
    np.testing.assert_array_equal(stops[-1], goal)
    assert (plant.depth(stops)[0] > 0).all()
    assert stops[:, 1].max() > 8
    assert gaps_of(start, stops).max() <= IN_REACH * SPAN + 1e-9


@pytest.mark.parametrize("visited", ["nowhere", "apart"])
def test_where_nothing_visited_joins_the_two_stops_lie_straight_between(make_plant, visited):
    """Not one point of that way is near a leg's end: it has only its two ends."""
    shape = {"nowhere": lambda c: c[..., 0] > 99, "apart": lambda c: np.abs(c[..., 0] - 5) > 3}[visited]
    start, goal = np.array([1.0, 5.0]), np.array([9.0, 5.0])
    stops = np.array(Roadmap(make_plant(voxel=0.1, visited=shape), SPAN).stops(start, goal))
    np.testing.assert_allclose(stops[-1], goal)
    np.testing.assert_allclose(stops[:, 1], 5)
    gaps = gaps_of(start, stops)
    assert (gaps[:-1] >= (1 - ROOM) * LEG * SPAN - 1e-9).all()
    assert gaps.max() <= IN_REACH * SPAN + 1e-9
