"""Stops lead to goals beyond a plan's reach, through visited space."""

from __future__ import annotations

import numpy as np
import pytest

from diffplan.planner.plan import Plan
from diffplan.planner.roadmap import IN_REACH, LEG, ROOM, Roadmap, through
from diffplan.planner.spec import TrajectorySpec

SPAN = 2.0
"""Position units that a plan reaches: the plants' pace is 1."""

LINE = TrajectorySpec(("dx",), ("x",), ("x",), dt_seconds=1.0)


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


def length_of(way) -> float:
    return float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())


def is_visited(plant, points) -> np.ndarray:
    """Whether each of the points (n, P) lies in a visited voxel."""
    index = np.floor((np.asarray(points) - plant.origin.double().numpy()) / plant.config.voxel).astype(int)
    return plant.visited.numpy()[tuple(index.T)] > 0.5


def u_shape(c: np.ndarray) -> np.ndarray:
    """Corridors 0.3 wide along x = 2, y = 9 and x = 8; in three axes all of them at z = 5."""
    near = np.abs(c - np.array([0, 9, 5])[: c.shape[-1]]) < 0.15
    arms = (np.abs(np.abs(c[..., 0] - 5) - 3) < 0.15) & (c[..., 1] < 9.15)
    across = near[..., 1] & (np.abs(c[..., 0] - 5) < 3.15)
    return (arms | across) & (near[..., 2] if c.shape[-1] == 3 else True)


class TestWaysOfKnownLength:
    @pytest.mark.parametrize(("axes", "voxel"), [(2, 0.1), (3, 0.2)])
    def test_around_a_u(self, make_plant, axes, voxel):
        """Up 7, across 6, down 7: corners are cut, and ends jog to a voxel's centre, by a few voxels."""
        roadmap = Roadmap(make_plant(axes, voxel=voxel, visited=u_shape), SPAN)
        start, goal = ([x, 2.0, 5.0][:axes] for x in (2.0, 8.0))
        way = roadmap.route(start, goal)
        assert length_of(way) == pytest.approx(20, abs=4 * voxel)
        assert is_visited(roadmap.plant, way[1:-1]).all()
        np.testing.assert_array_equal(way[[0, -1]], [start, goal])

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_along_an_axis_and_along_the_diagonal(self, make_plant, axes):
        """Both are exact on a grid whose voxels touch at their corners too."""
        roadmap = Roadmap(make_plant(axes, voxel=0.25), SPAN)
        for way in (np.eye(axes)[0], np.ones(axes)):
            start = np.full(axes, 2.125)
            assert length_of(roadmap.route(start, start + 5 * way)) == pytest.approx(5 * np.linalg.norm(way), abs=0.5)

    def test_the_same_there_and_back(self, make_plant):
        rng = np.random.default_rng(0)
        roadmap = Roadmap(make_plant(voxel=0.1, visited=lambda c: np.cos(2 * c).sum(-1) < 0.8), SPAN)
        for start, goal in rng.uniform(0.5, 9.5, (10, 2, 2)):
            there, back = roadmap.route(start, goal), roadmap.route(goal, start)
            assert length_of(there) == pytest.approx(length_of(back), rel=0.05)
            assert length_of(there) >= np.linalg.norm(goal - start) - 1e-9

    def test_it_keeps_away_from_what_was_not_visited(self, make_plant):
        """From place to place at an edge it leaves the edge, where that costs little."""
        plant = make_plant(voxel=0.05)
        way = Roadmap(plant, SPAN).route([1.0, 0.05], [9.0, 0.05])
        middle = way[np.abs(way[:, 0] - 5) < 2]
        assert plant.depth(middle)[0].min() > 0.2
        assert length_of(way) < 9


def with_holes(c: np.ndarray) -> np.ndarray:
    return np.cos(2 * c).sum(-1) < 0.8


@pytest.mark.parametrize("span", [0.7, 2.0, 5.0])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_stops_are_visited_a_span_apart_and_end_at_the_goal(make_plant, axes, span):
    plant = make_plant(
        axes, voxel=0.05 if axes < 3 else 0.25, visited=lambda c: (np.cos(2 * c).sum(-1) < 0.8) | (axes == 1)
    )
    rng, roadmap = np.random.default_rng(axes), Roadmap(plant, span)
    places = roadmap._places[rng.integers(len(roadmap._places), size=(20, 2))]
    many = 0
    for start, goal in places:
        way, stops = roadmap.route(start, goal), np.array(roadmap.stops(start, goal))
        np.testing.assert_array_equal(stops[-1], goal)
        if len(way) == 2:
            continue
        assert is_visited(plant, stops).all()
        assert gaps_of(start, stops).max() <= IN_REACH * span + 1e-9
        assert len(stops) <= 1 + length_of(way) / ((1 - ROOM) * LEG * span)
        many += len(stops) > 1
    assert many >= 1


