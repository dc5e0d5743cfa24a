"""Space is free where the data has been and close to it, but not behind what the data ran into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from diffplan.planner.episodes import Episodes
from diffplan.planner.plant import GROWN, Plant, _grown, _walls
from diffplan.planner.spec import TrajectorySpec

ANSWER, PUSH, SIDE, GAP = 0.95, 0.1, 4.0, 0.8
DT = {1: 0.05, 2: 0.05, 3: 0.2}
"""Longer where there is more room: voxels are as large as steps, and each must be seen a few times."""
CENTRE = SIDE / 2


def spec_of(axes: int) -> TrajectorySpec:
    position, velocity = tuple("xyz"[:axes]), tuple(f"v{c}" for c in "xyz"[:axes])
    return TrajectorySpec(tuple(f"f{c}" for c in position), position + velocity, position, velocity, DT[axes], 2)


def recorded(axes: int, *, walls: bool = True) -> Episodes:
    """A mass wanders about a room from 0 to 4 along each axis, pushed at random, but more often outwards.

    Walls stop it; without any it is led back before it comes to where they were. What was seen closer than GAP to
    the room's middle is left out: nothing is there, but nobody knows.
    """
    rng, count = np.random.default_rng(axes), 400 if axes == 3 else 120
    place, velocity = rng.uniform(0, SIDE, (count, axes)), np.zeros((count, axes))
    states, actions = [np.hstack([place, velocity])], []
    outwards = rng.choice([-1.0, 1.0], (count, axes))
    for step in range(400):
        if step % 20 == 0:
            outwards = rng.choice([-1.0, 1.0], (count, axes))
        force = np.clip(0.4 * outwards + rng.normal(0, 0.5, (count, axes)), -1, 1)
        if not walls:
            force = np.clip(2 * (CENTRE - place) - velocity, -1, 1) * rng.uniform(0.5, 1, (count, axes))
        velocity = ANSWER * velocity + PUSH * force
        ahead = place + DT[axes] * velocity
        if walls:
            hit = (ahead < 0) | (ahead > SIDE)
            velocity, ahead = np.where(hit, 0.0, velocity), np.clip(ahead, 0, SIDE)
        place = ahead
        states.append(np.hstack([place, velocity]))
        actions.append(force)
    seen, taken = np.array(states).swapaxes(0, 1), np.array(actions).swapaxes(0, 1)
    pieces = [p for s, a in zip(seen, taken, strict=True) for p in outside(s, a, axes)]
    return Episodes.from_arrays([s for s, _ in pieces], [a for _, a in pieces])


def outside(states: NDArray, actions: NDArray, axes: int) -> list[tuple[NDArray, NDArray]]:
    """The pieces of an episode that keep away from the middle."""
    away = np.linalg.norm(states[:, :axes] - CENTRE, axis=1) > GAP
    labels, count = ndimage.label(away)
    runs = [np.flatnonzero(labels == i + 1) for i in range(count)]
    return [(states[run], actions[run[:-1]]) for run in runs if len(run) > 1]


@dataclass(frozen=True)
class Room:
    """A plant that was fitted to such data, and what its grid says; one row per voxel."""

    plant: Plant

    @property
    def centres(self) -> NDArray:
        shape = self.plant.visited.shape
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, len(shape))
        return self.plant.origin.numpy() + (index + 0.5) * self.plant.config.voxel

    @property
    def visited(self) -> NDArray:
        return self.plant.visited.numpy().ravel() > 0.5

    @property
    def free(self) -> NDArray:
        return self.plant.free.numpy().ravel() > 0.5

    @property
    def beyond(self) -> NDArray:
        """How far voxels' centres lie outside the walls."""
        return (np.abs(self.centres - CENTRE) - CENTRE).max(axis=1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def room(request) -> Room:
    return Room(Plant.fit(recorded(request.param), spec_of(request.param)))


class TestWalls:
    def test_the_fit_is_not_misled(self, room):
        np.testing.assert_allclose(room.plant.answer, ANSWER, rtol=1e-4)
        np.testing.assert_allclose(room.plant.push, PUSH, rtol=1e-4)

    def test_what_is_fastest_just_before_it_hits_a_wall_is_not_cut_off(self, room):
        """In three axes the few fastest transitions all end at one."""
        assert (room.plant.cap > 0.9 * room.plant.top).all()

    def test_what_was_visited_is_free(self, room):
        assert room.visited.sum() > 10
        assert room.free[room.visited].all()

    def test_free_space_does_not_grow_behind_walls(self, room):
        """A voxel may lie across a wall; none lies behind it."""
        assert room.beyond[room.free].max() < room.plant.config.voxel / 2 + 1e-6
        everywhere = ndimage.binary_dilation(room.plant.visited.numpy() > 0.5, iterations=GROWN).ravel()
        assert room.beyond[everywhere].max() > 1.4 * room.plant.config.voxel

    def test_it_grows_into_gaps_where_nothing_was_met(self, room):
        """By GROWN voxels on all sides, and no farther."""
        grown = ndimage.binary_dilation(room.plant.visited.numpy() > 0.5, iterations=GROWN).ravel()
        inside = room.beyond < -GROWN * room.plant.config.voxel
        np.testing.assert_array_equal(room.free[inside], grown[inside])
        assert (room.free & ~room.visited)[inside].sum() >= 2 * GROWN
        assert (~room.free)[inside].any()

    def test_depth_is_that_of_free_space(self, room):
        depth = room.plant.depth(room.centres)[0]
        np.testing.assert_array_equal(depth > 0, room.free)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_without_contacts_it_grows_everywhere(axes):
    room = Room(Plant.fit(recorded(axes, walls=False), spec_of(axes)))
    seen = room.plant.visited.numpy() > 0.5
    np.testing.assert_array_equal(room.plant.free.numpy() > 0.5, ndimage.binary_dilation(seen, iterations=GROWN))
    assert room.free.sum() > room.visited.sum() > 0


def test_a_wall_stops_what_comes_from_its_own_side_only():
    """A thin wall that two rooms share, with a passage: what is near the passage is free on both of its sides."""
    visited = torch.zeros(40, 40)
    visited[4:36, 4:36] = 1
    visited[20, 4:24] = 0  # the wall; the passage is above
    plant = Plant(2, 0.05, (40, 40), 0.1)
    plant.visited[:] = visited
    plant.origin[:] = 0
    hits = np.array([[x, y] for y in np.arange(0.45, 2.3, 0.1) for x in (1.95, 2.15)])
    away = np.array([[-1.0, 0.0] if x < 2 else [1.0, 0.0] for x, _ in hits])
    walls = _walls(hits, away, plant)
    assert walls[20, 4:24].all()
    free = _grown(visited.numpy() > 0.5, walls)
    assert not free[20, 4:22].any()
    assert free[visited.numpy() > 0.5].all()
    assert free[2:4, 6:34].all()  # no contact speaks against what is outside the outer walls here


def test_it_is_saved_with_the_plant(tmp_path, room):
    room.plant.save_pretrained(tmp_path)
    assert torch.equal(Plant.from_pretrained(tmp_path).free, room.plant.free)
