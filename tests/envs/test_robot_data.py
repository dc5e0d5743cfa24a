"""Robot data made here: recorded as the simulator does it, stored with all that is known of it."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import minari
import numpy as np
import pytest

from diffplan.envs import behaviour
from diffplan.envs.behaviour import load_trajectories
from diffplan.envs.datasets import collect, describe, is_local, load_episodes, obtain
from diffplan.envs.robot_data import RECORDED_TOGETHER, behaviour_folder, record_policy
from diffplan.envs.tasks import find_task

STEPS = 600
KINDS = ("hopper-medium", "hopper-medium-replay", "hopper-medium-expert")


class Chance:
    """Uniform actions; counts how many it gave."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self, observations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        self.given += len(observations)
        return rng.uniform(-1, 1, (len(observations), 3)).astype(np.float32)


class TestRecordPolicy:
    @pytest.mark.parametrize("steps", [1, 500])
    def test_what_was_begun_is_finished_and_nothing_is_dropped(self, steps):
        chance = Chance()
        made = list(record_policy("Hopper-v5", chance, steps=steps, seed=0))
        assert sum(len(t.actions) for t in made) == chance.given >= steps
        assert len(made) >= RECORDED_TOGETHER
        for one in made:
            assert len(one.observations) == len(one.actions) + 1 == len(one.rewards) + 1
            assert one.terminated  # chance never lasts a thousand steps

    def test_time_limits_do_not_count_as_failure(self):
        made = list(record_policy("HalfCheetah-v5", lambda o, rng: np.zeros((len(o), 6)), steps=1, seed=0))
        assert [len(t.actions) for t in made] == [1000] * RECORDED_TOGETHER
        assert not any(t.terminated for t in made)

    def test_a_seed_is_a_recording(self):
        one, same, other = (list(record_policy("Hopper-v5", Chance(), steps=300, seed=s)) for s in (1, 1, 2))
        assert len(one) == len(same)
        for a, b in zip(one, same, strict=True):
            for name in ("observations", "actions", "rewards", "terminated"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert not np.array_equal(one[0].observations, other[0].observations)
        starts = {t.observations[0].tobytes() for t in one}
        assert len(starts) == len(one)  # every episode begins elsewhere

    def test_replaying_the_actions_gives_the_observations(self):
        env = gymnasium.make("Hopper-v5").unwrapped
        for one in list(record_policy("Hopper-v5", Chance(), steps=1, seed=3))[:4]:
            env.reset(seed=0)
            env.set_state(np.concatenate([[0], one.observations[0][:5]]), one.observations[0][5:])
            for step, action in enumerate(one.actions):
                observation, reward, terminated, _, _ = env.step(action)
                np.testing.assert_allclose(observation, one.observations[step + 1], atol=1e-5)
                assert reward == pytest.approx(one.rewards[step], abs=1e-3)
            assert terminated
        env.close()


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Data of each kind in folders of its own, and what was said while it was made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(behaviour.SETTINGS, "ppo", {"n_steps": 64, "batch_size": 64, "n_epochs": 2})
        patch.setattr(behaviour, "CHUNK", 250)
        said = {name: list(collect(find_task(name), steps=STEPS, seed=5, algorithm="ppo")) for name in KINDS}
        yield said


def recorded(name: str) -> list:
    return list(minari.load_dataset(find_task(name).dataset).iterate_episodes())


def learner_folder():
    return behaviour_folder() / "hopper-ppo-5"


def test_one_learner_serves_all_kinds(collected):
    assert [p.name for p in behaviour_folder().iterdir()] == ["hopper-ppo-5"]
    assert {p.suffix for p in learner_folder().iterdir()} == {".pt", ".npz", ".json", ".safetensors"}
    assert any(now.words.startswith("training the medium policy") for now in collected["hopper-medium"])
    for later in KINDS[1:]:  # its budget is used up, so nobody trains on
        assert not any(now.words.startswith("training") for now in collected[later])
    reached = [describe(find_task(name).dataset).provenance["policy"]["reached"] for name in KINDS]
    assert reached[0]["medium"] == reached[1]["medium"] == reached[2]["medium"]


@pytest.mark.parametrize("name", KINDS)
def test_progress_rises_and_says_what_goes_on(collected, name):
    phases: dict[str, list[float]] = {}
    for now in collected[name]:
        phase = " ".join(now.words.split()[:3]).rstrip(":")
        phases.setdefault(phase, []).append(now.done / now.total)
    expected = {
        "hopper-medium": ["training the medium", "recording the medium"],
        "hopper-medium-replay": [],
        "hopper-medium-expert": ["recording the medium", "recording the expert"],
    }
    assert list(phases) == expected[name]
    for shares in phases.values():
        assert shares == sorted(shares) and shares[0] > 0
    if phases:
        assert shares[-1] == 1


def test_training_says_how_good_it_is(collected):
    words = [now.words for now in collected["hopper-medium"] if now.words.startswith("training")]
    assert len(words) == 2  # 512 steps each
    goal = find_task("hopper-medium").levels["medium"]
    assert words[-1].endswith(f"of {goal:.0f} after 1,024 steps")
    known = describe(find_task("hopper-medium").dataset).provenance["policy"]["reached"]["medium"]
    assert f"return {known['recent_return']:.0f} of" in words[-1] and known["steps"] == 1024


def test_no_more_is_done_than_there_is(collected):
    assert all(0 <= now.done <= now.total for said in collected.values() for now in said)


@pytest.mark.parametrize("name", KINDS)
def test_provenance_is_what_the_dataset_holds(collected, name):
    task, episodes = find_task(name), recorded(name)
    info = describe(task.dataset)
    made, returns = info.provenance, [e.rewards.sum() for e in episodes]
    levels = {level: task.levels[level] for level in ("medium", "expert")[: 1 + (name == "hopper-medium-expert")]}
    assert made["environment"] == "Hopper-v5" and made["quality"] == task.quality
    assert made["policy"]["algorithm"] == "ppo" and made["policy"]["seed"] == 5
    assert made["policy"]["settings"] == behaviour.SETTINGS["ppo"]
    assert made["policy"]["wanted_return"] == levels
    assert {level: known["reached"] for level, known in made["policy"]["reached"].items()} == dict.fromkeys(
        levels, False
    )
    told = made["recorded"]
    assert (told["episodes"], told["steps"]) == (len(episodes), info.steps) == (info.episodes, info.steps)
    assert info.steps == sum(len(e.actions) for e in episodes)
    assert told["return_mean"] == pytest.approx(np.mean(returns), abs=0.0051)
    assert told["return_std"] == pytest.approx(np.std(returns), abs=0.0051)
    assert told["return_max"] == pytest.approx(np.max(returns), abs=0.0051)
    assert told["failed"] == pytest.approx(np.mean([e.terminations[-1] for e in episodes]), abs=1e-4)
    assert {"mujoco", "stable-baselines3"} <= set(made["versions"])


@pytest.mark.parametrize("name", KINDS)
def test_stored_episodes_are_whole_and_remember_their_environment(collected, name):
    dataset = minari.load_dataset(find_task(name).dataset)
    env = dataset.recover_environment()
    assert env.spec.id == "Hopper-v5"
    env.close()
    for one in recorded(name):
        over = one.terminations | one.truncations
        assert over[-1] and not over[:-1].any() and not (one.terminations & one.truncations).any()
        assert len(one.observations) == len(one.actions) + 1
        assert one.observations.dtype == np.float64 and (np.abs(one.actions) <= 1).all()
    assert name == "hopper-medium-replay" or dataset.total_steps >= STEPS


def test_a_replay_is_all_that_was_tried_until_the_level(collected):
    known = describe(find_task("hopper-medium-replay").dataset).provenance["policy"]["reached"]["medium"]
    tried = load_trajectories(learner_folder() / "experience.npz")[: known["episodes"]]
    episodes = recorded("hopper-medium-replay")
    assert len(episodes) == len(tried) > 10
    for one, other in zip(episodes, tried, strict=True):
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.terminations[-1] == other.terminated


def test_the_medium_half_of_medium_expert_is_as_much_of_the_same(collected):
    """The same policy, seed and starts, only fewer steps: what was recorded first is the same to the bit."""
    alone, both = recorded("hopper-medium"), recorded("hopper-medium-expert")
    np.testing.assert_array_equal(both[0].observations, alone[0].observations)
    np.testing.assert_array_equal(both[0].actions, alone[0].actions)
    halves = [now.words for now in collected["hopper-medium-expert"]]
    medium = halves.index("recording the expert policy")  # episodes recorded before
    lengths = np.array([len(e.actions) for e in both])
    assert len(halves) == len(both)
    assert lengths[:medium].sum() >= STEPS // 2 and lengths[medium:].sum() >= STEPS // 2


@pytest.mark.parametrize("name", KINDS)
def test_loaded_episodes_know_their_ends_and_pay_for_falls(collected, name):
    task, stored = find_task(name), recorded(name)
    episodes = load_episodes(task.dataset, task)
    assert episodes.terminated.tolist() == [bool(e.terminations[-1]) for e in stored]
    for i, one in enumerate(stored):
        np.testing.assert_allclose(episodes.episode(i)[0], one.observations, rtol=1e-6)
        got = episodes.rewards[episodes.offsets[i] : episodes.offsets[i + 1]]
        assert got[-1] == 0
        cost = got[:-1] - one.rewards
        np.testing.assert_allclose(cost[:-1], 0, atol=1e-5)
        assert cost[-1] == pytest.approx(-100 * one.terminations[-1], abs=1e-4)


def test_falls_cost_the_task_its_own_penalty_and_only_where_they_are_known(collected):
    task = find_task("hopper-medium")
    free, dear = (load_episodes(task.dataset, replace(task, fall_penalty=p)) for p in (0.0, 7.0))
    falls = dear.offsets[1:][dear.terminated] - 2
    gap = np.zeros(len(free.rewards))
    gap[falls] = 7
    np.testing.assert_allclose(free.rewards - dear.rewards, gap, atol=1e-5)
    unknown = replace(free, terminated=None)
    np.testing.assert_array_equal(task.rewards(unknown), free.rewards)
    assert task.rewards(replace(free, rewards=None)) is None


def test_what_is_there_is_not_made_again(collected):
    task = find_task("hopper-medium")
    assert is_local(task.dataset) and list(obtain(task)) == []
    with pytest.raises(ValueError, match="is there already"):
        next(collect(task, algorithm="ppo"))


def test_unknown_algorithms_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="unknown algorithm 'td3'"):
        next(collect(find_task("hopper-medium"), algorithm="td3"))
    assert list((tmp_path / "minari").iterdir()) == [] and not (tmp_path / "cache").exists()


