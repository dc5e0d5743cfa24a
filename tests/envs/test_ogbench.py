"""OGBench's tasks: made, recorded, trained, executed and judged as the package itself has them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

pytest.importorskip("ogbench")

import mujoco

from diffplan.benchmarks.baselines import run_policy
from diffplan.benchmarks.evaluate import Evaluation, evaluate, record, stats_record, summarize
from diffplan.benchmarks.report import header_of, table_rows
from diffplan.envs import ogbench_data
from diffplan.envs.control import PositionController, controller_for
from diffplan.envs.datasets import collect, describe, load_episodes
from diffplan.envs.ogbench_data import Job, collect_ogbench, download, in_sight, jobs, read_npz
from diffplan.envs.ogbench_data import record as record_job
from diffplan.envs.ogbench_oracles import at_distance, corners
from diffplan.envs.ogbench_scene import begin, make_environment
from diffplan.envs.parallel import on_all_cores
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators, side_by_side
from diffplan.envs.tasks import OgbenchTask, all_tasks, find_task
from diffplan.envs.tasks.ogbench import PointTask
from diffplan.envs.training import train_run
from diffplan.planner.controllers import PlannedActions
from diffplan.planner.plan import Reference
from diffplan.planner.training import TrainConfig

TASKS = [name for name, task in all_tasks().items() if isinstance(task, OgbenchTask)]
MAZE, PIECES, CUBE, SCENE = "pointmaze-medium-navigate", "pointmaze-medium-stitch", "cube-single", "scene"
STEPS = {MAZE: 600, PIECES: 500, CUBE: 200, SCENE: 200}


@pytest.fixture(scope="module")
def envs():
    """One environment of each kind, compiled once; by task."""
    made = {name: find_task(name).environment() for name in (MAZE, CUBE, SCENE)}
    yield made
    for env in made.values():
        env.close()


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """A few hundred steps of every family."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        yield {name: list(collect(find_task(name), steps=n, seed=3, most=1)) for name, n in STEPS.items()}
        ogbench_data._recorder.cache_clear()


class TestTasks:
    def test_these_can_be_had(self):
        mazes = {f"pointmaze-{size}-{kind}" for size in ("medium", "large", "giant") for kind in ("navigate", "stitch")}
        assert set(TASKS) == mazes | {"cube-single", "cube-double", "scene"}

    @pytest.mark.parametrize("name", [MAZE, CUBE, "cube-double", SCENE])
    def test_columns_and_lengths_are_the_environments(self, name):
        import gymnasium

        task = find_task(name)
        with Simulators(task, 1) as simulators:
            observations, goals = simulators.reset([0])
            assert observations.shape == (1, len(task.spec.observation_names))
            assert goals.shape == (1, len(task.spec.position))
            assert simulators.envs[0].action_space.shape == (len(task.spec.action_names),)
            if name != MAZE:
                assert task.spec.dt_seconds == simulators.envs[0].control_timestep()
            else:
                assert task.spec.dt_seconds == pytest.approx(simulators.envs[0].dt)
        assert gymnasium.spec(task.make).max_episode_steps == task.episode_steps

    @pytest.mark.parametrize("name", TASKS)
    def test_plans_span_the_longest_ways_and_episodes_hold_a_plan(self, name):
        task = find_task(name)
        span = task.spec.stride * (task.horizon - 1)
        assert span <= task.recorded_steps and task.collect_minutes <= 10
        if task.kind == "navigate" and "giant" not in name:  # there stops lie on the way
            assert span >= 25 * {"medium": 11, "large": 19}[name.split("-")[1]]

    def test_goals_are_what_ogbench_calls_their_oracle_representation(self, envs):
        """The same columns, in the same units."""
        for name in (CUBE, SCENE):
            task, env = find_task(name), envs[name]
            observation, _ = begin(env, 4, task_id=3)
            np.testing.assert_allclose(observation[task.spec.position_indices], env.compute_oracle_observation())


