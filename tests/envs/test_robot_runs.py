"""A robot from data to films: trained for a moment, led by its return, planned anew at every step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from diffplan.benchmarks.evaluate import Evaluation, evaluate, record
from diffplan.cli.main import app
from diffplan.envs.control import controller_for
from diffplan.envs.datasets import load_episodes
from diffplan.envs.robot_rollouts import expected_returns
from diffplan.envs.runs import load_planner
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import find_task
from diffplan.envs.wishes import guides_for, parse_wishes
from diffplan.planner.controllers import PlannedActions
from diffplan.planner.execution import Executor

TASK = find_task("hopper-medium")
STEPS = 12


@pytest.fixture(scope="module")
def here(robot_folder):
    return robot_folder


@pytest.fixture
def cli(here, monkeypatch):
    monkeypatch.chdir(here)

    def run(*words):
        return CliRunner().invoke(app, [str(w) for w in words])

    return run


def rollouts(here: Path, seeds, **options):
    planner, task = load_planner(here / "runs" / "hopper")
    guide = parse_wishes(task, planner, guides=guides_for(task, ()))
    with Simulators(task, len(seeds)) as simulators:
        executor = Executor(
            planner, simulators, controller=controller_for(task), replan_every=1, guide=guide, **options
        )
        return executor.run(steps=STEPS, seeds=seeds)


class TestExecution:
    @pytest.mark.parametrize("guidance", ["both", "candidates"])
    @pytest.mark.parametrize("together", [2, 5])
    def test_beside_others_an_episode_is_the_same_to_the_bit(self, here, guidance, together):
        seeds = list(range(3, 3 + together))
        for seed, among in zip(seeds, rollouts(here, seeds, guidance=guidance), strict=True):
            alone = rollouts(here, [seed], guidance=guidance)[0]
            np.testing.assert_array_equal(alone.states, among.states)
            np.testing.assert_array_equal(alone.actions, among.actions)
            np.testing.assert_array_equal(alone.rewards, among.rewards)

    def test_it_plans_at_every_step_and_takes_the_first_action(self, here):
        rollout = rollouts(here, [0])[0]
        assert rollout.plan_steps == tuple(range(len(rollout.rewards)))
        first = np.array([plan.actions[0, 0] for plan in rollout.plans])
        np.testing.assert_array_equal(rollout.actions, np.clip(first, -1, 1))
        for plan, state in zip(rollout.plans, rollout.states[:-1], strict=True):
            np.testing.assert_allclose(plan.observations[:, 0], np.repeat(state[None], 16, axis=0), rtol=1e-6)

    def test_an_episode_that_ends_is_not_planned_for_any_more(self, here):
        planner, task = load_planner(here / "runs" / "hopper")
        with Simulators(task, 3) as simulators:
            executor = Executor(planner, simulators, controller=controller_for(task), replan_every=1)
            done = executor.run(steps=200, seeds=[0, 1, 2])
        lengths = [len(r.rewards) for r in done]
        assert max(lengths) < 200  # a planner trained for a moment falls
        assert len(set(lengths)) > 1
        for rollout, length in zip(done, lengths, strict=True):
            assert len(rollout.plans) == length == len(rollout.states) - 1

    def test_the_best_expected_return_is_what_is_followed(self, here):
        planner, task = load_planner(here / "runs" / "hopper")
        guide = parse_wishes(task, planner, guides=["return@1"])
        plan = planner.plan(planner.problem([1.25] + [0.0] * 10), guide=guide, generator=torch.Generator())
        assert (np.diff(plan.scores) <= 0).all()
        np.testing.assert_allclose(planner.score(guide, plan), plan.scores, rtol=1e-3, atol=1e-2)
        rollout = rollouts(here, [0])[0]
        scores = [0.1 * expected for expected in expected_returns(planner, rollout)]
        np.testing.assert_allclose(scores, [p.scores[0] for p in rollout.plans], rtol=1e-3, atol=1e-2)

    def test_actions_are_clipped_to_what_the_robot_takes(self):
        controller = controller_for(TASK)
        assert controller == PlannedActions(1.0)
        wild = type("Asked", (), {"action": np.array([[3.0, -0.5, -9.0]])})
        np.testing.assert_array_equal(controller.act(np.zeros((1, 11)), wild, wild), [[1.0, -0.5, -1.0]])
        np.testing.assert_array_equal(PlannedActions().act(np.zeros((1, 11)), wild, wild), wild.action)


class TestEvaluation:
    def test_returns_and_scores_without_success(self, here):
        planner, task = load_planner(here / "runs" / "hopper")
        *_, done = evaluate(planner, task, episodes=2, seed=0)
        assert isinstance(done, Evaluation)
        numbers = record(done, task, seed=0, device="cpu", versions={}, command="")
        assert numbers["return_mean"] == pytest.approx(np.mean([r.rewards.sum() for r in done.rollouts]), abs=1e-3)
        expected = 100 * (numbers["return_mean"] + 20.27) / (3234.3 + 20.27)
        assert numbers["score_normalized_own_data"] == pytest.approx(expected, abs=1e-2)
        assert numbers["upright_rate"] == 0 and numbers["success_rate"] is None
        assert numbers["plans"] == sum(len(r.rewards) for r in done.rollouts)
        assert set(numbers["references"]) == {"random policy"}


@pytest.mark.usefixtures("drawing")
class TestCommands:
    def test_a_task_names_its_newest_run(self, cli):
        result = cli("evaluate", "hopper-medium", "--episodes", 2, "--candidates", 2, "--json", "numbers.json")
        assert result.exit_code == 0, result.output
        assert "own data" in result.output and json.loads(Path("numbers.json").read_text())["episodes"] == 2
        missing = cli("evaluate", "walker2d-medium")
        assert missing.exit_code == 2 and "diffplan train walker2d-medium" in missing.stderr

    def test_rollouts_and_their_records_become_films(self, cli):
        result = cli("rollout", "hopper-medium", "--output", "r.json", "--output", "r.gif", "--candidates", 2)
        assert result.exit_code == 0, result.output
        assert "fell after" in result.output and "Hz" in result.output
        assert iio.imread("r-returns.png").shape[2] == 3
        kept = json.loads(Path("r.json").read_text())
        assert len(kept["plan_observations"]) == len(kept["rewards"]) == len(kept["plan_steps"])
        assert len(kept["plan_observations"][0][0]) == 11
        assert cli("render", "r.json", "--output", "again.gif").exit_code == 0
        np.testing.assert_array_equal(iio.imread("again.gif").shape, iio.imread("r.gif").shape)
        kept["plan_observations"][0] = [[1, 2]]
        Path("broken.json").write_text(json.dumps(kept))
        refused = cli("render", "broken.json", "--output", "b.gif")
        assert refused.exit_code == 2 and "11 observations" in refused.stderr

    def test_a_film_without_the_guide_beside(self, cli):
        result = cli("rollout", "hopper-medium", "--compare", "--output", "both.gif", "--candidates", 2)
        assert result.exit_code == 0 and "unguided" in result.output, result.output
        assert iio.imread("both.gif").shape[2] > 1.8 * iio.imread("both.gif").shape[1]

    def test_a_plan_is_drawn(self, cli):
        result = cli("plan", "hopper-medium", "--output", "plan.png", "--candidates", 4)
        assert result.exit_code == 0 and "led by return@" in result.output, result.output
        assert iio.imread("plan.png").size > 1000
        refused = cli("plan", "hopper-medium", "--goal", "1,1")
        assert refused.exit_code == 2 and "no positions" in refused.stderr

    def test_data_that_changed_under_a_run_is_refused(self, here, cli, tmp_path):
        shutil.copytree(here / "runs" / "hopper", tmp_path / "run")
        kept = json.loads((tmp_path / "run" / "run.json").read_text())
        kept["fingerprint"] = "0" * 64
        (tmp_path / "run" / "run.json").write_text(json.dumps(kept))
        refused = cli("train", "hopper-medium", "--resume", "--output", tmp_path / "run")
        assert refused.exit_code == 2 and "has changed since" in refused.stderr


def test_whether_an_episode_failed_is_part_of_the_data(here):
    episodes = load_episodes(TASK.dataset, TASK)
    assert episodes.terminated is not None and episodes.terminated.all()
