"""Behaviour policies: what a learner keeps in its folder is what it was."""

from __future__ import annotations

import sys
from dataclasses import astuple

import gymnasium
import numpy as np
import pytest
import torch

from diffplan.envs import behaviour
from diffplan.envs.behaviour import Learner, Recipe

LEVELS = {"easy": -1e9, "hard": 1e9}
FALLING = "diffplan-test/Pendulum-v0"  # takes actions between -3 and 3, falls soon, and is cut off after 6 steps
SMALL = {
    "sac": {"learning_starts": 500, "batch_size": 32, "buffer_size": 5000},
    "ppo": {"n_steps": 64, "batch_size": 64, "n_epochs": 2},
}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Learners that take moments, and an environment whose episodes end either way."""
    entry = "gymnasium.envs.mujoco.inverted_pendulum_v5:InvertedPendulumEnv"
    gymnasium.register(FALLING, entry_point=entry, max_episode_steps=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(behaviour, "SETTINGS", SMALL)
        patch.setattr(behaviour, "CHUNK", 300)
        yield
    del gymnasium.registry[FALLING]


def recipe(algorithm: str, environment: str = "Hopper-v5", **options: object) -> Recipe:
    return Recipe(environment, LEVELS, algorithm, **{"seed": 3} | options)


@pytest.fixture(scope="module", params=["sac", "ppo"])
def learner(request, tmp_path_factory) -> Learner:
    """One that trained for a moment and was saved."""
    made = Learner(recipe(request.param), tmp_path_factory.mktemp("learners") / request.param)
    assert [p.steps for p in made.reach("hard", most_steps=600)][-1] >= 600
    return made


def assert_same(one, other) -> None:
    """Nested parameters or arrays, equal to the bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor | np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


