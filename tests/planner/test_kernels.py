"""Compiled loops do what the same lines do in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from diffplan.planner.kernels import bend, interpolate
from diffplan.planner.racing import _bending


@pytest.mark.parametrize("shape", [(9,), (1,), (7, 5), (1, 6), (4, 5, 6)])
def test_between_voxels_fields_are_linear(shape):
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(3, *shape))
    at = rng.uniform(-2, np.array(shape) + 1, (200, len(shape)))
    at[:20] = np.round(at[:20])
    made, beyond = interpolate(fields.reshape(3, -1), np.array(shape), at)
    held = np.clip(at, 0, np.array(shape) - 1)
    want = [ndimage.map_coordinates(field, held.T, order=1) for field in fields]
    np.testing.assert_allclose(made.T, want, atol=1e-12)
    np.testing.assert_allclose(beyond, np.linalg.norm(at - held, axis=1), atol=1e-12)


def test_a_place_that_is_no_number_stays_none():
    made, beyond = interpolate(np.ones((2, 12)), np.array([3, 4]), np.array([[np.nan, 1.0], [1.0, 1.0]]))
    assert np.isnan(made[0]).any() or np.isnan(beyond[0])
    assert made[1].tolist() == [1.0, 1.0]


def bent_in_numpy(plant, first, ends, moving, ahead, weight, rounds, margin):
    """The method's own three lines, on whole arrays."""
    free, held, pull = _bending(first.shape[1], weight)
    points, inside, debt = first.copy(), first.copy(), np.zeros_like(first)
    for _ in range(rounds):
        wanted = inside - debt
        wanted[:, [0, -1]] = ends
        points = free.T @ wanted
        wanted[:, 1] += pull * ahead
        points[moving] = held.T @ wanted[moving]
        reached = points + debt
        depth, deeper = plant.depth(reached)
        steep = np.maximum(np.linalg.norm(deeper, axis=-1, keepdims=True), 0.2)
        inside = reached + np.maximum(margin - depth, 0)[..., None] * deeper / steep
        inside[:, [0, -1]] = ends
        debt = reached - inside
    return points, inside


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_bending_is_its_numpy_self(make_plant, axes):
    plant = make_plant(axes, voxel=0.25, visited=lambda c: np.linalg.norm(c - 5, axis=-1) < 3)
    rng = np.random.default_rng(axes)
    first = 5 + np.cumsum(rng.normal(0, 0.4, (4, 48, axes)), axis=1)
    ends, moving = np.ascontiguousarray(first[:, [0, -1]]), np.array([True, False, True, False])
    ahead = ends[:, 0] + rng.normal(0, 0.1, (4, axes))
    points, inside = first.copy(), first.copy()
    free, held, pull = _bending(48, 10.0)
    bend(points, inside, ends, moving, ahead, free, held, pull, 20, 0.1, *plant.field)
    want = bent_in_numpy(plant, first, ends, moving, ahead, 10.0, 20, 0.1)
    np.testing.assert_allclose(points, want[0], atol=1e-9)
    np.testing.assert_allclose(inside, want[1], atol=1e-9)
