"""Data of other kinds of routes, and the rewards that tasks see in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffplan.envs.collect import DETOURS, REACH, provenance, record_maze
from diffplan.envs.datasets import collect, describe, load_episodes
from diffplan.envs.maze import LARGE, UMAZE
from diffplan.envs.tasks import find_task

STEPS = 6000


def cells_gone(maze, episode) -> int:
    """Cells from the one that an episode begins in to its goal's."""
    return len(maze.route(maze.cell(episode.observations[0]), maze.cell(episode.goal))) - 1


@pytest.mark.parametrize("maze", [UMAZE, LARGE], ids=["umaze", "large"])
def test_stitch_data_never_goes_farther_than_its_reach(maze):
    near = [cells_gone(maze, e) for e in record_maze(maze, steps=STEPS, seed=1, routes="stitch")]
    far = [cells_gone(maze, e) for e in record_maze(maze, steps=STEPS, seed=1)]
    assert max(near) == REACH < max(far)
    assert min(near) >= 0
    assert len(near) > len(far)


@pytest.mark.parametrize("routes", ["shortest", "roundabout", "stitch"])
def test_every_kind_keeps_the_protocol(routes):
    episodes = list(record_maze(UMAZE, steps=2000, seed=2, routes=routes))
    assert sum(len(e.actions) for e in episodes) >= 2000
    for before, after in zip(episodes, episodes[1:], strict=False):
        np.testing.assert_array_equal(before.observations[-1], after.observations[0])
    for episode in episodes:
        assert np.hypot(*(episode.observations[-1, :2] - episode.goal)) <= 0.5
        assert len(episode.observations) == len(episode.actions) + 1


def test_roundabout_data_takes_longer_ways():
    """Half of it goes by way of a random cell: the way per episode is longer, and often than it need be."""
    ways = {}
    for kind in ("shortest", "roundabout"):
        episodes = list(record_maze(UMAZE, steps=15_000, seed=3, routes=kind))
        lengths = [np.linalg.norm(np.diff(e.observations[:, :2], axis=0), axis=1).sum() for e in episodes]
        ways[kind] = np.array(lengths), np.array([cells_gone(UMAZE, e) for e in episodes])
    (short, least), (long, own) = ways["shortest"], ways["roundabout"]
    assert long.mean() > 1.2 * short.mean()
    assert 0.1 < (long > own + 1.5).mean() < DETOURS
    assert (short > least + 1.5).mean() < 0.01


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown routes 'scenic'; known: shortest, roundabout, stitch"):
        next(record_maze(UMAZE, steps=1, seed=0, routes="scenic"))


@pytest.mark.parametrize(
    ("routes", "extra"),
    [("shortest", {}), ("roundabout", {"detours": DETOURS}), ("stitch", {"reach_cells": REACH})],
)
def test_provenance_says_which(routes, extra):
    controller = provenance(5, routes)["controller"]
    assert controller["routes"] == routes
    assert {k: v for k, v in controller.items() if k in ("detours", "reach_cells")} == extra
    assert provenance(5, routes)["seed"] == 5


@pytest.mark.parametrize("kind", ["roundabout", "stitch"])
def test_tasks_collect_their_own_kind(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    task, plain = find_task(f"maze2d-umaze-{kind}"), find_task("maze2d-umaze")
    assert task.routes == kind
    assert task.maze == plain.maze
    assert task.dataset == find_task(f"multi2d-umaze-{kind}").dataset != plain.dataset
    list(collect(task, steps=400))
    info = describe(task.dataset)
    assert info.provenance["controller"]["routes"] == kind
    episodes = load_episodes(task.dataset, task)
    own = np.concatenate([e.observations for e in record_maze(UMAZE, steps=400, seed=0, routes=kind)])
    np.testing.assert_allclose(episodes.observations, own, atol=1e-6)


class TestRewards:
    @pytest.fixture(scope="class")
    def episodes(self, data):
        task = find_task("maze2d")
        return load_episodes(task.dataset, task)

    def test_they_are_the_nearness_of_the_goal_after_the_step(self, episodes):
        goal = UMAZE.center((1, 1))
        for i in range(len(episodes)):
            observations, actions = episodes.episode(i)
            own = episodes.rewards[episodes.offsets[i] : episodes.offsets[i + 1]]
            gaps = np.hypot(*(observations[1:, :2].astype(float) - goal).T)
            np.testing.assert_allclose(own[:-1], np.exp(-gaps), rtol=1e-5)
            assert own[-1] == 0
            assert len(own) == len(actions) + 1
        assert episodes.rewards.dtype == np.float32

    def test_a_task_of_many_goals_has_none(self, data):
        task = find_task("multi2d")
        assert load_episodes(task.dataset, task).rewards is None

    def test_the_observations_are_the_same(self, episodes, data):
        task = find_task("multi2d")
        assert load_episodes(task.dataset, task).fingerprint() == episodes.fingerprint()

    @pytest.mark.parametrize("name", ["maze2d-umaze", "maze2d-large", "multi2d-medium", "maze2d-umaze-stitch"])
    def test_discounts_and_agents(self, name):
        task = find_task(name)
        assert 0 < task.discount < 1
        assert task.agent_radius == 0.1
        assert float(task.clearance()(torch.tensor(task.maze.center(task.maze.free_cells[0])))) > 0.4
