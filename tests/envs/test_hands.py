"""Adroit's hands and the kitchen: columns and rewards against the real environments, and from data to evaluation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import minari
import numpy as np
import pytest
from typer.testing import CliRunner

from diffplan.benchmarks.evaluate import Evaluation, evaluate, record, summarize
from diffplan.benchmarks.report import header_of, table_rows
from diffplan.cli.main import app
from diffplan.envs.datasets import dataset_of, load_episodes, obtain
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.scene import EDGE, FOOT, TITLE
from diffplan.envs.simulators import Simulators
from diffplan.envs.storage import episode_buffer, store_buffers
from diffplan.envs.tasks import HandTask, all_tasks, find_task, register
from diffplan.envs.tasks.hands import HANDS, KINDS, KITCHENS
from diffplan.envs.training import train_run
from diffplan.envs.wishes import guides_for, parse_wishes
from diffplan.planner.episodes import Episodes
from diffplan.planner.training import TrainConfig

NAMES = [f"{hand}-{kind}" for hand in HANDS for kind in KINDS] + [f"kitchen-{kind}" for kind in KITCHENS]
FAMILIES = [f"{hand}-human" for hand in HANDS] + ["kitchen-mixed"]
RANGES = {
    "door": (-56.512833, 2880.5693847087),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
    "kitchen": (0.0, 4.0),
}
STEPS = {"door": 200, "pen": 100, "hammer": 200, "relocate": 200, "kitchen": 280}
EPISODE = 40  # steps that are recorded


def hand(name: str) -> HandTask:
    task = find_task(name)
    assert isinstance(task, HandTask)
    return task


def record_chance(task: HandTask, episodes: int, *, seed: int = 0) -> None:
    """Store random actions in the task's own environment under its hub's id, goals and all."""
    env, rng, buffers = task.environment(), np.random.default_rng(seed), []
    for index in range(episodes):
        seen, rewards, actions = (
            [env.reset(seed=index)[0]],
            [],
            rng.uniform(-1, 1, (EPISODE, len(task.spec.action_names))),
        )
        for action in actions:
            observation, reward, *_ = env.step(action)
            seen.append(observation)
            rewards.append(reward)
        buffers.append(episode_buffer(index, together(seen), actions, rewards, terminated=False))
    store_buffers(task.dataset, buffers, env, {}, algorithm="chance", description="", requirements=[])


def together(seen: list[Any]) -> Any:
    """Observations one after the other, arrays or dictionaries of dictionaries of arrays."""
    if isinstance(seen[0], dict):
        return {key: together([one[key] for one in seen]) for key in seen[0]}
    return np.array(seen)


@pytest.mark.parametrize("name", NAMES)
class TestRegistration:
    def test_what_d4rl_says(self, name):
        task, (family, kind) = hand(name), name.split("-")
        assert task.hub == (f"D4RL/{family}/{kind}-v2",) and dataset_of(task) == task.hub[0] and task.hub_only
        assert task.score_range == RANGES[family] and task.episode_steps == STEPS[family]
        assert task.spec.position == () and task.guides[0].startswith("return@")

    def test_it_is_a_task_like_any_other(self, name):
        assert all_tasks()[name] is find_task(name)
        assert find_preset("paper", find_task(name)).fit(find_task(name)).name == name


@pytest.mark.parametrize("name", FAMILIES)
class TestColumns:
    def test_widths_are_the_environments(self, name):
        task = hand(name)
        with Simulators(task, 2) as simulators:
            observations, goals = simulators.reset([5, 6])
            assert observations.shape == (2, len(task.spec.observation_names)) and goals.shape == (2, 0)
            assert simulators.envs[0].action_space.shape == (len(task.spec.action_names),)
            assert np.abs(simulators.envs[0].action_space.high).max() == task.action_limit
            _, rewards, ended = simulators.step(np.zeros((2, len(task.spec.action_names)), np.float32))
        assert np.isfinite(rewards).all() and not ended.any()

    def test_an_episode_is_its_seeds_in_any_slot(self, name):
        task = hand(name)
        moves = np.random.default_rng(0).uniform(-1, 1, (3, len(task.spec.action_names)))
        with Simulators(task, 2) as simulators:
            simulators.reset([7, 8])
            simulators.step(np.stack([moves[0], moves[1]]))
            begun, _ = simulators.reset([3, 9])
            first = simulators.step(np.stack([moves[2], moves[0]]))[0][0]
            again, _ = simulators.reset([4, 3])
            np.testing.assert_array_equal(begun[0], again[1])
            np.testing.assert_array_equal(first, simulators.step(np.stack([moves[1], moves[2]]))[0][1])

    def test_names_are_the_models_joints(self, name):
        task = hand(name)
        env = task.environment()
        observation, _ = task.reset(env, np.random.default_rng(0))
        for _ in range(3):
            observation = task.flatten(env.step(np.full(len(task.spec.action_names), 0.3))[0])
        joints = {env.model.joint(i).name: env.data.qpos[env.model.jnt_qposadr[i]] for i in range(env.model.njnt)}
        seen = dict(zip(task.spec.observation_names, observation, strict=True))
        if name.startswith("kitchen"):
            named = {"microwave": "microwave", "slide_cabinet": "slide_cabinet", "light_switch": "light_switch"}
            named |= {"right_hinge": "right_hinge_cabinet", "knob3": "knob_Joint_3", "kettle_x": "kettle"}
            named |= {f"joint{i}": f"robot:panda0_joint{i}" for i in range(1, 8)}
            tolerance = 0.02  # noise that the environment adds
        else:
            named = {joint: joint for joint in joints if joint in seen}
            assert len(named) >= 23 and [f"A_{n}" for n in task.spec.action_names] == [
                env.model.actuator(i).name for i in range(env.model.nu)
            ]
            tolerance = 1e-9
        for column, joint in named.items():
            assert seen[column] == pytest.approx(joints[joint], abs=tolerance), column
        env.close()


def test_places_and_rates_stand_under_their_names():
    """Columns that are no joints, against what the simulator says of them."""
    for name, known in {
        "door-human": lambda d: {
            "palm_x": d.site("S_grasp").xpos[0],
            "handle_z": d.site("S_handle").xpos[2],
            "handle_to_palm_y": d.site("S_grasp").xpos[1] - d.site("S_handle").xpos[1],
            "latch": d.joint("latch").qpos[0],
            "door_hinge": d.joint("door_hinge").qpos[0],
        },
        "pen-human": lambda d: {
            "pen_z": d.body("Object").xpos[2],
            "pen_vz": d.joint("OBJTz").qvel[0],
            "pen_wx": d.joint("OBJRx").qvel[0],
            "target_to_pen_x": d.body("Object").xpos[0] - d.site("eps_ball").xpos[0],
        },
        "hammer-human": lambda d: {
            "nail": d.joint("nail_dir").qpos[0],
            "palm_y": d.site("S_grasp").xpos[1],
            "hammer_z": d.body("Object").xpos[2],
            "nail_x": d.site("S_target").xpos[0],
        },
        "relocate-human": lambda d: {
            "ball_to_palm_x": d.site("S_grasp").xpos[0] - d.body("Object").xpos[0],
            "target_to_ball_z": d.body("Object").xpos[2] - d.site("target").xpos[2],
        },
    }.items():
        task = hand(name)
        env = task.environment()
        task.reset(env, np.random.default_rng(1))
        for _ in range(5):
            observation = task.flatten(env.step(np.full(len(task.spec.action_names), 0.2))[0])
        seen = dict(zip(task.spec.observation_names, observation, strict=True))
        for column, value in known(env.data).items():
            assert seen[column] == pytest.approx(value, abs=1e-9), (name, column)
        env.close()


def put(env: Any, name: str) -> None:
    """The hand's object to where its task is done."""
    if name == "door":
        env.data.joint("door_hinge").qpos[0] = 1.5
    elif name == "hammer":
        env.data.joint("nail_dir").qpos[0] = 0.09
    elif name == "pen":
        env.model.body_quat[env.target_obj_body_id] = env.data.xquat[env.obj_body_id]
        env.model.site_pos[env.eps_ball_site_id] = env.data.xpos[env.obj_body_id]
    else:
        env.model.site_pos[env.target_obj_site_id] = env.data.xpos[env.obj_body_id]


