import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from diffplan.envs.backend import choose_backend, use_backend
from diffplan.envs.records import plan_of, plan_record, read_json, rollout_record, write_json
from diffplan.envs.render import drawn_steps
from diffplan.envs.replay import draw_record
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


def test_tempo_and_vias_come_back(made, tmp_path):
    task, plan, _ = made
    slow = replace(plan, tempo=0.5)
    words = {"start": [-1, 1, 0, 0], "goal": [1, 1], "seed": 3, "versions": {}, "command": "c"}
    record = plan_record(task, slow, vias=[(0.0, 1.0), (0.5, 1.0)], **words)
    write_json(tmp_path / "p.json", record)
    read = read_json(tmp_path / "p.json")
    again = plan_of(read)
    assert (again.tempo, again.steps, record["arrival_steps"]) == (0.5, slow.steps, slow.steps)
    assert slow.steps == 2 * plan.steps
    assert read["vias"] == [[0, 1], [0.5, 1]]
    np.testing.assert_allclose(again.path(), slow.path(), atol=1e-4)


def test_records_from_before_tempo_and_vias_are_read(made, tmp_path):
    _, plan, record = made
    write_json(tmp_path / "p.json", {k: v for k, v in record.items() if k not in ("tempo", "vias")})
    assert plan_of(read_json(tmp_path / "p.json")).tempo == 1.0
    draw_record(tmp_path / "p.json", tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_marks_of_a_saved_plan_are_drawn(made, tmp_path):
    """From its guides and its vias; each changes the picture and nothing else does."""
    task, plan, record = made
    pictures = []
    changes = ({}, {}, {"guides": ["avoid:x=0,y=1,radius=0.2,margin=0.15@100"]}, {"guides": ["via:x=0,y=1@3"]})
    for change in (*changes, {"vias": [[0, 1]]}, {"guides": ["return@3"]}):
        write_json(tmp_path / "p.json", record | change)
        draw_record(tmp_path / "p.json", tmp_path / "p.png")
        picture = iio.imread(tmp_path / "p.png").astype(int)
        pictures.append(picture[picture.shape[0] // 6 :])  # below the title, which tells the guides
    free, again, disc, guided, via, unseen = pictures
    assert np.array_equal(free, again)
    assert {p.shape for p in pictures} == {free.shape}
    for picture in (disc, guided, via):
        assert (abs(picture - free).max(-1) > 20).sum() > 50
    assert np.array_equal(guided, via)
    assert np.array_equal(unseen, free)


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
        {"tempo": 0},
        {"tempo": -1.0},
        {"tempo": 11},
        {"tempo": "fast"},
        {"tempo": None},
        {"vias": 5},
        {"vias": [1, 2]},
        {"vias": [["a", "b"]]},
        {"guides": None},
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
