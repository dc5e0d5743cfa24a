"""Run folders: training into them, breaking them, and continuing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffplan.envs.datasets import load_episodes
from diffplan.envs.presets import find_preset
from diffplan.envs.runs import (
    RETURNS_STATE,
    SHIPPED,
    STATE,
    exact_command,
    find_run,
    load_planner,
    newest_run,
    pick_device,
    read_record,
    save_planner,
)
from diffplan.envs.tasks import find_task
from diffplan.envs.training import RETURNS_SHARE, resume_run, train_run
from diffplan.planner.diffusion import denoising_loss
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import draw_pins, entry_weights
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.training import TrainConfig, update_seed
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows

TRAIN = [sys.executable, "-m", "diffplan.cli.main", "train", "maze2d", "--batch-size", "4"]


def state_of(folder, name=STATE):
    with safe_open(folder / name, framework="pt") as file:
        return json.loads(file.metadata()["diffplan"])


def test_a_run_folder_holds_everything(run_folder):
    record = read_record(run_folder)
    assert record["task"] == "maze2d-umaze" and record["config"]["steps"] == state_of(run_folder)["step"]
    assert record["returns"]["steps"] == state_of(run_folder, RETURNS_STATE)["step"]
    assert record["command"] and {"torch", "diffusers", "mujoco"} <= set(record["versions"])
    assert record["fingerprint"] == load_episodes(record["dataset"], find_task("maze2d")).fingerprint()
    planner, task = load_planner(run_folder)
    assert planner.task == task.name and planner.horizon == task.horizon and planner.config.consistency_bound > 0
    for file, network in ((STATE, planner.denoiser), (RETURNS_STATE, planner.returns)):
        averaged = {k.removeprefix("ema."): v for k, v in load_file(run_folder / file).items() if k.startswith("ema.")}
        for name, value in network.named_parameters():
            torch.testing.assert_close(value, averaged[name], rtol=0, atol=0)


def test_logs_can_be_read(run_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = EventAccumulator(str(run_folder / "logs"), size_guidance={"images": 0}).Reload()
    rates = {"learning_rate", "gradient_norm", "samples_per_second"}
    own = {"denoiser": {"loss", "clean_error"}, "returns": {"return_loss", "return_r2"}}
    assert {f"{part}/{name}" for part, names in own.items() for name in names | rates} <= set(logs.Tags()["scalars"])
    for part in own:
        assert [event.step for event in logs.Scalars(f"{part}/learning_rate")] == [50, 60]
    assert logs.Tags()["images"] == ["plans"]


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_other_predictions_train_and_plan(prediction, data, tmp_path, quick_reports):
    config = TrainConfig(steps=2, batch_size=4, prediction=prediction)
    *_, done = train_run(find_task("maze2d"), tmp_path / "run", config, preset=find_preset("default"))
    planner, _ = load_planner(tmp_path / "run")
    plan = planner.plan(planner.problem([-1, 1, 0, 0], [1, 1]))
    assert done.stage == "done" and planner.config.prediction == prediction
    assert abs(plan.trajectories).max() < 10


def test_killed_and_resumed_ends_with_the_weights_of_an_unbroken_run(data, tmp_path):
    steps = ["--steps", "24", "--only", "denoiser", "--checkpoint-seconds", "0"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*TRAIN, *steps, "--output", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*TRAIN, *steps, "--output", str(broken)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ((broken / STATE).exists() and state_of(broken)["step"] > 5):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < state_of(broken)["step"] < 24
    subprocess.run([*TRAIN, "--resume", "--output", str(broken)], check=True, capture_output=True)
    one, other = load_file(whole / STATE), load_file(broken / STATE)
    assert one.keys() == other.keys() and state_of(broken)["step"] == 24
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_ctrl_c_saves_the_state_and_says_how_to_resume(data, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*TRAIN, "--steps", "100000", "--output", str(folder), "--checkpoint-seconds", "600", "--only", "denoiser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / STATE).exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert state_of(folder)["step"] > 0
    *_, done = resume_run(folder, steps=state_of(folder)["step"] + 2)
    assert done.stage == "done"


def test_two_processes_average_their_gradients(data, tmp_path):
    """Under accelerate's launcher: the weights after three updates are those of a plain loop over both batches."""
    folder = tmp_path / "run"
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    launch += " --dynamo_backend no --module diffplan.cli.main"
    words = f"train maze2d --steps 3 --batch-size 4 --device cpu --only denoiser --output {folder}"
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *launch.split(), *words.split()]
    subprocess.run(command, check=True, capture_output=True, env=quiet)
    task, config = find_task("maze2d"), TrainConfig(steps=3, batch_size=4)
    episodes = load_episodes(task.dataset, task)
    windows, normalizer = Windows(episodes, task.spec, horizon=task.horizon), Normalizer.fit(episodes, task.spec)
    alphas, weights = make_scheduler("ddim").alphas_cumprod, entry_weights(task.spec, task.horizon, config)
    torch.manual_seed(0)
    model = TemporalUNet(columns=task.spec.width)
    begun = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = config.rate_at(step, step / 3)
        optimizer.zero_grad()
        for process in range(2):
            generator = torch.Generator().manual_seed(update_seed(0, step, process))
            clean, length = windows.sample(4, generator)
            pinned = draw_pins(task.spec, length, task.horizon, generator)
            loss, _ = denoising_loss(
                model,
                normalizer.normalize(clean),
                pinned,
                alphas,
                prediction="x0",
                column_weights=weights,
                generator=generator,
            )
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
    trained = load_file(folder / STATE)
    reached = torch.cat([trained[f"model.{name}"].flatten() for name, _ in model.named_parameters()])
    expected = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (reached - expected).norm() < 0.02 * (expected - begun).norm()


