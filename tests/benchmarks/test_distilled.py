"""The benchmark of distilled planners, on planners that were trained and distilled for a moment."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffplan.benchmarks import suite
from diffplan.benchmarks.distilled import HURRIED, STUDENT, TEACHER, compare_distilled, distilled_rows
from diffplan.benchmarks.evaluate import evaluate
from diffplan.benchmarks.metrics import normalized_score, strict_returns
from diffplan.benchmarks.report import markdown
from diffplan.envs.distilling import Teacher, distill_run, find_teacher
from diffplan.envs.runs import load_planner, read_record

EPISODES = 3


@pytest.fixture(scope="module")
def here(run_folder, tmp_path_factory):
    """The folder of the benchmark's results and its numbers; the student was distilled by the benchmark."""
    folder = tmp_path_factory.mktemp("distilled")
    quick = Teacher.config
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Teacher, "config", lambda self, **changes: quick(self, steps=2, minutes=1.0, batch_size=4))
        lines = list(suite.run_benchmark("distill", output=folder, run=str(run_folder), episodes=EPISODES))
    assert "distilling" in lines[0] and f"runs/{run_folder.name}-distilled" in lines[0]
    return folder, json.loads((folder / "distill.json").read_text())


def test_teacher_and_student_are_measured_on_the_same_episodes(here, run_folder):
    folder, numbers = here
    assert [row["method"] for row in numbers["rows"]] == [TEACHER, HURRIED, STUDENT]
    scores = []
    for run in (run_folder, folder / "runs" / f"{run_folder.name}-distilled"):
        planner, task = load_planner(run)
        own = {key: getattr(planner.sampling, key) for key in ("steps", "candidates")} if run == run_folder else {}
        *_, done = evaluate(planner, task, episodes=EPISODES, seed=numbers["seed"], references=False, timed=0, **own)
        scores.append(normalized_score(strict_returns([r.rewards for r in done.rollouts]), *task.score_range))
    for own, row in zip(scores, (numbers["rows"][0], numbers["rows"][-1]), strict=True):
        assert row["score_strict"] == pytest.approx(own.mean(), abs=1e-3)
        error = own.std(ddof=1) / EPISODES**0.5
        assert row["score_strict_se"] == pytest.approx(error, abs=1e-3)
        assert row["score_strict_ci95"] == pytest.approx(1.96 * error, abs=2e-3)
        gap = scores[0] - own
        assert row["below_teacher"]["mean"] == pytest.approx(gap.mean(), abs=1e-3)
        within = gap.mean() <= scores[0].std(ddof=1) / np.sqrt(EPISODES)
        assert row["below_teacher"]["within_standard_error"] == within


def test_each_is_sampled_as_it_says(here, run_folder):
    _, numbers = here
    teacher, hurried, student = (row["sampling"] for row in numbers["rows"])
    own = load_planner(run_folder)[0].sampling
    assert (teacher["steps"], teacher["candidates"]) == (own.steps, own.candidates)
    assert hurried == student
    assert [student[key] for key in ("steps", "warm_steps", "eta", "candidates")] == [1, 1, 0.0, 1]
    assert all(row["plan_ms_median"] > 0 and row["device"] for row in numbers["rows"])


def test_the_report_says_how_both_came_to_be(here, run_folder):
    folder, numbers = here
    training = numbers["training"]["maze2d-umaze"]
    record = read_record(folder / "runs" / f"{run_folder.name}-distilled")
    assert training["teacher"]["updates"] == 60 and training["student"]["updates"] == 2
    assert training["student"]["distilled_from"] == record["distilled_from"]
    assert numbers["episodes"] == EPISODES and numbers["versions"] and numbers["command"]
    header, *rows = distilled_rows(numbers)
    assert len(rows) == 3 and all(len(row) == len(header) for row in rows)
    assert markdown(header, rows) in (folder / "distill.md").read_text()


def test_a_student_that_is_there_is_measured_as_it_is(here, run_folder, monkeypatch):
    folder, _ = here
    monkeypatch.chdir(folder)
    lines = list(compare_distilled(str(run_folder), 2, 1))
    assert [line.split(", ")[1].split(":")[0] for line in lines] == ["teacher", "teacher", "student"]


def test_what_cannot_be_measured_is_refused_before_anything_is_distilled(data, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no run of maze2d-medium under runs/"):
        list(compare_distilled(None, 2, 1))
    with pytest.raises(ValueError, match="fetch-pick-and-place has none; give a run of maze2d-umaze"):
        list(compare_distilled("fetch-pick-and-place", 2, 1))
    teacher = find_teacher(run_folder)
    list(distill_run(teacher, tmp_path / "student", teacher.config(steps=1, batch_size=4), teacher_steps=1))
    with pytest.raises(ValueError, match="is distilled already"):
        list(compare_distilled(str(tmp_path / "student"), 2, 1))
    assert not (tmp_path / "runs").exists()
