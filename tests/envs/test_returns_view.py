"""Predicted against realised returns: sums in closed form, and a picture that shows them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffplan.envs.colours import AGENT, START
from diffplan.envs.returns_view import realised_returns, returns_picture


@pytest.mark.parametrize("discount", [0.5, 0.99])
def test_equal_rewards_are_a_geometric_series(discount: float) -> None:
    left = 40 - np.arange(40)
    np.testing.assert_allclose(realised_returns(np.full(40, 2.0), discount), 2 * (1 - discount**left) / (1 - discount))


def test_a_single_reward_fades_with_its_distance() -> None:
    rewards = np.zeros(30)
    rewards[20] = 3.0
    steps = np.arange(30)
    wanted = np.where(steps <= 20, 3 * 0.9 ** (20.0 - steps), 0)
    np.testing.assert_allclose(realised_returns(rewards, 0.9), wanted)


def test_each_is_its_reward_and_the_next_discounted() -> None:
    rewards = np.random.default_rng(0).normal(size=50).astype(np.float32)
    returns = realised_returns(rewards, 0.95)
    assert returns.shape == (50,)
    np.testing.assert_allclose(returns[:-1], rewards[:-1] + 0.95 * returns[1:])
    np.testing.assert_allclose(returns[-1], rewards[-1])


def test_refuses_what_has_no_return() -> None:
    with pytest.raises(ValueError):
        realised_returns([], 0.9)
    with pytest.raises(ValueError, match="discount=1"):
        realised_returns([1.0], 1)


def pixels(picture: np.ndarray, colour: str) -> np.ndarray:
    """(h, w) true where a picture has a colour."""
    return (np.abs(picture - 255 * np.array(to_rgb(colour))) <= 3).all(axis=-1)


def test_picture_shows_both() -> None:
    realised = np.linspace(100, 0, 50)
    picture = returns_picture(realised + 20, realised, steps=5 * np.arange(50), title="words " * 60)
    height, width, channels = picture.shape
    assert (picture.dtype, height % 2, width % 2, channels) == (np.uint8, 0, 0, 3)
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()
    assert pixels(picture, AGENT).sum() > 50 and pixels(picture, START).sum() > 50
    # what was predicted stands above what was realised, left of the scatter
    panel = picture[height // 4 : -height // 5, width // 10 : width // 3]
    rows = [np.flatnonzero(pixels(panel, colour).any(axis=1)).mean() for colour in (START, AGENT)]
    assert rows[0] < rows[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0]])
def test_few_or_equal_returns_are_drawn_without_warnings(values: list[float]) -> None:
    assert pixels(returns_picture(values, values), START).any()


def test_refuses_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="2 predicted and 1 realised returns at 2 steps"):
        returns_picture([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at 3 steps"):
        returns_picture([1.0], [1.0], steps=[0, 1, 2])
    with pytest.raises(ValueError, match="at least one"):
        returns_picture([], [])