class TestProtocol:
    @pytest.mark.parametrize("name", [MAZE, CUBE])
    def test_the_five_tasks_come_in_turn(self, name, envs):
        task, env = find_task(name), envs[name]
        seeds = task.seeds(7, 10)
        for i, seed in enumerate(seeds):
            task.reset(env, np.random.default_rng(seed))
            assert env.cur_task_id == task.task_number(seed) == 1 + i % 5
        assert len(set(seeds)) == 10 and task.seeds(7, 4) == seeds[:4] and task.seeds(8, 10) != seeds

    def test_fifty_of_each_make_the_protocol(self):
        numbers = [OgbenchTask.task_number(s) for s in find_task(MAZE).seeds(0, 250)]
        assert np.bincount(numbers).tolist() == [0, 50, 50, 50, 50, 50]

    @pytest.mark.parametrize("name", [MAZE, CUBE, SCENE])
    def test_an_episode_is_its_seeds_whatever_was_before(self, name, envs):
        task, env = find_task(name), envs[name]
        begun = []
        for _ in range(2):
            observation, goal = task.reset(env, np.random.default_rng(11))
            for _ in range(3):
                after = env.step(np.full(len(task.spec.action_names), 0.3))[0]
            begun.append((observation, goal, after))
        for one, same in zip(*begun, strict=True):
            np.testing.assert_array_equal(one, same)
        other, _ = task.reset(env, np.random.default_rng(12))
        assert not np.array_equal(other, begun[0][0])

    def test_nobody_elses_chance_is_touched(self, envs):
        np.random.seed(5)  # noqa: NPY002
        wanted = np.random.rand()  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        begin(envs[MAZE], 0, task_id=1)
        assert np.random.rand() == wanted  # noqa: NPY002

    def test_groups_of_episodes_take_no_more_environments_than_a_task_allows(self):
        task = replace(find_task(MAZE), together=4)
        groups = [(len(s.envs), group) for s, group in side_by_side(task, range(10))]
        assert groups == [(4, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (2, [8, 9])]
        assert [len(group) for _, group in side_by_side(replace(task, together=0), range(10))] == [10]

    @pytest.mark.parametrize("name", [CUBE, SCENE])
    def test_reached_is_the_environments_success(self, name, envs):
        """Things put near their targets, and not so near, and what the environment itself says of each."""
        task, env, rng = find_task(name), envs[name], np.random.default_rng(0)
        said = []
        for trial in range(40):
            _, goal = task.reset(env, np.random.default_rng(trial))
            target = env.data.mocap_pos[env._cube_target_mocap_ids[0]]
            env.data.joint("object_joint_0").qpos[:3] = target + rng.normal(0, 0.02, 3)
            if name == SCENE:
                env.data.joint("drawer_slide").qpos[0] = env._target_drawer_pos + rng.normal(0, 0.02)
                env.data.joint("window_slide").qpos[0] = env._target_window_pos + rng.normal(0, 0.02)
                env._cur_button_states = env._target_button_states ^ (rng.random(2) < 0.1)
            mujoco.mj_forward(env.model, env.data)
            env.post_step()
            said.append(bool(env._success))
            assert task.reached(env.compute_observation(), goal) == said[-1]
        assert 5 < sum(said) < 35

    def test_users_choose_starts_and_goals_where_the_environment_can(self, envs):
        with Simulators(find_task(MAZE), 1, start=[4, 0], goal=[4, 0.9]) as simulators:
            observations, goals = simulators.reset([0])
            np.testing.assert_allclose([observations[0], goals[0]], [[4, 0], [4, 0.9]], rtol=1e-6)
            _, rewards, ended = simulators.step(np.zeros((1, 2), np.float32))
            assert rewards[0] == 1 and ended[0]
        with pytest.raises(ValueError, match="leave --start out"):
            find_task(CUBE).reset(envs[CUBE], np.random.default_rng(0), start=[0, 0, 0])

    @pytest.mark.parametrize("name", [CUBE, SCENE])
    def test_a_scene_that_is_asked_for_what_is_there_already_succeeds(self, name, envs):
        task, env = find_task(name), envs[name]
        here = task.reset(env, np.random.default_rng(0))[0][task.spec.position_indices]
        assert not env.step(np.zeros(5))[-1]["success"]
        _, goal = task.reset(env, np.random.default_rng(0), goal=here)
        assert env.step(np.zeros(5))[-1]["success"] and np.array_equal(goal, here)


@dataclass(frozen=True)
class Easy(PointTask):
    """Goals of 25 units: two of medium's five tasks begin at theirs. Keeps the last thing that the simulator said."""

    said: tuple[dict, ...] = ()

    def environment(self, *, render_mode=None):
        env = super().environment(render_mode=render_mode)
        env._goal_tol, step, log = 25.0, env.step, {}
        self.said[0].setdefault("logs", []).append(log)

        def logged(action):
            *rest, info = step(action)
            log[len(log)] = info["success"]
            return *rest, info

        env.step = logged
        return env


class Stay:
    """No action."""

    def begin(self, observations, goals):
        self.count = len(observations)

    def act(self, observations):
        return np.zeros((self.count, 2))


def test_the_reported_success_is_that_of_the_last_steps_info():
    """As OGBench's own evaluation takes it: the mean over episodes of the final info's "success"."""
    plain = find_task(MAZE)
    task = Easy(**{f: getattr(plain, f) for f in plain.__dataclass_fields__}, said=({},))
    task = replace(task, episode_steps=4)
    seeds = task.seeds(0, 10)
    rewards = run_policy(task, Stay(), seeds=seeds)
    last = [log[len(log) - 1] for log in task.said[0]["logs"]]
    stats = summarize("stay", task, rewards, seeds=seeds)
    assert 0 < np.mean(last) < 1 and stats.success_rate == np.mean(last)
    per_task = np.reshape(last, (2, 5)).mean(axis=0)
    assert list(stats.by_task.values()) == per_task.tolist()
    numbers = stats_record(stats)
    low, high = numbers["success_ci95"]
    assert 0 <= low < numbers["success_rate"] < high <= 1
    assert [len(r) for r in rewards] == [1 if s else 4 for s in last]  # success ends an episode


class TestRecording:
    @pytest.mark.parametrize("name", STEPS)
    def test_it_is_stored_and_comes_back_with_the_right_widths(self, collected, name):
        task = find_task(name)
        episodes, known = load_episodes(task.dataset, task), describe(task.dataset)
        assert episodes.steps >= STEPS[name] and episodes.rewards is None
        assert episodes.observations.shape[1] == len(task.spec.observation_names)
        assert np.abs(episodes.actions).max() <= 1 and episodes.actions.std() > 0.1
        made = known.provenance
        assert made["source"] == "recorded here" and made["seed"] == 3 and made["versions"]["ogbench"]
        assert made["oracle"].get("action_noise_std", made["oracle"].get("plan_noise")) > 0
        assert collected[name][-1].done == STEPS[name] == collected[name][-1].total

    def test_actions_lead_where_the_data_says(self, collected, envs):
        episodes, env = load_episodes(find_task(MAZE).dataset, find_task(MAZE)), envs[MAZE]
        states, actions = episodes.episode(0)
        env.reset()
        env.set_xy(states[0].astype(float))
        for action, after in zip(actions[:100], states[1:], strict=False):
            np.testing.assert_allclose(env.step(action.astype(float))[0], after, atol=1e-3)

    def test_pieces_go_four_cells_and_stay(self, collected, envs):
        task, env = find_task(PIECES), envs[MAZE]
        episodes = load_episodes(task.dataset, task)
        assert episodes.lengths.tolist() == [200] * 3
        for i in range(len(episodes)):
            path = episodes.episode(i)[0]
            first, last = env.xy_to_ij(path[0]), env.xy_to_ij(path[-1])
            assert last in at_distance(env, first, 4)
            assert np.linalg.norm(path[-60:] - path[-1], axis=1).max() < 2.5

    def test_cubes_are_moved(self, collected):
        task = find_task(CUBE)
        episodes = load_episodes(task.dataset, task)
        places = episodes.observations[:, task.spec.position_indices]
        assert np.ptp(places[:, 2]) > 0.5  # lifted by more than 5 cm

    def test_recordings_are_cut_where_the_cube_has_come_to_rest(self, collected):
        task = find_task(CUBE)
        pieces, whole = (load_episodes(task.dataset, t) for t in (task, replace(task, cut_at_rests=None)))
        assert len(pieces) > len(whole)
        assert pieces.joined().fingerprint() == whole.fingerprint()
        within, steps = task.cut_at_rests
        end = pieces.episode(0)[0][-steps - 1 :, task.spec.position_indices]
        assert np.linalg.norm(end - end[0], axis=1).max() <= within

    def test_another_process_records_the_same(self):
        parts = [Job("pointmaze-medium-v0", "navigate", 50, (seed,)) for seed in (1, 2)]
        for here, there in zip(map(record_job, parts), on_all_cores(record_job, parts, most=2), strict=True):
            np.testing.assert_array_equal(here[0].observations, there[0].observations)
        assert not np.array_equal(here[0].observations, record_job(parts[0])[0].observations)

    def test_jobs_cover_what_is_asked_for(self):
        for name in TASKS:
            task = find_task(name)
            made = jobs(task, task.collect_steps, 0)
            seeds = list(itertools.chain.from_iterable(job.seeds for job in made))
            assert len(seeds) * task.recorded_steps == task.collect_steps and len(set(seeds)) == len(seeds)
            assert {job.environment for job in made} == {task.make} and len(made) >= 40  # a bar that moves
        assert [(job.steps, len(job.seeds)) for job in jobs(find_task(CUBE), 70, 0)] == [(70, 1)]

    def test_corners_are_where_corridors_are_not_straight(self, envs):
        found = corners(envs[MAZE].maze_map)
        assert (1, 1) in found and (4, 6) in found  # a corner, and where two ways meet
        assert (5, 1) not in found and (5, 6) not in found  # between walls to the left and right

    def test_cubes_out_of_sight_are_noticed(self):
        rows = np.zeros((5, 40))
        assert in_sight(rows)
        for y, z, fine in ((2.9, 0.2, False), (-3.1, 0.2, False), (-3.56, 0.66, True), (2.8, 0.2, True)):
            rows[2, 20:22] = y, z
            assert in_sight(rows) == fine


class TestDownload:
    def serve(self, folder, name, monkeypatch, lengths=(30, 20)):
        """A server that has one dataset, in OGBench's format: an action in every row, also in an episode's last."""
        rng = np.random.default_rng(0)
        ends = np.concatenate([np.arange(n + 1) == n for n in lengths])
        rows = {"observations": rng.normal(size=(len(ends), 2)), "actions": rng.uniform(-1, 1, (len(ends), 2))}
        for suffix in ("", "-val"):
            np.savez(folder / f"{name}{suffix}.npz", **rows, terminals=ends)
        monkeypatch.setattr("ogbench.utils.DATASET_URL", folder.as_uri())
        return rows

    def test_the_packages_own_data_is_taken_where_the_server_answers(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
        rows = self.serve(tmp_path, f"{MAZE}-v0", monkeypatch)
        task = find_task(MAZE)
        said = list(collect(task))
        assert len(said) == 1 and said[0].words == f"asking OGBench's server for {MAZE}-v0"
        episodes, known = load_episodes(task.dataset, task), describe(task.dataset)
        assert episodes.lengths.tolist() == [30, 20] and known.provenance["source"] == "OGBench's server"
        np.testing.assert_allclose(episodes.observations, rows["observations"], rtol=1e-6)
        np.testing.assert_allclose(episodes.episode(1)[1], rows["actions"][31:51], rtol=1e-6)

    def test_otherwise_it_is_made_here(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ogbench.utils.DATASET_URL", "http://127.0.0.1:9/none")
        assert download(f"{MAZE}-v0", tmp_path) is None
        stored = []
        monkeypatch.setattr(ogbench_data, "store", lambda task, recorded, made: stored.append((recorded, made)))
        task = replace(find_task(MAZE), collect_steps=40)
        assert len(list(collect_ogbench(task, steps=40, seed=0, most=1))) == 2  # asked, then recorded
        ((recorded, made),) = stored
        assert made["source"] == "recorded here" and recorded[0].actions.shape == (40, 2)

    def test_who_wants_it_made_here_asks_nobody(self, monkeypatch):
        monkeypatch.setattr(ogbench_data, "download", lambda *_: pytest.fail("asked"))
        monkeypatch.setattr(ogbench_data, "store", lambda *_: None)
        task = replace(find_task(MAZE), collect_steps=40)
        list(collect_ogbench(task, steps=40, seed=0, most=1, local=True))
        list(collect_ogbench(task, steps=30, seed=0, most=1))  # a size that no server has

    def test_a_file_that_broke_off_does_not_count(self, tmp_path, monkeypatch):
        self.serve(tmp_path, "x-v0", monkeypatch)
        file = tmp_path / "x-v0.npz"
        assert len(read_npz(file)) == 2
        file.write_bytes(file.read_bytes()[:200])
        (tmp_path / "into").mkdir()
        assert download("x-v0", tmp_path / "into") is None


@pytest.mark.parametrize("name", [MAZE, CUBE])
def test_trained_planned_and_executed(collected, name, tmp_path):
    task = replace(find_task(name), horizon=8, width=8, together=3 if name == MAZE else 0)
    *_, done = train_run(task, tmp_path / "run", TrainConfig(steps=4, batch_size=8), preset=find_preset("default"))
    planner, found = load_planner(tmp_path / "run")
    assert done.stage == "done" and found.name == name
    short = replace(task, episode_steps=12, replan_every=6)
    *shares, last = evaluate(planner, short, episodes=5, candidates=2, references=name == MAZE)
    assert isinstance(last, Evaluation) and shares == sorted(shares) and shares[-1] == pytest.approx(1)
    for rollout in last.rollouts:
        assert rollout.actions.shape[1] == len(task.spec.action_names) and np.abs(rollout.actions).max() <= 1
        assert len(rollout.states) == len(rollout.rewards) + 1 <= 13
    numbers = record(last, task, seed=0, device="cpu", versions={}, command="")
    assert set(numbers["success_by_task"]) == {f"task{n}" for n in range(1, 6)}
    assert numbers["published"] == (
        {"GCIQL": 0.68} if name == CUBE else {"QRL": 0.82, "Diffuser": 0.95, "HorizonFlow": 1.0}
    )
    rows = table_rows(numbers)
    assert {len(row) for row in rows} == {len(header_of(numbers))}
    methods = ["diffplan", *(["random policy"] * (name == MAZE)), *(f"{m} (published)" for m in numbers["published"])]
    assert [row[0] for row in rows] == methods


def test_points_go_where_the_plan_is_next():
    task = find_task(MAZE)
    controller = controller_for(task)
    assert isinstance(controller, PositionController) and isinstance(controller_for(find_task(CUBE)), PlannedActions)
    here, there = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.1, 1.8], [9.0, 4.0]])
    nothing = Reference(here, here, 0 * here, 0 * here)
    ahead = Reference(there, there, 0 * there, 0 * there)
    actions = controller.act(here, nothing, ahead)
    np.testing.assert_allclose(actions, [[0.5, -1.0], [1.0, 0.0]])
    with Simulators(task, 2) as simulators:
        before, _ = simulators.reset([0, 1])
        after, *_ = simulators.step(np.array([[0.5, -0.25]] * 2))
    np.testing.assert_allclose(after - before, [[0.1, -0.05]] * 2, atol=1e-5)  # an action of 1 goes 0.2


