from __future__ import annotations

import numpy as np
import pytest

from diffplan.planner.episodes import Episodes, concatenate


def raw() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(1)
    lengths = (3, 1, 5)
    return (
        [rng.normal(size=(n + 1, 2)).astype(np.float32) for n in lengths],
        [rng.normal(size=(n, 1)).astype(np.float32) for n in lengths],
    )


def test_from_arrays_and_episode_are_inverse():
    observations, actions = raw()
    made = Episodes.from_arrays(observations, actions)
    assert len(made) == 3
    assert made.lengths.tolist() == [3, 1, 5]
    assert made.steps == 9
    for i in range(3):
        o, a = made.episode(i)
        np.testing.assert_array_equal(o, observations[i])
        np.testing.assert_array_equal(a, actions[i])


def test_the_last_state_carries_no_action():
    made = Episodes.from_arrays(*raw())
    assert (made.actions[made.offsets[1:] - 1] == 0).all()


def test_concatenate_keeps_every_episode():
    observations, actions = raw()
    parts = [Episodes.from_arrays(observations[i], actions[i]) for i in (slice(0, 1), slice(1, 3))]
    assert concatenate(parts).fingerprint() == Episodes.from_arrays(observations, actions).fingerprint()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["observations", "actions"])
def test_values_that_are_no_numbers_are_named(name, bad):
    arrays = dict(zip(("observations", "actions"), raw(), strict=True))
    arrays[name][2][4, 0] = bad
    with pytest.raises(ValueError, match=f"{name} .* in 1 steps, first in episode 2 at step 4"):
        Episodes.from_arrays(**arrays)


def test_fingerprint_changes_with_any_value():
    observations, actions = raw()
    prints = {Episodes.from_arrays(observations, actions).fingerprint()}
    assert prints == {Episodes.from_arrays(*raw()).fingerprint()}
    for array in (*observations, *actions):
        for index in np.ndindex(array.shape):
            before, array[index] = array[index], np.nextafter(array[index], np.float32(9))
            prints.add(Episodes.from_arrays(observations, actions).fingerprint())
            array[index] = before
    assert len(prints) == 1 + sum(a.size for a in (*observations, *actions))


def test_fingerprint_sees_where_episodes_begin():
    made = Episodes.from_arrays(*raw())
    other = Episodes(made.observations, made.actions, np.array([0, 3, 6, 12]))
    assert other.fingerprint() != made.fingerprint()


@pytest.mark.parametrize(
    ("observations", "actions"),
    [
        ([], []),
        ([np.zeros((3, 2))], []),
        ([np.zeros((3, 2))], [np.zeros((3, 1))]),
        ([np.zeros((1, 2))], [np.zeros((0, 1))]),
        ([np.zeros(3)], [np.zeros((2, 1))]),
        ([np.zeros((3, 2)), np.zeros((3, 4))], [np.zeros((2, 1))] * 2),
        ([np.zeros((3, 2))] * 2, [np.zeros((2, 1)), np.zeros((2, 3))]),
    ],
)
def test_refusals(observations, actions):
    with pytest.raises(ValueError):
        Episodes.from_arrays(observations, actions)
