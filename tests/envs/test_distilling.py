"""Distilled runs: what they hold, that they are used like any run, stopping and continuing, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffplan.benchmarks.evaluate import evaluate
from diffplan.envs.checkpoints import Interrupted
from diffplan.envs.datasets import load_episodes
from diffplan.envs.distilling import LEARNING_RATE, MINUTES, distill_run, find_teacher, one_step, resume_distilling
from diffplan.envs.presets import Preset, find_preset
from diffplan.envs.runs import STATE, find_run, load_planner, read_record
from diffplan.envs.tasks import find_task
from diffplan.envs.training import resume_run, train_run
from diffplan.planner.training import TrainConfig

pytestmark = pytest.mark.usefixtures("quick_reports")


def distill(teacher: Path | None, folder: Path, *, teacher_steps: int = 4, **settings) -> list:
    found = find_teacher(teacher)
    config = found.config(**{"steps": 3, "batch_size": 4} | settings)
    return list(distill_run(found, folder, config, teacher_steps=teacher_steps, command="diffplan distill"))


def train(folder: Path, *, preset: Preset | None = None, **settings) -> Path:
    config = TrainConfig(**{"steps": 2, "batch_size": 4} | settings)
    list(train_run(find_task("maze2d"), folder, config, preset=preset or find_preset("default"), only="denoiser"))
    return folder


@pytest.fixture(scope="module")
def student(run_folder, tmp_path_factory, quicken) -> Path:
    folder = tmp_path_factory.mktemp("students") / "one"
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        *_, done = distill(run_folder, folder, steps=8)
    assert done.stage == "done" and "8 updates" in done.message and str(folder) in done.message
    return folder


class TestAStudent:
    def test_its_record_says_what_it_is_from(self, student, run_folder):
        record, teacher = read_record(student), read_record(run_folder)
        assert record["distilled_from"] == {"run": str(run_folder), "task": "maze2d-umaze", "steps": 4}
        assert all(record[key] == teacher[key] for key in ("task", "dataset", "fingerprint"))
        assert record["fingerprint"] == load_episodes(record["dataset"], find_task("maze2d")).fingerprint()
        assert record["command"] == "diffplan distill" and record["versions"] and record["started"]
        assert (record["config"]["steps"], record["config"]["learning_rate"]) == (8, LEARNING_RATE)

    def test_it_is_its_teacher_but_for_the_network_and_how_it_samples(self, student, run_folder):
        (own, task), (teacher, _) = load_planner(student), load_planner(run_folder)
        assert task.name == "maze2d-umaze"
        for part in ("normalizer", "plant", "returns"):
            theirs = getattr(teacher, part).state_dict()
            assert all(torch.equal(v, theirs[k]) for k, v in getattr(own, part).state_dict().items()), part
        same = ("spec", "horizon", "task", "prediction", "clip", "consistency_bound", "state_only")
        assert all(own.config[key] == teacher.config[key] for key in same)
        assert own.sampling == one_step(teacher)
        averaged = {k[4:]: v for k, v in load_file(student / STATE).items() if k.startswith("ema.")}
        assert all(torch.equal(v, averaged[k]) for k, v in own.denoiser.named_parameters())
        assert any(not torch.equal(v, averaged[k]) for k, v in teacher.denoiser.named_parameters())

    def test_it_begins_as_a_copy(self, run_folder, tmp_path):
        distill(run_folder, tmp_path / "student", steps=1, learning_rate=1e-9)
        (own, _), (teacher, _) = load_planner(tmp_path / "student"), load_planner(run_folder)
        torch.testing.assert_close(own.denoiser.state_dict(), teacher.denoiser.state_dict(), rtol=0, atol=1e-6)

    def test_a_plan_asks_its_network_once(self, student):
        planner, _ = load_planner(student)
        asked: list[int] = []
        planner.denoiser.register_forward_hook(lambda network, given, said: asked.append(len(said)))
        raced = planner.sampling.racing()
        plan = planner.plan(planner.problem([-1, 1, 0, 0], [1, 1]), **raced)
        assert asked == [1] and len(plan.trajectories) == 1

    def test_the_same_commands_use_it(self, student, tmp_path):
        assert find_run(student) == student / "planner"
        planner, task = load_planner(student, task="multi2d")
        *_, done = evaluate(planner, task, episodes=2, seed=1, references=False, timed=1)
        assert done.stats.episodes == 2 and done.plan_seconds_median > 0


class TestOtherTeachers:
    def test_what_ships(self, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        teacher = find_teacher()
        assert teacher.student_folder == Path("runs/maze2d-umaze-distilled")
        distill(None, teacher.student_folder, steps=1)
        assert read_record(teacher.student_folder)["distilled_from"]["run"] == "maze2d-umaze"
        planner, _ = load_planner(teacher.student_folder)
        assert planner.sampling.racing() == {"candidates": 1}
        assert (planner.sampling.candidates, planner.sampling.steps) == (teacher.planner.sampling.candidates, 1)

    @pytest.mark.parametrize(("prediction", "said"), [("eps", "x0"), ("v", "v")])
    def test_other_predictions(self, data, tmp_path, prediction, said):
        teacher = train(tmp_path / "teacher", prediction=prediction)
        distill(teacher, tmp_path / "student")
        planner, _ = load_planner(tmp_path / "student")
        assert planner.config.prediction == read_record(tmp_path / "student")["config"]["prediction"] == said
        assert abs(planner.plan(planner.problem([-1, 1, 0, 0], [1, 1])).trajectories).max() < 10

    def test_diffusers_recipe_of_fixed_horizons(self, data, tmp_path):
        paper = find_preset("paper")
        small = Preset(**{**vars(paper), "horizon": 16, "width": 8, "multipliers": (1, 2), "noise_levels": 16})
        small = Preset(**{**vars(small), "sampling": paper.sampling | {"steps": 16, "warm_steps": 16}})
        distill(train(tmp_path / "teacher", preset=small), tmp_path / "student")
        planner, _ = load_planner(tmp_path / "student")
        assert (planner.sampling.sampler, planner.sampling.steps, planner.plant) == ("ddim", 1, None)
        plan = planner.plan(planner.problem([-1, 1, 0, 0], [1, 1]))
        assert plan.trajectories.shape == (1, 16, planner.spec.width) and abs(plan.trajectories).max() < 10

    def test_states_alone(self, data, tmp_path):
        teacher = train(tmp_path / "teacher", preset=Preset(actions="inverse"))
        distill(teacher, tmp_path / "student")
        planner, _ = load_planner(tmp_path / "student")
        assert planner.config.state_only and planner.inverse is not None
        assert planner.plan(planner.problem([-1, 1, 0, 0], [1, 1])).actions.any()

    def test_windows_are_those_that_it_was_trained_on(self, data, tmp_path):
        teacher = find_teacher(train(tmp_path / "teacher", preset=Preset(horizon=12, stride=8, width=8)))
        assert (teacher.preset.horizon, teacher.preset.stride) == (12, 8)
        distill(tmp_path / "teacher", tmp_path / "student")
        planner, _ = load_planner(tmp_path / "student")
        assert (planner.horizon, planner.spec.stride) == (12, 8)

    def test_where_nothing_races_candidates_stay(self, make_planner):
        given = {"candidates": 5, "steps": 4, "select": "plausible", "raced_candidates": 2, "raced_steps": 2}
        own = one_step(make_planner(sampling=given))
        assert (own.candidates, own.select, own.raced_candidates) == (5, "plausible", None)
        assert (own.sampler, own.steps, own.warm_steps, own.eta) == ("ddim", 1, 1, 0.0)


class TestSettings:
    def test_bounds_and_rates(self, run_folder):
        teacher = find_teacher(run_folder)
        config = teacher.config()
        assert (config.steps, config.minutes, config.batch_size) == (None, MINUTES, 16)
        assert (config.learning_rate, config.action_weight) == (
            LEARNING_RATE,
            teacher.record["config"]["action_weight"],
        )
        assert (teacher.config(steps=5).minutes, teacher.config(steps=5).steps) == (None, 5)
        both = teacher.config(steps=5, minutes=0.5, learning_rate=1e-3, batch_size=None)
        assert (both.steps, both.minutes, both.learning_rate, both.batch_size) == (5, 0.5, 1e-3, 16)

    def test_the_newest_teacher_is_not_a_student(self, run_folder, student, copy_run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        mine = copy_run(run_folder, tmp_path / "runs" / "mine")
        copy_run(student, tmp_path / "runs" / "mine-distilled")
        os.utime(mine / "run.json", (1, 1))
        for named in (None, "maze2d", "runs/mine", "runs/mine/planner"):
            teacher = find_teacher(named)
            assert teacher.folder == Path("runs/mine") and teacher.student_folder == Path("runs/mine-distilled")
        assert find_run() == Path("runs/mine-distilled/planner")  # which is what is planned with


def test_interrupted_and_continued_it_ends_bit_for_bit_as_an_unbroken_run(student, run_folder, tmp_path):
    folder, teacher = tmp_path / "broken", find_teacher(run_folder)
    stages = distill_run(teacher, folder, teacher.config(steps=8, batch_size=4), teacher_steps=4)

    def stopped() -> None:
        for stage in stages:
            if stage.update is not None and stage.update.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"update 4 .*: diffplan distill --resume --output {folder}"):
        stopped()
    *_, done = resume_distilling(folder)
    assert done.stage == "done"
    for file in (STATE, "planner/denoiser/diffusion_pytorch_model.safetensors"):
        one, other = load_file(student / file), load_file(folder / file)
        assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_more_of_it(student, copy_run):
    folder = copy_run(student)
    *_, done = resume_distilling(folder, steps=10)
    assert done.message.startswith("10 updates")
    assert not [s for s in resume_distilling(copy_run(student)) if s.update is not None]


class TestRefused:
    def test_a_student_as_a_teacher(self, student, run_folder):
        with pytest.raises(ValueError, match=rf"is distilled already, from {run_folder}; name that one"):
            find_teacher(student)

    def test_a_taken_folder(self, run_folder, student):
        before = (run_folder / "run.json").read_bytes()
        with pytest.raises(ValueError, match="holds a run already"):
            distill(run_folder, run_folder)
        assert (run_folder / "run.json").read_bytes() == before and not (run_folder / "teacher").exists()

    def test_steps_that_do_not_divide_the_levels(self, run_folder, tmp_path):
        with pytest.raises(ValueError, match="steps=5 does not divide the 32 noise levels"):
            distill(run_folder, tmp_path / "student", teacher_steps=5)
        assert not (tmp_path / "student").exists()

    def test_the_other_command_to_continue(self, student, run_folder):
        with pytest.raises(ValueError, match="is distilled, not trained; continue it with: diffplan distill --resume"):
            list(resume_run(student))
        added = train_run(
            find_task("maze2d"), student, TrainConfig(steps=1), preset=find_preset("default"), only="returns"
        )
        with pytest.raises(ValueError, match="is distilled, not trained"):
            list(added)
        with pytest.raises(ValueError, match="is trained, not distilled; continue it with: diffplan train"):
            list(resume_distilling(run_folder))

    def test_a_planner_without_a_record(self, run_folder, copy_run):
        folder = copy_run(run_folder)
        (folder / "run.json").unlink()
        with pytest.raises(ValueError, match=r"has no run\.json beside it.*name its run folder"):
            find_teacher(folder)

    def test_what_is_not_there(self, tmp_path, monkeypatch, student, copy_run):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match="'nowhere' does not exist"):
            find_teacher("nowhere")
        with pytest.raises(ValueError, match="no run of maze2d-large"):
            find_teacher("maze2d-large")
        with pytest.raises(ValueError, match=r"no run\.json"):
            list(resume_distilling(tmp_path / "nothing"))
        broken = copy_run(student)
        (broken / "teacher" / "model_index.json").unlink()
        with pytest.raises(ValueError, match=r"teacher is no planner: it has no model_index\.json"):
            list(resume_distilling(broken))
        multi = copy_run(student, tmp_path / "runs" / "only")
        (multi / "run.json").write_text(json.dumps(read_record(multi) | {"task": "multi2d-medium"}))
        with pytest.raises(ValueError, match="no trained run of multi2d-medium under runs/"):
            find_teacher("multi2d-medium")