class Still:
    """Stands in for a random generator: every number that it draws is the same."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def standard_normal(self, shape) -> np.ndarray:
        return np.full(tuple(shape), self.value)


def seen(learner: Learner, count: int = 40) -> np.ndarray:
    return np.concatenate([t.observations for t in learner.history])[:count]


def test_a_learner_opened_again_is_the_same(learner):
    again = Learner(learner.recipe, learner.folder)
    assert again.model is not learner.model
    assert_same(again.model.get_parameters(), learner.model.get_parameters())
    assert_same([astuple(t) for t in again.history], [astuple(t) for t in learner.history])
    assert again.progress == learner.progress
    assert again.model.num_timesteps == learner.model.num_timesteps == learner.progress.steps
    assert {p.name for p in learner.folder.iterdir()} == {
        "learner.pt",
        "experience.npz",
        "progress.json",
        "hard.safetensors",
    }


def test_one_that_begins_anew_is_another(learner, tmp_path):
    fresh = Learner(learner.recipe, tmp_path / "new")
    assert not fresh.history and fresh.progress.steps == 0 and not (tmp_path / "new").exists()
    with pytest.raises(AssertionError):
        assert_same(fresh.model.get_parameters(), learner.model.get_parameters())
    with pytest.raises(ValueError, match="did not reach 'easy' yet"):
        learner.policy("easy")


def test_history_is_what_the_environment_does(learner):
    """Each step, taken from the recorded state, leads to the recorded next one."""
    env, trajectory = gymnasium.make("Hopper-v5").unwrapped, learner.history[0]
    assert len(trajectory.observations) == len(trajectory.actions) + 1 == len(trajectory.rewards) + 1
    assert trajectory.terminated and (np.abs(trajectory.actions) <= 1).all()
    env.reset(seed=0)
    first = trajectory.observations[0]
    env.set_state(np.concatenate([[0], first[:5]]), first[5:])
    for step, action in enumerate(trajectory.actions):
        observation, reward, terminated, _, _ = env.step(action)
        np.testing.assert_allclose(observation, trajectory.observations[step + 1], atol=1e-5)
        assert reward == pytest.approx(trajectory.rewards[step], abs=1e-3)
        assert terminated == (step == len(trajectory.actions) - 1)
    env.close()


def test_the_replay_buffer_is_filled_as_if_it_had_been_lived(tmp_path):
    lived = Learner(recipe("sac", FALLING), tmp_path)
    list(lived.reach("hard", most_steps=400))
    buffers = [learner.model.replay_buffer for learner in (lived, Learner(lived.recipe, tmp_path))]
    finished = sum(len(t.actions) for t in lived.history)
    assert lived.progress.steps - 6 < finished == buffers[1].pos <= buffers[0].pos
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        one, other = (getattr(b, name)[:finished] for b in buffers)
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, atol=1e-6 if name == "actions" else 0, err_msg=name)
    dones, timeouts = buffers[1].dones[:finished, 0], buffers[1].timeouts[:finished, 0]
    assert dones.sum() == len(lived.history)
    assert 0 < timeouts.sum() == sum(not t.terminated for t in lived.history) < dones.sum()
    assert np.abs(buffers[1].actions).max() <= 1 < np.abs(np.concatenate([t.actions for t in lived.history])).max()


def test_a_level_whose_budget_ran_out_is_trained_on_with_more(tmp_path):
    first = Learner(recipe("ppo"), tmp_path)
    list(first.reach("hard", most_steps=500))
    then = first.progress.levels["hard"]
    assert then["reached"] is False and then["steps"] == first.progress.steps == 512
    assert then["episodes"] == len(first.history)
    again = Learner(recipe("ppo"), tmp_path)
    assert list(again.reach("hard", most_steps=500)) == []  # the budget is used up
    assert again.progress.levels["hard"] == then
    before = again.policy("hard")(seen(first), Still())
    assert [p.steps for p in again.reach("hard", most_steps=1000)] == [1024]
    now = Learner(recipe("ppo"), tmp_path)
    assert now.progress.levels["hard"]["steps"] == 1024 and not now.progress.levels["hard"]["reached"]
    assert now.progress.levels["hard"]["episodes"] == len(now.history) > then["episodes"]
    assert not np.array_equal(now.policy("hard")(seen(first), Still()), before)


def test_a_level_is_reached_once_and_kept_while_training_goes_on(tmp_path):
    learner = Learner(recipe("ppo"), tmp_path)
    assert len(list(learner.reach("easy", most_steps=100_000))) == 1  # ten episodes of anything do
    known = learner.progress.levels["easy"]
    assert known["reached"] is True
    assert known["recent_return"] == pytest.approx(np.mean([t.total for t in learner.history[-10:]]))
    observations = seen(learner)
    normal = learner.environment.normalize_obs(observations)
    acted = learner.model.predict(normal, deterministic=True)[0]
    assert list(learner.reach("easy", most_steps=100_000)) == []
    list(learner.reach("hard", most_steps=1000))
    assert learner.progress.levels["easy"] == known
    opened = Learner(learner.recipe, tmp_path)
    np.testing.assert_allclose(opened.policy("easy")(observations, Still()), acted, atol=1e-5)
    assert not np.allclose(opened.policy("hard")(observations, Still()), acted, atol=1e-5)


def test_policies_of_two_levels_stand_side_by_side(tmp_path):
    learner = Learner(recipe("ppo"), tmp_path)
    list(learner.reach("easy", most_steps=500))
    list(learner.reach("hard", most_steps=1000))
    easy = learner.policy("easy")
    before = easy(seen(learner), Still())
    learner.policy("hard")
    np.testing.assert_array_equal(easy(seen(learner), Still()), before)


def test_the_policy_is_the_one_that_stable_baselines_trained(learner):
    opened = Learner(learner.recipe, learner.folder)
    observations, policy = seen(learner), opened.policy("hard")
    shown = opened.environment.normalize_obs(observations) if learner.recipe.algorithm == "ppo" else observations
    np.testing.assert_allclose(
        policy(observations, Still()), opened.model.predict(shown, deterministic=True)[0], atol=1e-5
    )


def test_the_policy_explores_as_it_did_while_it_learned(learner):
    """One deviation from the mean, and squashed or clipped as the algorithm does."""
    opened = Learner(learner.recipe, learner.folder)
    got = opened.policy("hard")(seen(learner), Still(1.0))
    network = opened.model.policy
    with torch.no_grad():
        if learner.recipe.algorithm == "sac":
            mean, log_std, _ = network.actor.get_action_dist_params(torch.as_tensor(seen(learner)).float())
            wanted = torch.tanh(mean + log_std.exp())
        else:
            shown = torch.as_tensor(opened.environment.normalize_obs(seen(learner))).float()
            mean = network.action_net(network.mlp_extractor(shown)[0])
            wanted = (mean + network.log_std.exp()).clamp(-1, 1)
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_policy_is_all_in_its_generator_and_its_actions_can_be_taken(learner):
    policy = learner.policy("hard")
    observations = np.concatenate([seen(learner), 100 * seen(learner)])
    a, same, other = (policy(observations, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, same)
    assert a.shape == (len(observations), 3) and not np.array_equal(a, other)
    state = torch.random.get_rng_state()
    policy(observations, np.random.default_rng(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    space = learner.environment.action_space
    assert all(space.contains(action.astype(np.float32)) for action in (*a, *other))
    assert np.ptp(a) > 0.5  # it explores


def test_actions_are_in_the_environments_own_range(tmp_path):
    learner = Learner(recipe("sac", FALLING), tmp_path)
    list(learner.reach("hard", most_steps=300))
    drawn = learner.policy("hard")(np.tile(seen(learner), (50, 1)), np.random.default_rng(0))
    assert 2.5 < np.abs(drawn).max() <= 3


def test_observation_scales_come_back(tmp_path):
    first = Learner(recipe("ppo"), tmp_path)
    list(first.reach("hard", most_steps=500))
    again = Learner(recipe("ppo"), tmp_path)
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(
            getattr(again.environment.obs_rms, name), getattr(first.environment.obs_rms, name), err_msg=name
        )
    policy = again.policy("hard")
    np.testing.assert_array_equal(policy.mean, first.environment.obs_rms.mean)
    np.testing.assert_array_equal(policy.var, first.environment.obs_rms.var)
    visited = np.concatenate([t.observations for t in first.history])  # a few more were seen in unfinished episodes
    np.testing.assert_allclose(policy.mean, visited.mean(0), atol=0.3 * visited.std(0).max())


@pytest.mark.parametrize("change", [{"seed": 4}, {"algorithm": "sac"}, {"environment": "Walker2d-v5"}, {"levels": {}}])
def test_another_recipe_in_the_folder_is_refused(change, tmp_path):
    list(Learner(recipe("ppo"), tmp_path).reach("easy", most_steps=500))
    with pytest.raises(ValueError, match=r"trains .*Hopper-v5.* not .*delete it to begin anew"):
        Learner(Recipe(**vars(recipe("ppo")) | change), tmp_path)


def test_unknown_algorithms_are_refused():
    with pytest.raises(ValueError, match="unknown algorithm 'td3'; known: sac, ppo"):
        recipe("td3")


def test_without_stable_baselines_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(ValueError, match=r"not installed; install it with: pip install 'diffplan\[collect\]'"):
        Learner(Recipe("Hopper-v5", {"medium": 1.0}), tmp_path)