def test_bounds_are_kept(data, tmp_path, quick_reports):
    task, preset = find_task("maze2d"), find_preset("default")
    config = TrainConfig(minutes=0.02, batch_size=4)
    *_, done = train_run(task, tmp_path / "timed", config, preset=preset)
    assert state_of(tmp_path / "timed")["seconds"] >= (1 - RETURNS_SHARE) * 0.02 * 60 and "updates" in done.message
    assert state_of(tmp_path / "timed", RETURNS_STATE)["seconds"] >= RETURNS_SHARE * 0.02 * 60
    both = TrainConfig(minutes=60, steps=2, batch_size=4)
    list(train_run(task, tmp_path / "both", both, preset=preset))
    assert state_of(tmp_path / "both")["step"] == state_of(tmp_path / "both", RETURNS_STATE)["step"] == 2


def test_a_taken_folder_is_refused(run_folder):
    before = (run_folder / STATE).read_bytes()
    with pytest.raises(ValueError, match="holds a run already.*--resume"):
        next(train_run(find_task("maze2d"), run_folder, TrainConfig(steps=1), preset=find_preset("default")))
    assert (run_folder / STATE).read_bytes() == before


def test_resuming_refuses_what_does_not_belong(run_folder, tmp_path, copy_run):
    with pytest.raises(ValueError, match=r"no run\.json"):
        list(resume_run(tmp_path))
    changed = copy_run(run_folder)
    record = read_record(changed) | {"fingerprint": "0" * 64}
    (changed / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="has changed since"):
        list(resume_run(changed))
    (changed / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        list(resume_run(changed))
    for content in (b"", b"not safetensors at all", (run_folder / STATE).read_bytes()[:1000]):
        broken = copy_run(run_folder)
        (broken / STATE).write_bytes(content)
        with pytest.raises(ValueError, match=STATE):
            list(resume_run(broken))
        assert (broken / STATE).read_bytes() == content
    foreign = copy_run(run_folder)
    save_file({"weight": torch.zeros(3)}, foreign / STATE)
    with pytest.raises(ValueError, match=STATE):
        list(resume_run(foreign))


def test_finding_runs(run_folder, tmp_path, monkeypatch, copy_run):
    monkeypatch.chdir(tmp_path)
    assert find_run() == SHIPPED
    with pytest.raises(ValueError, match=r"does not exist; runs here: none"):
        find_run("runs/nowhere")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(ValueError, match="is empty"):
        find_run("hollow")
    (tmp_path / "hollow" / "notes.txt").write_text("?")
    with pytest.raises(ValueError, match="no planner"):
        find_run("hollow")
    older, newer = tmp_path / "runs" / "a", tmp_path / "runs" / "b"
    for folder in (newer, older):
        copy_run(run_folder, folder)
    os.utime(older / "run.json", (1, 1))
    assert find_run() == newer.relative_to(tmp_path) / "planner"
    assert newest_run(find_task("maze2d")) == newer.relative_to(tmp_path)
    with pytest.raises(ValueError, match="no run of maze2d-large"):
        newest_run(find_task("maze2d-large"))
    assert find_run("runs/a") == find_run("runs/a/planner")


def test_a_task_names_its_newest_run_or_what_ships(run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_run("maze2d") == find_run("maze2d-umaze") == SHIPPED
    with pytest.raises(ValueError, match="no run of multi2d-umaze"):
        find_run("multi2d")
    shutil.copytree(run_folder, tmp_path / "runs" / "mine")
    assert find_run("maze2d") == find_run("runs/mine")
    with pytest.raises(ValueError, match="'maze3d' does not exist"):
        find_run("maze3d")


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "denoiser/config.json",
        "normalizer/config.json",
        "denoiser/diffusion_pytorch_model.safetensors",
        "returns/config.json",
        "returns/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated"])