@pytest.mark.parametrize("name", HANDS)
def test_success_is_told_by_the_reward(name):
    task = hand(f"{name}-human")
    env = task.environment()
    task.reset(env, np.random.default_rng(0))
    told, rewards, rng = [], [], np.random.default_rng(0)
    for step in range(30):
        if step >= 20:
            put(env, name)
        _, reward, *_, info = env.step(rng.uniform(-0.3, 0.3, len(task.spec.action_names)))
        told.append(bool(info["success"]))
        rewards.append(reward)
    env.close()
    assert any(told) and not all(told)
    np.testing.assert_array_equal(task.achieved(rewards), told)


class TestKitchen:
    def test_subtasks_count_once_in_episodes_and_on_in_what_is_learned(self):
        task = hand("kitchen-mixed")
        env = task.environment()
        states, rewards = [task.reset(env, np.random.default_rng(0))[0]], []
        for step in range(6):
            if step == 2:
                env.data.joint("microwave").qpos[0] = -0.75
            if step == 4:
                env.data.joint("microwave").qpos[0] = 0.0
                env.data.qpos[[11, 12, 17, 18]] = -0.88, -0.01, -0.69, -0.05
                env.data.qpos[23:30] = -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06
            observation, reward, ended, *_ = env.step(np.zeros(9))
            states.append(task.flatten(observation))
            rewards.append(reward)
        env.close()
        assert rewards == [0, 0, 1, 0, 3, 0] and ended
        assert task.achieved(rewards).tolist() == [False] * 4 + [True] * 2
        episodes = Episodes.from_arrays([np.array(states)] * 2, [np.zeros((6, 9))] * 2, [np.array(rewards)] * 2)
        assert task.rewards(episodes).tolist() == [0, 0, 1, 1, 4, 4, 0] * 2

    def test_the_four_are_d4rls(self):
        for kind, fourth in {"complete": "slide cabinet", "partial": "slide cabinet", "mixed": "bottom burner"}.items():
            env = hand(f"kitchen-{kind}").environment()
            assert set(env.goal) == {"microwave", "kettle", "light switch", fourth}
            env.close()

    def test_an_early_end_is_no_failure(self):
        assert not hand("kitchen-complete").failures(np.array([True, False])).any()
        assert hand("door-human").failures(np.array([True, False])).tolist() == [True, False]


