"""What a learner's files hold: everything that was saved, no code, and damage is named."""

from __future__ import annotations

import json
import pickle
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from diffplan.envs import behaviour
from diffplan.envs.behaviour import Learner, Recipe, Trajectory, load_trajectories, save_trajectories

RECIPE = Recipe("Hopper-v5", {"easy": -1e9}, "ppo", seed=3)


@pytest.fixture
def learner(tmp_path, monkeypatch) -> Learner:
    """One that trained for a moment and was saved."""
    monkeypatch.setitem(behaviour.SETTINGS, "ppo", {"n_steps": 64, "batch_size": 64, "n_epochs": 1})
    made = Learner(RECIPE, tmp_path / "learner")
    list(made.reach("easy", most_steps=500))
    return made


def episode(steps: int, terminated: bool, seed: int) -> Trajectory:
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
    return Trajectory(rng.normal(size=(steps + 1, 3)), actions, rng.normal(size=steps), terminated)


DAMAGE = [
    lambda data: b"no archive",
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda data: data.replace(np.float64(0.25).tobytes(), np.float64(0.5).tobytes()),
]


class TestFiles:
    @pytest.mark.parametrize("lengths", [(4,), (1, 1, 1), (5, 1, 30, 2)])
    def test_saved_and_loaded_are_inverse(self, lengths, tmp_path):
        whole = [episode(n, i % 2 == 0, i) for i, n in enumerate(lengths)]
        save_trajectories(tmp_path / "experience.npz", whole)
        loaded = load_trajectories(tmp_path / "experience.npz")
        assert [t.terminated for t in loaded] == [t.terminated for t in whole]
        for one, other in zip(loaded, whole, strict=True):
            for a, b in zip(astuple(one)[:3], astuple(other)[:3], strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
        assert [p.name for p in tmp_path.iterdir()] == ["experience.npz"]

    def test_no_episode_at_all_is_no_exception(self, tmp_path):
        save_trajectories(tmp_path / "experience.npz", [])
        assert load_trajectories(tmp_path / "experience.npz") == []

    @pytest.mark.parametrize("damage", DAMAGE)
    def test_damage_is_named(self, damage, tmp_path):
        path = tmp_path / "experience.npz"
        whole = episode(4, True, 0)
        whole.rewards[2] = 0.25
        save_trajectories(path, [whole])
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=r"experience\.npz is damaged.*delete its folder"):
            load_trajectories(path)

    def test_a_missing_array_is_named(self, tmp_path):
        np.savez(tmp_path / "experience.npz", ends=np.array([1]))
        with pytest.raises(ValueError, match=r"experience\.npz is damaged.*terminated"):
            load_trajectories(tmp_path / "experience.npz")

    def test_a_learner_names_its_damaged_experience(self, learner):
        (learner.folder / "experience.npz").write_bytes(b"no archive")
        with pytest.raises(ValueError, match=f"{learner.folder}/experience.npz is damaged"):
            Learner(RECIPE, learner.folder)

    @pytest.mark.parametrize("name", ["learner.pt", "progress.json"])
    def test_a_learner_names_whatever_is_damaged(self, learner, name):
        data = (learner.folder / name).read_bytes()
        (learner.folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=name):
            Learner(RECIPE, learner.folder)


class Bomb:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class TestNoPickle:
    def test_the_bomb_goes_off(self, tmp_path):
        pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))
        assert (tmp_path / "boom").exists()

    def test_learners_hold_tensors_only(self, learner, tmp_path):
        file, boom = learner.folder / "learner.pt", tmp_path / "boom"
        torch.save(torch.load(file, weights_only=True) | {"more": Bomb(boom)}, file)
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            Learner(RECIPE, learner.folder)
        assert not boom.exists()

    def test_experience_holds_numbers_only(self, tmp_path):
        boom = tmp_path / "boom"
        save_trajectories(tmp_path / "experience.npz", [episode(3, True, 0)])
        with np.load(tmp_path / "experience.npz") as arrays:
            held = dict(arrays)
        np.savez(tmp_path / "experience.npz", **held | {"rewards": np.array([Bomb(boom)] * 3, dtype=object)})
        with pytest.raises(ValueError, match=r"experience\.npz is damaged"):
            load_trajectories(tmp_path / "experience.npz")
        assert not boom.exists()

    def test_progress_is_json_and_the_rest_opens_without_pickle(self, learner):
        known = json.loads((learner.folder / "progress.json").read_text())
        assert known["recipe"] == vars(learner.recipe) and known["progress"]["steps"] == learner.progress.steps
        assert "stable-baselines3" in known["versions"]
        torch.load(learner.folder / "learner.pt", weights_only=True)
        with np.load(learner.folder / "experience.npz", allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays)