class TestScene:
    def test_it_compiles_and_moves(self, envs):
        env = envs[SCENE]
        begin(env, 0, task_id=1)
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_step(env.model, env.data)
        assert np.isfinite(env.data.qpos).all() and env.data.time > 0

    def test_textures_with_a_class_are_mended(self, monkeypatch):
        """What dm_control 1.0.50 writes, which MuJoCo 3.10 refuses."""
        import gymnasium
        from ogbench.manipspace import mjcf_utils

        written = mjcf_utils.to_string

        def newer(*args, **options):
            return written(*args, **options).replace("<texture name", '<texture class="/" name')

        monkeypatch.setattr(mjcf_utils, "to_string", newer)
        with pytest.raises(ValueError, match="unrecognized attribute: 'class'"):
            gymnasium.make("scene-v0", disable_env_checker=True).reset()
        env = make_environment("scene-v0")
        assert env.model.ntex == 3 and mjcf_utils.to_string is newer  # the fix stays where it is needed
        env.close()


class TestTheExtra:
    @pytest.mark.parametrize("name", [MAZE, CUBE])
    def test_without_it_one_sentence_says_how_to_get_it(self, name, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "ogbench", None)
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        wanted = rf"task {name} needs OGBench: pip install 'diffplan\[ogbench\]'$"
        with pytest.raises(ValueError, match=wanted):
            find_task(name).environment()
        with pytest.raises(ValueError, match=wanted):
            list(collect(find_task(name), steps=100))

    def test_nothing_imports_it_before_it_is_used(self):
        code = (
            "import sys\n"
            "import diffplan.benchmarks.evaluate, diffplan.envs.ogbench_data, diffplan.envs.training\n"
            "from diffplan.envs.tasks import find_task\n"
            "find_task('scene')\n"
            "assert not {'ogbench', 'dm_control'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
