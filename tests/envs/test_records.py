import json

import numpy as np
import pytest

from diffplan.envs.backend import choose_backend, use_backend
from diffplan.envs.records import plan_of, plan_record, read_json, rollout_record, write_json
from diffplan.envs.render import drawn_steps
from diffplan.envs.rollouts import DRAW_EVERY, Result, Ride, execute
from diffplan.envs.runs import load_planner

KEYS = {
    "task",
    "dt_seconds",
    "stride",
    "observation_names",
    "action_names",
    "start",
    "goal",
    "observations",
    "actions",
    "candidates",
    "scores",
    "guides",
    "seconds",
    "seed",
    "versions",
    "command",
}


@pytest.fixture(scope="module")
def made(run_folder):
    planner, task = load_planner(run_folder)
    plan = planner.plan(planner.problem([-1, 1, 0, 0], [1, 1]))
    return (
        task,
        plan,
        plan_record(task, plan, start=[-1, 1, 0, 0], goal=[1, 1], seed=3, versions={"x": "1"}, command="c"),
    )


def test_a_plan_comes_back_as_it_went(made, tmp_path):
    task, plan, record = made
    assert set(record) >= KEYS
    write_json(tmp_path / "p.json", record)
    again = plan_of(read_json(tmp_path / "p.json"))
    np.testing.assert_allclose(again.observations, plan.observations, atol=1e-5)
    np.testing.assert_allclose(again.actions[0], plan.actions[0], atol=1e-5)
    np.testing.assert_array_equal(again.arrivals, plan.arrivals)
    assert again.steps == plan.steps == record["arrival_steps"] and again.spec == plan.spec == task.spec


def test_a_rollout_holds_what_was_done(run_folder):
    planner, task = load_planner(run_folder)
    ride = Ride(task, goal=(1.0, 1.0), start=(-1.0, 1.0), seed=0, replan_every=100)
    *_, result = execute(planner, ride, candidates=1)
    assert isinstance(result, Result)
    record = rollout_record(task, result.rollout, seed=0, versions={}, command="c")
    steps = len(record["rewards"])
    assert KEYS | {"states", "applied_actions", "rewards", "plan_steps"} <= set(record)
    assert np.shape(record["states"]) == (steps + 1, 4) and np.shape(record["applied_actions"]) == (steps, 2)
    assert record["plan_steps"][0] == 0 and len(record["plan_steps"]) == len(record["plan_paths"])


@pytest.mark.parametrize(
    "change",
    [
        {"task": "nothing"},
        {"candidates": []},
        {"candidates": [[1]]},
        {"candidate_arrivals": [999]},
        {"actions": [[1, 2]]},
        {"stride": 0},
        {"scores": "x"},
        {"observation_names": ["x"]},
        {"dt_seconds": None},
        {"candidates": [[[float("nan")] * 4] * 2]},
    ],
)
def test_records_that_do_not_fit_are_refused_by_name(change, made, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps(made[2] | change))
    with pytest.raises(ValueError, match=r"p\.json.*is no plan or rollout"):
        read_json(tmp_path / "p.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", "\x00", '{"task": 3}'])
def test_files_that_are_no_records_are_refused_by_name(text, tmp_path):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=r"p\.json"):
        read_json(tmp_path / "p.json")
    with pytest.raises(ValueError, match="does not exist"):
        read_json(tmp_path / "q.json")


@pytest.mark.parametrize("start", [(1.0, 0.9), (0.6, 1.0)])
def test_every_drawn_step_has_its_picture_whatever_the_length(run_folder, start):
    """Also where the last step is not one that would be drawn anyway."""
    use_backend()
    planner, task = load_planner(run_folder)
    ride = Ride(task, goal=(1.0, 1.0), start=start, pictures=choose_backend() is not None)
    *_, result = execute(planner, ride, candidates=1)
    steps = drawn_steps(len(result.rollout.rewards), DRAW_EVERY)
    assert steps[-1] == len(result.rollout.rewards)
    assert len(result.pictures) == (len(steps) if ride.pictures else 0)
