import numpy as np
import pytest

from diffplan.benchmarks.metrics import (
    first_touch,
    latched_returns,
    mean_interval,
    normalized_score,
    strict_returns,
)


def test_strict_counts_every_step_at_the_goal_and_latched_from_the_first_touch():
    rewards = [[0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert strict_returns(rewards).tolist() == [2, 0, 5]
    assert latched_returns(rewards).tolist() == [3, 0, 5]
    assert [first_touch(r) for r in rewards] == [2, None, 0]


def test_latched_is_never_below_strict():
    rng = np.random.default_rng(0)
    rewards = [(rng.random(30) < p).astype(float) for p in rng.random(50)]
    assert (latched_returns(rewards) >= strict_returns(rewards)).all()


def test_score_maps_its_range_to_0_and_100():
    assert normalized_score([23.85, 161.86], 23.85, 161.86).tolist() == [0, 100]


def test_interval_covers_the_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    rows = rng.normal(3.0, 2.0, (2000, 100))
    covered = [abs(i.mean - 3.0) <= i.ci95 for i in map(mean_interval, rows)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert mean_interval([1.0]).ci95 == np.inf
