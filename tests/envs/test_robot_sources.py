"""Where robots' data may come from: the hub, several datasets together, made here; and what is refused by name."""

from __future__ import annotations

import json

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer

from diffplan.envs import behaviour, datasets
from diffplan.envs.datasets import dataset_of, describe, from_hub, is_local, load_episodes, obtain
from diffplan.envs.tasks import find_task

MEDIUM, EXPERT = "mujoco/hopper/medium-v0", "mujoco/hopper/expert-v0"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "minari").mkdir()
    return tmp_path


@pytest.fixture(autouse=True)
def silent_hub(monkeypatch):
    """Nobody asks the network; what was asked for."""
    asked: list[str] = []

    def silent(dataset_id, task):
        asked.append(dataset_id)
        raise ValueError(f"the hub did not give {dataset_id}")

    monkeypatch.setattr(datasets, "download", silent)
    return asked


def store(dataset_id: str, environment: str | None, ends=(True, False), *, widths=(11, 3), seed: int = 0) -> list:
    """A dataset of random numbers, with an episode of 5, 6, .. steps for each end: failed or cut off."""
    rng, buffers = np.random.default_rng(seed), []
    for steps, failed in enumerate(ends, start=5):
        last = np.arange(steps) == steps - 1
        buffers.append(
            EpisodeBuffer(
                observations=rng.normal(size=(steps + 1, widths[0])),
                actions=rng.uniform(-1, 1, (steps, widths[1])).astype(np.float32),
                rewards=list(rng.normal(size=steps)),
                terminations=list(last & failed),
                truncations=list(last & (not failed)),
            )
        )
    spaces = {
        "observation_space": Box(-np.inf, np.inf, widths[:1], np.float64),
        "action_space": Box(-1, 1, widths[1:], np.float32),
    }
    env = gymnasium.make(environment) if environment else None
    minari.create_dataset_from_buffers(dataset_id, buffers, **{"env": env} if env else spaces)
    if env:
        env.close()
    return buffers


def hub_of(*held: str):
    """A download that makes what a hub holds."""
    asked = []

    def fetch(dataset_id, task):
        asked.append(dataset_id)
        if dataset_id not in held:
            raise ValueError(f"the hub has no {dataset_id}")
        store(dataset_id, "Hopper-v5", seed=len(dataset_id))

    return fetch, asked


@pytest.mark.filterwarnings("ignore")
class TestLoading:
    def test_terminations_and_rewards_of_each_episode(self):
        buffers, task = store("me/own-v0", "Hopper-v5", (True, False, True)), find_task("hopper-medium")
        episodes = load_episodes("me/own-v0", task)
        assert episodes.terminated.tolist() == [True, False, True]
        for i, buffer in enumerate(buffers):
            got = episodes.rewards[episodes.offsets[i] : episodes.offsets[i + 1]]
            want = np.array([*buffer.rewards, 0.0])
            want[-2] -= 100 * buffer.terminations[-1]
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

    def test_mazes_end_nowhere(self):
        store("me/maze-v0", None, widths=(4, 2))
        assert load_episodes("me/maze-v0", find_task("maze2d")).terminated is None

    def test_joined_by_a_plus_they_are_one_after_the_other(self):
        task = find_task("hopper-medium-expert")
        store("me/a-v0", "Hopper-v5", (True, False), seed=1)
        store("me/b-v0", "Hopper-v5", (False, False, True), seed=2)
        a, b, both = (load_episodes(name, task) for name in ("me/a-v0", "me/b-v0", "me/a-v0+me/b-v0"))
        assert both.terminated.tolist() == [True, False, False, False, True]
        assert both.lengths.tolist() == [*a.lengths, *b.lengths]
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(
                getattr(both, name), np.concatenate([getattr(a, name), getattr(b, name)]), err_msg=name
            )
        assert load_episodes("me/b-v0+me/a-v0", task).lengths.tolist() == [*b.lengths, *a.lengths]

    def test_several_are_local_where_all_are(self):
        store("me/a-v0", "Hopper-v5")
        assert is_local("me/a-v0") and not is_local("me/a-v0+me/b-v0") and not is_local("me/b-v0+me/a-v0")
        with pytest.raises(ValueError, match="no local dataset 'me/b-v0'; local ones: me/a-v0"):
            load_episodes("me/a-v0+me/b-v0", find_task("hopper-medium"))
        store("me/b-v0", "Hopper-v5")
        assert is_local("me/a-v0+me/b-v0")