@pytest.mark.parametrize("axes", [1, 3])
def test_unjoined_places_in_one_and_three_axes(make_plant, axes):
    plant = make_plant(axes, voxel=0.2, visited=lambda c: np.abs(c[..., 0] - 5) > 2)
    start, goal = np.full(axes, 5.0), np.full(axes, 5.0)
    start[0], goal[0] = 1.0, 9.0
    roadmap = Roadmap(plant, SPAN)
    np.testing.assert_array_equal(roadmap.route(start, goal), [start, goal])
    stops = np.array(roadmap.stops(start, goal))
    np.testing.assert_array_equal(stops[-1], goal)
    assert gaps_of(start, stops).max() <= IN_REACH * SPAN + 1e-9
    assert (np.diff(stops[:, 0]) > 0).all()


def test_a_start_and_a_goal_off_the_visited_space(make_plant):
    """The way begins and ends there, and runs through visited space in between."""
    plant = make_plant(voxel=0.1, visited=u_shape)
    start, goal = [2.6, 2.0], [7.5, 3.0]
    roadmap = Roadmap(plant, SPAN)
    way = roadmap.route(start, goal)
    np.testing.assert_array_equal(way[[0, -1]], [start, goal])
    assert is_visited(plant, way[1:-1]).all()
    assert length_of(way) == pytest.approx(7 + 6 + 6 + 0.5, abs=0.4)
    assert is_visited(plant, roadmap.stops(start, goal)[:-1]).all()


def test_nearer_stops_are_half_as_far_apart(make_plant):
    roadmap = Roadmap(make_plant(voxel=0.1, visited=u_shape), SPAN)
    start, goal = [2.0, 2.0], [8.0, 2.0]
    usual, nearer, nearest = (np.array(roadmap.stops(start, goal, nearer=n)) for n in (0, 1, 2))
    assert len(nearer) == pytest.approx(2 * len(usual), abs=2)
    assert gaps_of(start, nearer).max() <= LEG * SPAN / 2 * (1 + ROOM) + 1e-9
    assert len(nearest) == pytest.approx(4 * len(usual), abs=4)
    assert gaps_of(start, nearest).max() <= LEG * SPAN / 4 * (1 + ROOM) + 1e-9


def test_many_goals_are_remembered_but_not_all(make_plant, monkeypatch):
    from diffplan.planner import roadmap as module

    monkeypatch.setattr(module, "TREES", 3)
    roadmap = Roadmap(make_plant(voxel=0.5), SPAN)
    ways = [roadmap.route([1, 1], [9, y]) for y in range(1, 9)]
    assert len(roadmap._trees) == 3
    for y, way in zip(range(1, 9), ways, strict=True):
        np.testing.assert_array_equal(roadmap.route([1, 1], [9, y]), way)


class TestLegsThatFindNoWay:
    """A line of places; a leg that is longer than `able` finds no way."""

    @staticmethod
    def planned(able: float, *, goal: float = 16.0, usual: float = 8.0) -> tuple[list[tuple[float, float]], Plan]:
        tried = []

        def leg(here, to):
            tried.append((float(here[0]), float(to[0])))
            states = np.array([[[0.0, here[0], -1.0], [0.0, to[0], 1.0]]], np.float32)
            zero = np.zeros(1)
            return Plan(LINE, states, np.ones(1, dtype=int), zero, zero, zero)

        def between(here, to, nearer):
            most = usual * 0.5**nearer
            count = max(1, int(np.ceil((to[0] - here[0]) / most - 1e-9)))
            return [[here[0] + (to[0] - here[0]) * (i + 1) / count] for i in range(count)]

        def blocked(plan):
            return plan.trajectories[0, 1, 1] - plan.trajectories[0, 0, 1] > able

        return tried, through(np.zeros(1, np.float32), [[goal]], leg=leg, between=between, blocked=blocked)

    @pytest.mark.parametrize(("able", "legs"), [(8.0, 2), (4.0, 4), (2.0, 8), (1.0, 16)])
    def test_stops_come_as_near_as_they_have_to(self, able, legs):
        tried, plan = self.planned(able)
        assert sum(to - here <= able for here, to in tried) == legs
        assert plan.positions[0, -1] == pytest.approx([16.0])

    def test_a_goal_within_reach_that_is_not_found_has_stops_too(self):
        """One halving of the usual distance would put none before it."""
        tried, _ = self.planned(1.0, goal=2.0)
        assert tried == [(0.0, 2.0), (0.0, 1.0), (1.0, 2.0)]

    def test_after_so_many_halvings_it_goes_as_well_as_it_can(self):
        tried, plan = self.planned(0.0, goal=1.0)
        assert tried == [(0.0, 1.0)]
        tried, plan = self.planned(0.0, goal=2.0)
        assert len(tried) == 3
        assert plan.positions[0, -1] == pytest.approx([2.0])