def test_damaged_planner_files_are_named(file, damage, run_folder, copy_run):
    folder = copy_run(run_folder)
    target = folder / "planner" / file
    if damage == "missing":
        target.unlink()
    else:
        target.write_bytes(target.read_bytes()[: 0 if damage == "empty" else target.stat().st_size // 2])
    with pytest.raises(ValueError, match=target.name.replace(".", r"\.")):
        load_planner(folder)


def test_a_planner_naming_foreign_code_is_refused(run_folder, copy_run):
    folder = copy_run(run_folder)
    index = folder / "planner" / "model_index.json"
    index.write_text(index.read_text().replace("diffplan.planner.unet", "os.path"))
    with pytest.raises(ValueError, match=r"model_index\.json.*os\.path"):
        load_planner(folder)


def test_a_run_serves_other_tasks_of_its_data_only(run_folder):
    assert load_planner(run_folder, task="multi2d")[1].name == "multi2d-umaze"
    with pytest.raises(ValueError, match="was trained for maze2d-umaze, not for maze2d-large"):
        load_planner(run_folder, task="maze2d-large")


def test_half_precision_is_half_the_size_and_nearly_the_same(run_folder, tmp_path):
    planner, _ = load_planner(run_folder)
    save_planner(planner, tmp_path / "half", half=True)
    for network in ("denoiser", "returns"):
        weights = f"{network}/diffusion_pytorch_model.safetensors"
        ratio = (tmp_path / "half" / weights).stat().st_size / (run_folder / "planner" / weights).stat().st_size
        assert ratio == pytest.approx(0.5, abs=0.03)
    again = TrajectoryPlanner.from_pretrained(tmp_path / "half")
    assert next(again.denoiser.parameters()).dtype == torch.float32
    torch.testing.assert_close(again.normalizer.scale, planner.normalizer.scale, rtol=0, atol=0)
    for name, value in planner.denoiser.state_dict().items():
        torch.testing.assert_close(again.denoiser.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="no GPU; use --device cpu"):
            pick_device("cuda")


def test_commands_are_recorded_with_paths_from_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = [
        "/somewhere/bin/diffplan",
        "train",
        "maze2d",
        "--output",
        str(tmp_path / "runs" / "a"),
        "--map",
        "/other/m",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert exact_command() == "diffplan train maze2d --output runs/a --map /other/m"
