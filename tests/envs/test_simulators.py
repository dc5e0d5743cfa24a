"""Simulators side by side: one that breaks or falls is left alone, and the others go on to the bit."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from diffplan.envs.simulators import UNSTABLE, Simulators
from diffplan.envs.tasks import find_task

SEEDS = [11, 12, 13]
STEPS, AT = 12, 5  # the fifth step is the one that breaks


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo writes its log into the folder where it runs."""
    monkeypatch.chdir(tmp_path)


def actions(width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, len(SEEDS), width))


def run(name: str = "halfcheetah-medium", spoil: Callable | None = None, which: int = 1) -> tuple:
    """Observations (T + 1, B, O), rewards (T, B), ended (T, B) and faults; `spoil` meets an environment once."""
    task = find_task(name)
    with Simulators(task, len(SEEDS)) as simulators:
        seen, rewards, ended = [simulators.reset(SEEDS)[0]], [], []
        for step, chosen in enumerate(actions(len(task.spec.action_names)), start=1):
            if spoil and step == AT:
                spoil(simulators.envs[which], chosen[which])
            observation, reward, over = simulators.step(chosen)
            seen.append(observation)
            rewards.append(reward)
            ended.append(over)
        return np.array(seen), np.array(rewards), np.array(ended), dict(simulators.faults)


def unseen(env, action) -> None:
    """An observation that is no number."""
    step = env.step

    def broken(action):
        observation, *rest = step(action)
        observation[2] = np.nan
        return observation, *rest

    env.step = broken


def unpaid(env, action) -> None:
    step = env.step
    env.step = lambda action: (lambda o, r, *rest: (o, float("inf"), *rest))(*step(action))


def place(name: str, value: float) -> Callable:
    def spoil(env, action) -> None:
        getattr(env.data, name)[3] = value

    return spoil


def mad(env, action) -> None:
    action[:] = np.nan


FAULTS = [
    pytest.param(unseen, "observation 2 is not finite", id="observation"),
    pytest.param(unpaid, "the reward is not finite", id="reward"),
    pytest.param(mad, "the reward is not finite", id="action"),
    *[
        pytest.param(place(name, value), "MuJoCo found the simulation unstable", id=f"{name}={value}")
        for name in ("qpos", "qvel")
        for value in (np.nan, np.inf, 1e300)
    ],
]


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize(("spoil", "words"), FAULTS)
@pytest.mark.parametrize("which", [0, 2])
def test_one_that_breaks_stops_where_it_was_good_and_the_others_go_on(whole, spoil, words, which):
    seen, rewards, ended, faults = run(spoil=spoil, which=which)
    assert list(faults) == [which]
    assert faults[which].startswith(f"environment {which} broke at step {AT}: {words}")
    others = [i for i in range(len(SEEDS)) if i != which]
    for got, want in zip((seen, rewards, ended), whole, strict=False):
        np.testing.assert_array_equal(got[:, others], want[:, others])
        np.testing.assert_array_equal(got[: AT - 1, which], want[: AT - 1, which])
    np.testing.assert_array_equal(seen[AT:, which], np.broadcast_to(whole[0][AT - 1, which], seen[AT:, which].shape))
    assert (rewards[AT - 1 :, which] == 0).all() and ended[AT - 1 :, which].all()
    assert np.isfinite(seen).all() and np.isfinite(rewards).all()


def test_nothing_breaks_by_itself(whole):
    seen, _, ended, faults = whole
    assert faults == {} and not ended.any()
    assert (np.abs(np.diff(seen, axis=0)).max(axis=2) > 0).all()  # they move


def test_all_of_them_may_break():
    with Simulators(find_task("halfcheetah-medium"), 2) as simulators:
        begun, _ = simulators.reset([1, 2])
        for env in simulators.envs:
            env.data.qvel[0] = np.nan
        seen, rewards, ended = simulators.step(np.zeros((2, 6)))
        assert ended.all() and (rewards == 0).all() and len(simulators.faults) == 2
        np.testing.assert_array_equal(seen, begun)


@pytest.mark.parametrize("name", ["qpos", "qvel"])
def test_what_broke_begins_anew_with_the_next_episode(name):
    task = find_task("halfcheetah-medium")
    with Simulators(task, 1) as simulators, Simulators(task, 1) as fresh:
        simulators.reset([7])
        place(name, np.nan)(simulators.envs[0], None)
        simulators.step(np.zeros((1, 6)))
        assert simulators.faults
        np.testing.assert_array_equal(simulators.reset([7])[0], fresh.reset([7])[0])
        assert simulators.faults == {}
        for chosen in actions(6)[:, :1]:
            for one, other in zip(simulators.step(chosen), fresh.step(chosen), strict=True):
                np.testing.assert_array_equal(one, other)
        assert simulators.faults == {}


def test_unstable_is_what_mujoco_calls_so():
    kinds = mujoco.mjtWarning
    assert (int(kinds.mjWARN_BADQPOS), int(kinds.mjWARN_BADQVEL), int(kinds.mjWARN_BADQACC)) == UNSTABLE


def test_one_that_falls_is_left_alone_and_is_no_fault():
    task = find_task("hopper-medium")
    with Simulators(task, 2) as simulators, Simulators(task, 1) as alone:
        seen, _ = simulators.reset([3, 4])
        alone.reset([4])
        simulators.envs[0].data.qpos[2] = 0.5  # leans more than it may: over with the next step
        fallen, rewards, ended = simulators.step(np.zeros((2, 3)))
        alone.step(np.zeros((1, 3)))
        assert ended.tolist() == [True, False]
        assert not np.array_equal(fallen[0], seen[0])  # the state that it fell into is shown
        assert rewards[0] != 0
        clock = simulators.envs[0].data.time
        for chosen in actions(3)[:, :2]:
            seen, rewards, ended = simulators.step(chosen)
            np.testing.assert_array_equal(seen[0], fallen[0])
            assert rewards[0] == 0 and ended[0]
            beside, reward, _ = alone.step(chosen[1:])
            np.testing.assert_array_equal(seen[1], beside[0])
            assert rewards[1] == reward[0]
        assert simulators.envs[0].data.time == clock and simulators.faults == {}


def test_a_seed_is_an_episode_in_any_slot(whole):
    task = find_task("halfcheetah-medium")
    with Simulators(task, 2) as simulators:
        seen = [simulators.reset(SEEDS[:0:-1])[0]]
        seen += [simulators.step(chosen[:0:-1])[0] for chosen in actions(6)]
    np.testing.assert_array_equal(np.array(seen), whole[0][:, :0:-1])