def test_a_replay_ends_where_the_level_was_reached_though_the_policy_learned_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(behaviour.SETTINGS, "ppo", {"n_steps": 64, "batch_size": 64, "n_epochs": 1})
    monkeypatch.setattr(behaviour, "CHUNK", 250)
    both, replay = (
        replace(find_task(name), levels={"medium": -1e9, "expert": 1e9})
        for name in ("hopper-medium-expert", "hopper-medium-replay")
    )
    words = [now.words for now in collect(both, steps=1000, algorithm="ppo")]
    assert [w.split(":")[0] for w in words[:2]] == ["training the medium policy", "training the expert policy"]
    list(collect(replay, steps=1000, algorithm="ppo"))
    known = describe(both.dataset).provenance["policy"]["reached"]
    assert known["medium"]["reached"] and known["medium"]["steps"] == 512
    assert not known["expert"]["reached"] and known["expert"]["steps"] == 1024
    tried = load_trajectories(behaviour_folder() / "hopper-ppo-0" / "experience.npz")
    stored = list(minari.load_dataset(replay.dataset).iterate_episodes())
    assert len(stored) == known["medium"]["episodes"] < known["expert"]["episodes"] == len(tried)
    np.testing.assert_array_equal(stored[-1].observations, tried[len(stored) - 1].observations)
