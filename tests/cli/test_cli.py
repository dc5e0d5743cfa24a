"""The program as users meet it: what works, and what it says when something is off."""

import json
import os

import imageio.v3 as iio
import pytest

from diffplan.envs.runs import load_planner

FAST = ["--candidates", "2"]


def check_refused(result, *parts, code=2):
    """One line on standard error, the exit code, no traceback."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for part in parts:
        assert part in lines[0], lines[0]


class TestWhatWorks:
    def test_plan_draws_and_writes(self, cli, run_folder, tmp_path):
        outputs = [w for f in ("p.png", "p.gif", "p.json") for w in ("--output", f)]
        result = cli(
            "plan",
            run_folder,
            "--goal",
            "1,1",
            "--start",
            "-1,-1",
            "--via",
            "1,-1",
            "--avoid",
            "0.3,0.9,0.1",
            *outputs,
            "--film",
            "film.gif",
            *FAST,
        )
        assert result.exit_code == 0, result.output
        for part in ("steps", "candidate scores", "planned in", "(1.00, 1.00)", "via (1.00, -1.00)"):
            assert part in result.output
        for name in ("p.png", "p.gif", "film.gif"):
            assert iio.imread(tmp_path / name).size > 1000
        record = json.loads((tmp_path / "p.json").read_text())
        assert record["goal"] == [1, 1] and record["start"][:2] == [-1, -1] and len(record["candidates"]) == 2

    def test_same_seed_same_plan(self, cli, run_folder, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert (
                cli("plan", run_folder, "--goal", "cell:1,3", "--seed", seed, "--output", f"{name}.json").exit_code == 0
            )
        a, b, c = (json.loads((tmp_path / f"{n}.json").read_text())["candidates"] for n in "abc")
        assert a == b != c

    def test_rollout_and_render(self, cli, run_folder, tmp_path):
        result = cli(
            "rollout", run_folder, "--goal", "1,1", "--start", "1,0.9", "--output", "r.json", "--output", "r.gif", *FAST
        )
        assert result.exit_code == 0 and "planned" in result.output, result.output
        for target in ("again.gif", "again.png"):
            assert cli("render", "r.json", "--output", target).exit_code == 0
            assert iio.imread(tmp_path / target).size > 1000

    def test_evaluate_prints_the_table_and_writes_json(self, cli, run_folder, tmp_path):
        result = cli("evaluate", run_folder, "--task", "multi2d", "--episodes", 2, "--json", "e.json", *FAST)
        assert result.exit_code == 0, result.output
        for part in ("strict score", "latched score", "waypoint controller", "random policy"):
            assert part in result.output
        assert json.loads((tmp_path / "e.json").read_text())["task"] == "multi2d-umaze"

    def test_distill_makes_a_run_that_the_same_commands_use(self, cli, run_folder, tmp_path):
        few = ["--steps", 2, "--batch-size", 4]
        result = cli("distill", run_folder, *few, "--teacher-steps", 2, "--output", "runs/one")
        assert result.exit_code == 0 and "2 updates" in result.output, result.output
        record = json.loads((tmp_path / "runs" / "one" / "run.json").read_text())
        assert record["distilled_from"] == {"run": str(run_folder), "task": "maze2d-umaze", "steps": 2}
        assert cli("distill", "--resume", "--output", "runs/one", "--steps", 3).exit_code == 0
        result = cli("plan", "--goal", "1,1", "--start", "-1,1", "--output", "p.json")  # of the newest run
        assert result.exit_code == 0, result.output
        own = load_planner("runs/one")[0].sampling
        assert (own.steps, own.raced_candidates) == (1, 1)
        assert len(json.loads((tmp_path / "p.json").read_text())["candidates"]) == own.candidates  # to look at
        check_refused(cli("distill", "runs/one"), "is distilled already", str(run_folder))
        check_refused(cli("distill", run_folder, "--output", "runs/one"), "holds a run already", "--resume")
        check_refused(cli("train", "maze2d", "--resume"), "is distilled, not trained", "diffplan distill --resume")

    def test_guide_and_task_lists(self, cli):
        assert "avoid:x=1,y=0,radius=0.3,margin=0.15@100" in cli("guides").output
        assert "maze2d-large" in cli("tasks").output
        assert "maze: all mazes" in cli("bench", "list").output

    def test_data_list_and_info(self, cli):
        assert "diffplan/maze2d/umaze-v0" in cli("data", "list").output
        assert "p_gain" in cli("data", "info", "diffplan/maze2d/umaze-v0").output

    def test_guides_change_the_plan(self, cli, run_folder, tmp_path):
        for name, extra in (("a", []), ("b", ["--guide", "speed:max=0.5@1"]), ("c", ["--guide", "speed:max=0.5@0"])):
            assert cli("plan", run_folder, "--goal", "1,1", "--output", f"{name}.json", *extra).exit_code == 0
        a, b, c = (json.loads((tmp_path / f"{n}.json").read_text())["candidates"] for n in "abc")
        assert a != b and a == c

    def test_doctor(self, cli):
        result = cli("doctor")
        assert result.exit_code == 0
        for part in ("torch", "mujoco", "rendering", "datasets"):
            assert part in result.output


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["train", "mase2d"], ["unknown task 'mase2d'", "maze2d-umaze"]),
            (["train", "maze2d", "--steps", "1", "--preset", "huge"], ["unknown preset 'huge'", "default"]),
            (["train", "maze2d", "--steps", "1", "--device", "tpu"], ["unknown device 'tpu'", "cpu"]),
            (
                ["train", "maze2d", "--steps", "1", "--horizon", "4000"],
                ["horizon 4000", "longer than every episode", "at most"],
            ),
            (["train", "maze2d", "--steps", "1", "--minutes", "nan"], ["--minutes", "less than"]),
            (["train", "maze2d", "--resume"], ["no run of maze2d-umaze"]),
            (["train", "maze2d", "--resume", "--output", "nowhere"], ["no run.json"]),
            (["data", "collect", "nothing"], ["unknown task 'nothing'"]),
            (["data", "collect", "maze2d"], ["is there already"]),
            (["data", "info", "me/none-v0"], ["no local dataset 'me/none-v0'", "diffplan/maze2d/umaze-v0"]),
            (["distill", "nowhere"], ["'nowhere' does not exist"]),
            (["distill", "--teacher-steps", "5"], ["steps=5 does not divide", "ddim takes"]),
            (["distill", "--device", "tpu"], ["unknown device 'tpu'", "cpu"]),
            (["distill", "--resume", "--output", "nowhere"], ["no run.json"]),
            (["plan", "nowhere", "--goal", "1,1"], ["'nowhere' does not exist"]),
            (["evaluate", "nowhere"], ["'nowhere' does not exist"]),
            (["rollout", "nowhere"], ["'nowhere' does not exist"]),
            (["render", "none.json", "--output", "x.gif"], ["'none.json' does not exist"]),
            (["bench", "none"], ["unknown benchmark 'none'"]),
            (["train", "maze2d", "--steps", "1", "--dataset", "not an id"], ["not an id"]),
        ],
    )
    def test_commands(self, cli, words, parts, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        check_refused(cli(*words), *parts)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["--goal", "0,0"], ["goal 0,0 lies inside or against a wall", "nearest free point"]),
            (["--goal", "7,7"], ["goal 7,7 lies outside the maze", "nearest free point is 1.4,1.4"]),
            (["--goal", "1"], ["goal 1 has 1 numbers", "x,y"]),
            (["--goal", "1,1,1"], ["3 numbers"]),
            (["--goal", "nan,1"], ["nan,1 must be finite"]),
            (["--goal", "inf,1"], ["finite"]),
            (["--goal", "one,1"], ["'one,1' is not a list of numbers"]),
            (["--goal", "cell:2,1"], ["wall"]),
            (["--goal", "1,1", "--start", "0,0"], ["start 0,0 lies inside"]),
            (["--goal", "1,1", "--via", "0,0"], ["via 0,0 lies inside"]),
            (["--goal", "1,1", "--avoid", "1,1"], ["avoid '1,1' must be X,Y,RADIUS or X,Y,WIDTH,HEIGHT"]),
            (["--goal", "1,1", "--avoid", "0,1,-1"], ["avoid '0,1,-1'", "positive sizes"]),
            (["--goal", "1,1", "--avoid", "1,1,0.3"], ["covers the start, goal or via 1,1"]),
            (["--goal", "1,1", "--guide", "fly"], ["unknown guide 'fly'", "avoid"]),
            (["--goal", "1,1", "--guide", "speed"], ["lacks max", "for example speed:max="]),
            (["--goal", "1,1", "--guide", "speed:most=3"], ["takes max", "most=3"]),
            (["--goal", "1,1", "--guide", "avoid:x=0,y=0,radius=-1"], ["radius=-1 must be positive"]),
            (["--goal", "1,1", "--guide", "speed:max=nan"], ["not a finite number"]),
            (["--goal", "1,1", "--guide", "speed:max=3@"], ["not a finite number"]),
            (["--goal", "1,1", "--steps", "5"], ["steps=5 does not divide"]),
            (["--goal", "1,1", "--sampler", "euler"], ["unknown sampler 'euler'"]),
            (["--goal", "1,1", "--task", "maze2d-large"], ["was trained for maze2d-umaze"]),
            (["--goal", "1,1", "--device", "gpu"], ["unknown device 'gpu'"]),
            (["--goal", "1,1", "--output", "plan.tiff"], ["plan.tiff", ".png"]),
            (["--goal", "1,1", "--output", "no/such/folder/plan.png"], ["no/such/folder"]),
        ],
    )
    def test_plan(self, cli, run_folder, words, parts, tmp_path):
        check_refused(cli("plan", run_folder, *words), *parts)
        assert not list(tmp_path.iterdir())

    def test_an_output_that_cannot_be_written(self, cli, run_folder, tmp_path):
        (tmp_path / "taken.png").mkdir()
        check_refused(cli("plan", run_folder, "--goal", "1,1", "--output", "taken.png"), "taken.png")
        if os.geteuid():
            (tmp_path / "locked").mkdir(mode=0o500)
            check_refused(cli("plan", run_folder, "--goal", "1,1", "--output", "locked/p.png"), "locked")

    def test_cuda_without_a_gpu(self, cli, run_folder):
        import torch

        if not torch.cuda.is_available():
            check_refused(cli("plan", run_folder, "--goal", "1,1", "--device", "cuda"), "'cuda'", "--device cpu")

    def test_an_empty_run_folder(self, cli, tmp_path):
        (tmp_path / "hollow").mkdir()
        check_refused(cli("plan", "hollow", "--goal", "1,1"), "'hollow' is empty", "diffplan train")

    @pytest.mark.parametrize(
        "words",
        [
            ["train"],
            ["plan", "--goal", "1,1", "--candidates", "0"],
            ["train", "maze2d", "--steps", "0"],
            ["train", "maze2d", "--steps", "many"],
            ["evaluate", "--episodes", "-3"],
            ["fly"],
        ],
    )
    def test_usage_errors_are_one_line_too(self, cli, words):
        check_refused(cli(*words), "--help")

    def test_debug_shows_the_trace(self, cli):
        result = cli("train", "mase2d", "--debug")
        assert isinstance(result.exception, ValueError)
        check_refused(cli("train", "mase2d"), "unknown task")  # and it does not stick

    def test_a_failed_job_exits_with_1(self, cli, run_folder, monkeypatch):
        import diffplan.envs.requests as requests

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(requests, "draw", full)
        check_refused(cli("plan", run_folder, "--goal", "1,1"), "No space left on device", code=1)