@pytest.mark.filterwarnings("ignore")
class TestRefusals:
    def test_another_version_of_the_environment(self, folders):
        store("me/old-v0", "Hopper-v5")
        file = folders / "minari" / "me" / "old-v0" / "data" / "metadata.json"
        meta = json.loads(file.read_text())
        spec = json.loads(meta["env_spec"])
        meta["env_spec"] = json.dumps(spec | {"id": "Hopper-v4"})
        file.write_text(json.dumps(meta))
        with pytest.raises(ValueError) as refused:
            load_episodes("me/old-v0", find_task("hopper-medium"))
        said = str(refused.value)
        assert "'me/old-v0'" in said and "recorded in Hopper-v4, version 4" in said and "Hopper-v5" in said
        assert "diffplan data collect hopper-medium" in said

    def test_another_environment(self):
        store("me/walks-v0", "Walker2d-v5", widths=(17, 6))
        with pytest.raises(ValueError, match=r"me/walks-v0.*in Walker2d-v5, another environment.*runs Hopper-v5"):
            load_episodes("me/walks-v0", find_task("hopper-medium"))
        assert len(load_episodes("me/walks-v0", find_task("walker2d-medium"))) == 2

    def test_ants_without_their_contact_forces(self):
        store("me/ant-v0", None, widths=(27, 8))
        with pytest.raises(ValueError, match=r"me/ant-v0.*27 observation and 8 action columns.* 105 \("):
            load_episodes("me/ant-v0", find_task("ant-medium"))

    def test_one_bad_part_of_several_is_the_one_that_is_named(self):
        store("me/a-v0", "Hopper-v5")
        store("me/walks-v0", "Walker2d-v5", widths=(17, 6))
        with pytest.raises(ValueError, match=r"'me/walks-v0' does not fit task hopper-medium"):
            load_episodes("me/a-v0+me/walks-v0", find_task("hopper-medium"))

    def test_where_nothing_says_which_environment_it_was_widths_decide(self):
        store("me/plain-v0", None)
        assert len(load_episodes("me/plain-v0", find_task("hopper-medium"))) == 2


@pytest.mark.filterwarnings("ignore")
class TestHub:
    def test_it_gives_what_a_task_needs_and_that_is_its_data_from_then_on(self, monkeypatch):
        fetch, asked = hub_of(MEDIUM, EXPERT)
        monkeypatch.setattr(datasets, "download", fetch)
        task = find_task("hopper-medium-expert")
        assert dataset_of(task) == task.dataset == "diffplan/hopper/medium-expert-v0"
        assert list(obtain(task)) == [(0, 1, f"asking the Minari hub for {MEDIUM} and {EXPERT}")]
        assert asked == [MEDIUM, EXPERT]
        assert dataset_of(task) == f"{MEDIUM}+{EXPERT}" and is_local(dataset_of(task))
        assert load_episodes(dataset_of(task), task).terminated.tolist() == [True, False] * 2
        assert list(obtain(task)) == [] and from_hub(task) and asked == [MEDIUM, EXPERT]  # not asked again
        assert dataset_of(find_task("hopper-medium")) == MEDIUM  # a part of it is another task's data

    def test_what_was_made_here_comes_first(self, silent_hub):
        task = find_task("hopper-medium")
        store(task.dataset, "Hopper-v5")
        store(MEDIUM, "Hopper-v5")
        assert dataset_of(task) == task.dataset
        assert list(obtain(task)) == [] and silent_hub == []

    def test_half_of_it_is_not_enough_and_is_not_fetched_twice(self, monkeypatch):
        task = find_task("hopper-medium-expert")
        fetch, asked = hub_of(MEDIUM)
        monkeypatch.setattr(datasets, "download", fetch)
        assert not from_hub(task) and asked == [MEDIUM, EXPERT]
        assert dataset_of(task) == task.dataset
        fetch, asked = hub_of(EXPERT)
        monkeypatch.setattr(datasets, "download", fetch)
        assert from_hub(task) and asked == [EXPERT]

    def test_it_has_no_replays(self, silent_hub):
        task = find_task("hopper-medium-replay")
        assert task.hub == () and not from_hub(task) and silent_hub == []
        with pytest.raises(
            ValueError, match=r"not on this machine; make it with: diffplan data collect hopper-medium-"
        ):
            next(obtain(task))

    def test_datasets_asked_for_by_name_are_fetched_part_by_part(self, monkeypatch, silent_hub):
        with pytest.raises(ValueError, match=f"did not give {MEDIUM}"):
            next(obtain(find_task("hopper-medium"), f"{MEDIUM}+{EXPERT}"))
        fetch, asked = hub_of(MEDIUM, EXPERT)
        monkeypatch.setattr(datasets, "download", fetch)
        assert list(obtain(find_task("hopper-medium"), f"{MEDIUM}+{EXPERT}")) == []
        assert asked == [MEDIUM, EXPERT] and is_local(f"{MEDIUM}+{EXPERT}")


class TestMaking:
    def test_what_takes_long_has_to_be_asked_for(self, silent_hub):
        task = find_task("hopper-medium")
        found = obtain(task)
        assert next(found).words == f"asking the Minari hub for {MEDIUM}"
        with pytest.raises(ValueError) as refused:
            next(found)
        said = str(refused.value)
        assert "the data of hopper-medium is not on this machine and the Minari hub did not give it" in said
        assert f"diffplan data collect hopper-medium (about {task.collect_minutes:.0f} minutes on 2 cores)" in said
        assert silent_hub == [MEDIUM] and not is_local(task.dataset)

    def test_asked_for_with_steps_it_is_made(self, monkeypatch):
        monkeypatch.setattr(behaviour, "CHUNK", 200)  # less than SAC's random beginning: nothing is trained
        task = find_task("hopper-medium")
        words = [now.words.split(":")[0] for now in obtain(task, steps=200, seed=1)]
        assert list(dict.fromkeys(words)) == [
            f"asking the Minari hub for {MEDIUM}",
            "training the medium policy",
            "recording the medium policy",
        ]
        made = describe(task.dataset).provenance
        assert made["policy"]["algorithm"] == "sac" and made["policy"]["seed"] == 1
        assert describe(task.dataset).steps >= 200 and dataset_of(task) == task.dataset