def test_scores_are_d4rls():
    task = hand("pen-expert")
    stats = summarize("x", task, [np.array([1000.0, 0.0]), np.array([30.0, 45.0])])
    np.testing.assert_allclose(stats.returns.mean, 537.5)
    np.testing.assert_allclose(stats.normalized.mean, 100 * (537.5 - 96.262799) / (3076.8331017826877 - 96.262799))
    assert stats.success_rate == 1.0 and stats.steps_to_goal == 1.5
    assert summarize("x", task, [np.array([11.0] * 9)]).success_rate == 0.0


@pytest.fixture(scope="module", params=["door-human", "kitchen-complete"])
def run(request, quicken, tmp_path_factory):
    """A folder with a run of a hand, trained for a moment on chance, its episodes shortened."""
    folder = tmp_path_factory.mktemp("hands")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        quicken(patch)
        whole = hand(request.param)
        record_chance(whole, episodes=4)
        task = register(dataclasses.replace(whole, episode_steps=10))
        config = TrainConfig(**task.training | {"batch_size": 16}, steps=4)
        list(train_run(task, folder / "runs" / "hand", config, preset=find_preset("default", task)))
        yield folder, task
        register(whole)


@pytest.fixture
def cli(run, monkeypatch):
    monkeypatch.chdir(run[0])
    return lambda *words: CliRunner().invoke(app, [str(w) for w in words])


