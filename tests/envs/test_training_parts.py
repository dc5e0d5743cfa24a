"""The two parts of a run: trained one after the other, interrupted, continued, and added later."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffplan.envs.checkpoints import Interrupted, Saver, Stop
from diffplan.envs.presets import PRESETS, Preset, find_preset
from diffplan.envs.runs import RETURNS_STATE, STATE, load_planner, read_record
from diffplan.envs.tasks import find_task
from diffplan.envs.training import RETURNS_SHARE, Progress, resume_run, train_run
from diffplan.planner.returns import ReturnModel
from diffplan.planner.training import TrainConfig

TINY = {"batch_size": 4}

pytestmark = pytest.mark.usefixtures("quick_reports")


def start(folder: Path, *, task: str = "maze2d", only: str | None = None, **settings) -> Iterator[Progress]:
    return train_run(find_task(task), folder, TrainConfig(**TINY, **settings), preset=find_preset("default"), only=only)


def step_of(folder: Path, file: str) -> int:
    with safe_open(folder / file, framework="pt") as opened:
        return json.loads(opened.metadata()["diffplan"])["step"]


def interrupt_after(stages: Iterator[Progress], part: str, updates: int) -> str:
    """Send a Ctrl-C after so many updates of a part; what the interruption says."""
    mark = {"denoiser": "clean_error", "returns": "return_loss"}[part]

    def go() -> None:
        for stage in stages:
            if stage.update is not None and mark in stage.update.info and stage.update.step == updates:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        go()
    return str(caught.value)


def check_equal(one: Path, other: Path) -> None:
    for file in (STATE, RETURNS_STATE):
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert torch.equal(value, b[name]), name


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    *_, done = start(folder, steps=8)
    assert done.stage == "done"
    return folder


class TestInterrupted:
    @pytest.mark.parametrize(("part", "updates"), [("returns", 3), ("denoiser", 5)])
    def test_continued_it_ends_bit_for_bit_as_an_unbroken_run(self, whole, tmp_path, part, updates):
        folder = tmp_path / "broken"
        said = interrupt_after(start(folder, steps=8), part, updates)
        assert f"of the {part}" in said and f"--resume --output {folder}" in said
        assert step_of(folder, STATE) == (8 if part == "returns" else updates + 1)
        if part == "returns":
            assert step_of(folder, RETURNS_STATE) == updates + 1
        *_, done = resume_run(folder)
        assert done.stage == "done"
        check_equal(whole, folder)
        for network in ("denoiser", "returns"):
            a, b = (load_file(f / "planner" / network / "diffusion_pytorch_model.safetensors") for f in (whole, folder))
            assert all(torch.equal(value, b[name]) for name, value in a.items())

    def test_handlers_are_put_back(self, data, tmp_path):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        interrupt_after(start(tmp_path / "run", steps=50), "denoiser", 1)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_a_second_signal_ends_at_once(self):
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    def test_a_finished_run_has_nothing_left_to_do(self, whole, copy_run):
        folder = copy_run(whole)
        stages = list(resume_run(folder))
        assert [s.stage for s in stages if s.update is not None] == []
        check_equal(whole, folder)

    def test_trained_on_it_keeps_its_return_model_meanwhile(self, whole, copy_run):
        folder = copy_run(whole)
        interrupt_after(resume_run(folder, steps=12), "denoiser", 9)
        assert load_planner(folder)[0].returns is not None

    def test_a_new_bound_is_one_for_both_parts(self, whole, copy_run):
        folder = copy_run(whole)
        list(resume_run(folder, steps=10))
        assert (step_of(folder, STATE), step_of(folder, RETURNS_STATE)) == (10, 10)


class TestOnePart:
    @pytest.fixture
    def alone(self, data, tmp_path) -> Path:
        folder = tmp_path / "alone"
        stages = list(start(folder, steps=4, only="denoiser"))
        assert [s.fraction for s in stages] == sorted(s.fraction for s in stages)
        return folder

    def test_only_the_denoiser(self, alone):
        assert not (alone / RETURNS_STATE).exists()
        assert not (alone / "returns_calibration.json").exists()
        assert read_record(alone)["returns"] is None
        assert load_planner(alone)[0].returns is None
        list(resume_run(alone, steps=5))
        assert step_of(alone, STATE) == 5
        assert not (alone / RETURNS_STATE).exists()

    def test_a_return_model_is_added_and_loads(self, alone):
        before = load_file(alone / STATE)
        *_, done = start(alone, steps=6, only="returns")
        assert "return model: 6 updates, R2" in done.message
        after = load_file(alone / STATE)
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        planner, task = load_planner(alone)
        assert isinstance(planner.returns, ReturnModel)
        assert (planner.returns.config.discount, planner.returns.config.stride) == (task.discount, task.spec.stride)
        averaged = {k[4:]: v for k, v in load_file(alone / RETURNS_STATE).items() if k.startswith("ema.")}
        assert all(torch.equal(v, averaged[k]) for k, v in planner.returns.state_dict().items() if k in averaged)
        record = read_record(alone)
        assert (record["config"]["steps"], record["returns"]["steps"]) == (4, 6)

    def test_one_that_was_there_is_replaced(self, whole, copy_run):
        folder = copy_run(whole)
        list(start(folder, steps=3, only="returns"))
        assert step_of(folder, RETURNS_STATE) == 3
        assert step_of(folder, STATE) == 8

    def test_added_it_is_what_it_would_have_been(self, alone, whole, tmp_path):
        """It depends on its own settings and data alone, not on the denoiser."""
        list(start(alone, steps=8, only="returns"))
        a, b = (load_file(f / RETURNS_STATE) for f in (whole, alone))
        assert all(torch.equal(value, b[name]) for name, value in a.items())

    def test_no_run_to_add_it_to(self, data, tmp_path):
        with pytest.raises(ValueError, match=r"no run\.json"):
            list(start(tmp_path / "nothing", steps=1, only="returns"))

    def test_no_denoiser_yet(self, whole, copy_run):
        folder = copy_run(whole)
        (folder / STATE).unlink()
        with pytest.raises(ValueError, match="no denoiser yet.*--resume"):
            list(start(folder, steps=1, only="returns"))

    def test_a_task_without_rewards_trains_none_and_can_be_given_none(self, data, tmp_path):
        folder = tmp_path / "multi"
        *_, done = start(folder, task="multi2d", steps=2)
        assert "return model" not in done.message
        assert load_planner(folder)[0].returns is None
        with pytest.raises(ValueError, match="data of multi2d-umaze has no rewards"):
            list(start(folder, task="multi2d", steps=2, only="returns"))

    def test_another_tasks_run_and_unknown_parts(self, whole):
        with pytest.raises(ValueError, match="trains maze2d-umaze, not maze2d-large"):
            list(start(whole, task="maze2d-large", steps=1, only="returns"))
        with pytest.raises(ValueError, match="unknown part 'both'; known: denoiser, returns"):
            list(start(whole, steps=1, only="both"))


def test_progress_runs_once_from_nothing_to_all(data, tmp_path):
    stages = [s for s in start(tmp_path / "run", steps=6) if s.update is not None]
    fractions = [s.fraction for s in stages]
    assert fractions == sorted(fractions)
    parts = ["returns" if "return_loss" in s.update.info else "denoiser" for s in stages]
    assert parts == ["denoiser"] * 6 + ["returns"] * 6
    assert fractions[5] == pytest.approx(1 - RETURNS_SHARE)
    assert fractions[-1] == pytest.approx(1)


def test_minutes_are_shared(data, tmp_path):
    interrupt_after(start(tmp_path / "run", minutes=10.0), "denoiser", 1)
    record = read_record(tmp_path / "run")
    assert (record["config"]["minutes"], record["returns"]["minutes"]) == pytest.approx((9.0, 1.0))


class TestCalibration:
    @pytest.fixture(scope="class")
    def report(self, run_folder) -> dict:
        return json.loads((run_folder / "returns_calibration.json").read_text())

    def test_one_r2_per_noise_level(self, report):
        levels = find_preset("default").noise_levels
        assert len(report["r2_by_timestep"]) == len(report["signal_by_timestep"]) == levels
        assert all(r2 <= 1 for r2 in (report["r2_clean"], *report["r2_by_timestep"]))
        assert (np.diff(report["signal_by_timestep"]) < 0).all()
        assert report["discount"] == find_task("maze2d").discount

    def test_deciles_are_sorted_and_average_to_the_mean(self, report):
        said = [part["predicted"] for part in report["deciles_clean"]]
        assert len(said) == 10
        assert said == sorted(said)
        true = np.mean([part["true"] for part in report["deciles_clean"]])
        assert true == pytest.approx(report["return_mean"], abs=0.02 * report["return_std"] + 1e-3)

    def test_it_opens_as_an_image(self, run_folder):
        picture = iio.imread(run_folder / "returns_calibration.png")
        assert picture.ndim == 3
        assert picture.shape[1] > 2 * picture.shape[0]
        assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50


class TestSaver:
    class Counting:
        def __init__(self) -> None:
            self.saved = 0

        def save(self, *_: object, **__: object) -> None:
            self.saved += 1

        save_pretrained = save

    @pytest.fixture
    def saver(self, tmp_path) -> Callable[..., tuple]:
        def make(every: float, main: bool = True):
            state = self.Counting()
            accelerator = type("Place", (), {"is_main_process": main})
            return Saver(tmp_path / "state.safetensors", state, self.Counting(), accelerator, every), state

        return make

    @pytest.mark.parametrize(("every", "times"), [(0.0, 3), (600.0, 0)])
    def test_it_saves_when_due(self, saver, every, times):
        made, state = saver(every)
        made.last -= 1.0
        for _ in range(3):
            made.when_due()
        assert state.saved == times

    def test_one_process_saves_for_all(self, saver):
        made, state = saver(0.0, main=False)
        made.now()
        assert state.saved == 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_their_record(name):
    """A run's record holds its preset, and --resume makes the same job of it."""
    preset, task = PRESETS[name], find_task("fetch-slide")
    again = Preset(**json.loads(json.dumps(dataclasses.asdict(preset))))
    assert again.fit(task) == preset.fit(task)
    settings = TrainConfig(**task.training | again.training, minutes=1.0)
    assert settings == TrainConfig(**task.training | preset.training, minutes=1.0)


def test_a_gpu_has_a_wider_network_and_larger_batches():
    task = find_task("fetch-slide")
    preset = find_preset("gpu", task)
    assert preset.fit(task).width > task.width
    config = TrainConfig(**task.training | preset.training, minutes=1.0)
    assert config.batch_size == 512 and config.first_action_weight == task.training["first_action_weight"]
