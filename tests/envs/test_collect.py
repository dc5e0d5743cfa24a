import json

import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from diffplan.envs.collect import record_maze
from diffplan.envs.datasets import collect, describe, download, is_local, load_episodes, obtain
from diffplan.envs.maze import UMAZE
from diffplan.envs.tasks import find_task


def test_recordings_follow_the_protocol():
    episodes = list(record_maze(UMAZE, steps=3000, seed=1))
    assert sum(len(e.actions) for e in episodes) >= 3000
    for episode in episodes:
        assert len(episode.observations) == len(episode.actions) + 1
        gaps = np.linalg.norm(episode.observations[:, :2] - episode.goal, axis=1)
        assert gaps[-1] <= 0.5 and (gaps[:-1] > 0.5).all()
        assert (np.abs(episode.actions) <= 1).all()
    for before, after in zip(episodes, episodes[1:], strict=False):  # the agent goes on from where it is
        np.testing.assert_array_equal(before.observations[-1], after.observations[0])


def test_recordings_repeat_with_their_seed():
    one, same, other = (next(record_maze(UMAZE, steps=1, seed=s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.observations, same.observations)
    assert one.observations.shape != other.observations.shape or not np.array_equal(
        one.observations, other.observations
    )


def test_recorded_states_are_what_the_simulator_does():
    """Replaying a recorded action in PointMaze from the recorded state leads to the recorded next state."""
    episode = next(record_maze(UMAZE, steps=1, seed=0))
    env = find_task("maze2d").environment()
    env.reset(seed=0)
    env.point_env.set_state(episode.observations[0][:2], episode.observations[0][2:])
    for action, expected in zip(episode.actions[:20], episode.observations[1:21], strict=True):
        np.testing.assert_allclose(env.step(action)[0]["observation"], expected, atol=1e-6)


def test_collected_data_is_a_minari_dataset_with_provenance(data):
    task = find_task("maze2d")
    info = describe(task.dataset)
    made = minari.load_dataset(task.dataset)
    assert made.total_steps == info.steps >= data
    assert made.recover_environment().spec.id == "PointMaze_UMaze-v3"
    assert info.provenance["seed"] == 0 and info.provenance["controller"]["p_gain"] == 10
    assert "mujoco" in info.provenance["versions"]
    episodes = load_episodes(task.dataset, task)
    first = made[0]
    np.testing.assert_allclose(episodes.episode(0)[0], first.observations["observation"], atol=1e-6)
    np.testing.assert_allclose(episodes.episode(0)[1], first.actions)
    assert list(obtain(task)) == []  # what is there is not made again


def test_collecting_twice_is_refused(data):
    with pytest.raises(ValueError, match="is there already"):
        next(collect(find_task("maze2d")))


def test_leftovers_of_a_broken_collection_do_not_stand_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task = find_task("maze2d")
    broken = tmp_path / task.dataset / "data"
    broken.mkdir(parents=True)
    (broken / "main_data.hdf5").write_bytes(b"cut short")
    assert not is_local(task.dataset)
    assert list(obtain(task, steps=500))[-1] == (500, 500, "")
    assert load_episodes(task.dataset, task).steps >= 500


def store(dataset_id, observations, actions):
    from gymnasium.spaces import Box

    buffers = [
        EpisodeBuffer(
            observations=o,
            actions=a,
            rewards=[0.0] * len(a),
            terminations=[False] * len(a),
            truncations=[False] * (len(a) - 1) + [True],
        )
        for o, a in zip(observations, actions, strict=True)
    ]
    minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        observation_space=Box(-np.inf, np.inf, observations[0].shape[1:], np.float64),
        action_space=Box(-1, 1, actions[0].shape[1:], np.float32),
    )


@pytest.mark.filterwarnings("ignore")
def test_foreign_datasets_are_used_or_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task, rng = find_task("maze2d"), np.random.default_rng(0)
    good, actions = rng.normal(size=(30, 4)), rng.uniform(-1, 1, (29, 2)).astype(np.float32)
    store("D4RL/pointmaze/umaze-v2", [good], [actions])
    np.testing.assert_allclose(load_episodes("D4RL/pointmaze/umaze-v2", task).observations, good, atol=1e-6)
    assert list(obtain(task, "D4RL/pointmaze/umaze-v2")) == []  # the cache stands in for the hub
    store("me/wide-v0", [rng.normal(size=(30, 7))], [actions])
    with pytest.raises(ValueError, match=r"me/wide-v0.*7 observation and 2 action columns"):
        load_episodes("me/wide-v0", task)
    bad = good.copy()
    bad[11, 2] = np.nan
    store("me/nan-v0", [good, bad], [actions, actions])
    with pytest.raises(ValueError, match=r"me/nan-v0.*not finite.*episode 1 at step 11"):
        load_episodes("me/nan-v0", task)


def test_a_truncated_dataset_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task = find_task("maze2d")
    list(obtain(task, steps=500))
    file = tmp_path / task.dataset / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"maze2d/umaze-v0.*cannot be read"):
        load_episodes(task.dataset, task)
    (file.parent / "metadata.json").write_text(json.dumps({"total_steps": 3})[:9])
    with pytest.raises(ValueError, match="damaged"):
        describe(task.dataset)


def test_a_hub_that_does_not_answer_says_how_to_collect(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def silent(*_, **__):
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(minari.storage.hosting, "get_cloud_storage", silent)
    monkeypatch.setattr(minari.storage.hosting, "download_dataset", silent)
    with pytest.raises(ValueError, match=r"hub did not give it.*diffplan data collect maze2d-umaze"):
        download("D4RL/pointmaze/umaze-v2", find_task("maze2d"))