@pytest.mark.filterwarnings("ignore")
class TestRuns:
    def test_the_hubs_data_is_read_with_its_rewards(self, run):
        task = run[1]
        assert list(obtain(task)) == []
        episodes = load_episodes(dataset_of(task), task)
        recorded = [e.rewards for e in minari.load_dataset(task.dataset).iterate_episodes()]
        assert episodes.lengths.tolist() == [EPISODE] * 4 and not episodes.terminated.any()
        np.testing.assert_allclose(episodes.rewards.reshape(4, -1)[:, :-1], recorded, rtol=1e-5, atol=1e-5)

    def test_it_plans_and_is_evaluated(self, run):
        planner, task = load_planner(run[0] / "runs" / "hand")
        guide = parse_wishes(task, planner, guides=guides_for(task, ()))
        *_, done = evaluate(planner, task, episodes=2, guide=guide, candidates=2)
        assert isinstance(done, Evaluation) and not done.faults
        numbers = record(done, task, seed=0, device="cpu", versions={}, command="")
        low, high = task.score_range
        expected = 100 * (numbers["return_mean"] - low) / (high - low)
        assert numbers["score_normalized"] == pytest.approx(expected, abs=2e-3)
        assert numbers["success_rate"] == 0.0 and "upright_rate" not in numbers
        assert set(numbers["references"]) == {"random policy"}
        rows = table_rows(numbers)
        assert [len(row) for row in rows] == [len(header_of(numbers))] * 2 and "D4RL" in header_of(numbers)[1]

    def test_plans_and_rollouts_on_the_command_line(self, run, cli):
        task = run[1]
        planned = cli("plan", task.name, "--output", "p.json", "--output", "p.png", "--candidates", 2)
        assert planned.exit_code == 0 and "led by return@" in planned.output, planned.output
        kept = json.loads(Path("p.json").read_text())
        assert np.array(kept["observations"]).shape == (task.horizon, len(task.spec.observation_names))
        assert iio.imread("p.png").size > 1000
        refused = cli("plan", task.name, "--goal", "1,1")
        assert refused.exit_code == 2 and "no positions" in refused.stderr
        rolled = cli("rollout", task.name, "--output", "r.json", "--candidates", 2)
        assert rolled.exit_code == 0 and "in 10 steps, no success" in rolled.output, rolled.output
        assert len(json.loads(Path("r.json").read_text())["rewards"]) == 10

    def test_a_film_is_what_the_simulator_saw(self, run, cli, drawing):
        task = run[1]
        if task.name.startswith("kitchen"):
            pytest.skip("its scene takes seconds for every picture where there is no GPU")
        rolled = cli("rollout", task.name, "--output", "r.gif", "--candidates", 2)
        assert rolled.exit_code == 0, rolled.output
        assert iio.imread("r.gif").shape[1:] == (480 + TITLE + FOOT, 480 + 2 * EDGE, 3)


@pytest.mark.filterwarnings("ignore")
class TestOffline:
    @pytest.fixture(autouse=True)
    def silent(self, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise ConnectionError("name or service not known")

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
        monkeypatch.setattr(minari.storage.hosting, "get_cloud_storage", refuse)
        monkeypatch.setattr(minari.storage.hosting, "download_dataset", refuse)

    @pytest.mark.parametrize("command", [("train", "door-human"), ("data", "collect", "door-human")])
    def test_a_hub_that_does_not_answer_is_named_with_the_remedy(self, command):
        result = CliRunner().invoke(app, list(command))
        said = " ".join(result.stderr.split())
        assert result.exit_code == 2 and "Traceback" not in result.output + said
        assert "'D4RL/door/human-v2' is not on this machine and the Minari hub did not give it" in said
        assert "local Minari dataset of AdroitHandDoor-v1, with diffplan train door-human --dataset ID" in said
        assert "making it here" not in result.output

    def test_nothing_makes_it_here(self):
        result = CliRunner().invoke(app, ["data", "collect", "kitchen-mixed", "--local"])
        said = " ".join(result.stderr.split())
        assert result.exit_code == 2 and "on the Minari hub alone, as D4RL/kitchen/mixed-v2" in said
        assert "--dataset ID" in said

    def test_another_dataset_is_asked_for_by_its_name(self):
        result = CliRunner().invoke(app, ["train", "pen-human", "--dataset", "me/pens-v0"])
        assert (
            result.exit_code == 2 and "'me/pens-v0'" in result.stderr and "diffplan data collect" not in result.stderr
        )

    def test_a_local_dataset_of_ones_own_takes_its_place(self):
        task = hand("relocate-human")
        record_chance(dataclasses.replace(task, dataset="me/moves-v0"), episodes=2)
        assert list(obtain(task, "me/moves-v0")) == []
        assert len(load_episodes("me/moves-v0", task)) == 2

    def test_tasks_say_where_the_data_is(self):
        said = CliRunner().invoke(app, ["tasks"]).output
        assert "D4RL/door/human-v2 (on the" in said and "diffplan data collect door-human" not in said
