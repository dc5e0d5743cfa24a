"""Guides on the command line: plans and rides with them, without a goal, beside the unguided, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from diffplan.envs.colours import AVOID
from diffplan.planner.guides import all_guides, example, explain

FAST = ["--candidates", "2", "--steps", "4"]
ACROSS = ["--goal", "1,1", "--start", "-1,1"]


@pytest.fixture
def works(cli):
    def run(*words) -> str:
        result = cli(*words)
        assert result.exit_code == 0, result.output + result.stderr
        return result.output

    return run


@pytest.fixture
def check_refused(cli):
    def run(*words, parts=()) -> None:
        result = cli(*words)
        assert result.exit_code == 2, result.output
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
        for part in parts:
            assert part in lines[0], lines[0]

    return run


@pytest.fixture(scope="module")
def blind_run(run_folder, tmp_path_factory) -> Path:
    """The run without its return model."""
    folder = Path(shutil.copytree(run_folder, tmp_path_factory.mktemp("blind") / "run"))
    index = folder / "planner" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"returns": [None, None]}))
    return folder


def width(path: Path) -> int:
    return iio.imread(path, index=0).shape[1]


def share_of(picture: np.ndarray, colour: str) -> float:
    """Share of pixels that lean toward a colour: its own hue, however pale."""
    own = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
    seen = picture[..., :3].astype(float)
    lean, want = seen - seen.mean(-1, keepdims=True), own - own.mean()
    size = np.linalg.norm(lean, axis=-1)
    alike = (lean @ want) / np.maximum(size * np.linalg.norm(want), 1e-9)
    return float(((alike > 0.98) & (size > 20)).mean())


class TestPlan:
    def test_compare_is_wider_than_without(self, works, run_folder, tmp_path):
        words = ["plan", run_folder, *ACROSS, "--avoid", "0,1.2,0.15", *FAST]
        for suffix in ("png", "gif"):
            works(*words, "--output", f"one.{suffix}")
            works(*words, "--compare", "--output", f"two.{suffix}")
            assert width(tmp_path / f"two.{suffix}") > 1.7 * width(tmp_path / f"one.{suffix}")

    def test_without_a_goal_a_guide_leads(self, works, run_folder, tmp_path):
        said = works("plan", run_folder, "--start", "-1,1", "--guide", "goal:x=1,y=1@20", "--output", "p.json", *FAST)
        record = json.loads((tmp_path / "p.json").read_text())
        assert record["goal"] == []
        assert record["guides"] == ["goal:x=1,y=1@20"]
        assert len(set(record["candidate_arrivals"])) == 2
        assert "from (-1.00, 1.00) to (" in said
        works("render", "p.json", "--output", "p.png")
        assert width(tmp_path / "p.png") > 100

    def test_boxes_vias_and_guides_are_kept_with_the_plan(self, works, run_folder, tmp_path):
        words = ["--avoid", "0.4,1.3,0.4,0.1", "--via", "0,1", "--guide", "speed:max=2@1"]
        works("plan", run_folder, *ACROSS, *words, "--output", "p.json", *FAST)
        record = json.loads((tmp_path / "p.json").read_text())
        assert record["vias"] == [[0, 1]]
        assert record["guides"][0] == "speed:max=2@1"
        assert record["guides"][1].startswith("avoid:x=0.4,y=1.3,width=0.4,height=0.1,margin=")
        assert 0 < record["tempo"] <= 1

    @pytest.mark.parametrize("guidance", ["both", "gradient", "candidates", "particles"])
    def test_every_way_to_guide(self, works, run_folder, guidance, tmp_path):
        words = ["--guide", "effort@1000", "--guidance", guidance, "--candidates", "8"]
        works("plan", run_folder, *ACROSS, *words, "--output", "p.json")
        hardly = ["--guide", "effort@1e-9", "--guidance", "candidates"]  # unguided plans are shown as they are driven
        works("plan", run_folder, *ACROSS, *hardly, "--candidates", "8", "--output", "free.json")
        guided, free = (json.loads((tmp_path / f).read_text())["candidates"] for f in ("p.json", "free.json"))
        if guidance == "candidates":
            assert sorted(guided) == sorted(free)
        else:
            assert sorted(guided) != sorted(free)

    def test_legs(self, works, run_folder, tmp_path):
        for legs in (1, 2):
            works("plan", run_folder, *ACROSS, "--legs", legs, "--output", f"{legs}.json", *FAST)
        one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
        assert one["goal"] == two["goal"]
        assert len(two["observations"]) >= len(one["observations"])
        assert two["observations"] != one["observations"]

    def test_the_return_guide(self, works, run_folder, tmp_path):
        works("plan", run_folder, "--start", "1,-1", "--guide", "return@3", "--output", "p.json", *FAST)
        assert json.loads((tmp_path / "p.json").read_text())["guides"] == ["return@3"]


class TestRender:
    def test_a_disc_is_drawn_in_its_colour(self, works, run_folder, tmp_path):
        for name, words in (("free", []), ("guided", ["--avoid", "0,1.2,0.2"])):
            works("plan", run_folder, *ACROSS, *words, "--output", f"{name}.json", *FAST)
            works("render", f"{name}.json", "--output", f"{name}.png")
        plain, drawn = (share_of(iio.imread(tmp_path / f"{n}.png"), AVOID) for n in ("free", "guided"))
        assert drawn > plain + 0.001

    def test_it_is_the_picture_that_plan_draws(self, works, run_folder, tmp_path):
        words = ["--avoid", "0,1.2,0.2", "--via", "0.5,1"]
        works("plan", run_folder, *ACROSS, *words, "--output", "p.json", "--output", "p.png", *FAST)
        works("render", "p.json", "--output", "again.png")
        one, other = (iio.imread(tmp_path / f)[..., :3].astype(int) for f in ("p.png", "again.png"))
        assert one.shape == other.shape
        assert (abs(one - other).max(-1) > 40).mean() < 0.01


class TestRollout:
    def test_compare_writes_a_video_of_both(self, works, run_folder, tmp_path):
        words = ["--goal", "1,1", "--start", "1,0.4", "--avoid", "0,1.2,0.15", "--candidates", "2"]
        said = works("rollout", run_folder, *words, "--compare", "--output", "two.gif", "--output", "r.json")
        assert "unguided: maze2d-umaze to (1.00, 1.00)" in said
        frames = iio.imread(tmp_path / "two.gif")
        assert len(frames) > 1
        assert frames.shape[2] > 1.5 * frames.shape[1]
        record = json.loads((tmp_path / "r.json").read_text())
        assert record["guides"][0].startswith("avoid:x=0,y=1.2,radius=0.15")

    def test_without_being_told_the_goal(self, works, run_folder, tmp_path):
        words = ["--goal", "1,1", "--start", "1,0.4", "--no-goal", "--guide", "goal:x=1,y=1@20", "--candidates", "3"]
        said = works("rollout", run_folder, *words, "--output", "r.json")
        record = json.loads((tmp_path / "r.json").read_text())
        assert record["goal"] == [1, 1]
        assert record["plan_paths"][0][-1] != [1, 1]
        assert "to (1.00, 1.00)" in said


def test_every_guide_is_listed_with_its_own_example(works):
    rows: list[list[str]] = []
    for line in works("guides").splitlines():
        if line.startswith("│"):
            cells = ["".join(cell.split()) for cell in line.strip("│").split("│")]
            if cells[0]:
                rows.append(cells)
            else:  # folded
                rows[-1] = [a + b for a, b in zip(rows[-1], cells, strict=True)]
    want = [[name, *explain(name), example(name)] for name in all_guides()]
    assert rows == [["".join(cell.split()) for cell in row] for row in want]
    assert len(rows) >= 9
    assert all(row[3].startswith(row[0]) for row in rows)


SPECS = [
    ("fly", ["unknown guide 'fly'"]),
    ("", ["unknown guide ''"]),
    ("avoid", ["lacks x, y", "for example avoid:"]),
    ("avoid:x=1", ["lacks y"]),
    ("avoid:x=1,y=1,radius=0.1,width=2", ["radius, or width and height"]),
    ("avoid:x=1,y=1,width=2", ["radius, or width and height"]),
    ("avoid:x=0,y=1,radius=0.1,margin=-1", ["margin=-1"]),
    ("avoid:x=0,y=1,radius=0.1,radius=0.2", ["radius twice"]),
    ("avoid:x=0,y=one,radius=0.1", ["'one'", "not a finite number"]),
    ("speed:max=0", ["max=0", "positive"]),
    ("speed:max", ["got 'max'"]),
    ("via:x=1,y=0@-2", ["negative weight"]),
    ("via:x=1,y=0@many", ["'many'", "not a finite number"]),
    ("via:x=inf,y=0", ["not a finite number"]),
    ("goal:x=1,w=0", ["takes x, y, z", "w=0"]),
    ("goal:x=1,y=1,z=0", ["goal:x=1,y=1,z=0 needs three position columns, the task has 2: x, y; leave out"]),
    ("workspace:z_max=1", ["workspace:z_max=1 needs three position columns"]),
    ("effort:of=1", ["takes no parameters"]),
    ("wall:margin=-0.1", ["margin=-0.1 must be positive"]),
    ("wall", ["lacks margin"]),
    ("avoid:x=1,y=1,radius=0.3@5", ["covers the start, goal or via 1,1"]),
]


class TestRefusals:
    @pytest.mark.parametrize(("spec", "parts"), SPECS)
    def test_a_bad_spec_is_one_line(self, check_refused, run_folder, spec, parts, tmp_path):
        check_refused("plan", run_folder, *ACROSS, "--guide", spec, parts=parts)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("spec", ["fly", "speed:max=0", "avoid:x=1,y=1,radius=0.3@5"])
    def test_of_a_rollout_too(self, check_refused, run_folder, spec):
        check_refused("rollout", run_folder, *ACROSS, "--guide", spec, "--output", "r.json", parts=["Error:"])

    def test_a_plan_needs_a_goal_or_a_guide(self, check_refused, run_folder, tmp_path):
        says = ["nothing says where to go", "--goal X,Y", "--guide return@3"]
        check_refused("plan", run_folder, "--start", "-1,1", parts=says)
        check_refused("plan", run_folder, "--start", "-1,1", "--avoid", "0,1,0.1", parts=says)
        check_refused("plan", run_folder, "--via", "0,1", "--guide", "effort", parts=["--via", "give --goal"])
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("words", [["plan", *ACROSS], ["rollout", *ACROSS, "--output", "r.json"]])
    def test_nothing_to_compare(self, check_refused, run_folder, words):
        check_refused(words[0], run_folder, *words[1:], "--compare", parts=["--compare", "give --guide or --avoid"])

    def test_a_return_guide_for_a_run_without_one(self, check_refused, blind_run):
        parts = ["return@3", "no return model", "diffplan train maze2d-umaze --only returns"]
        check_refused("plan", blind_run, "--start", "-1,1", "--guide", "return@3", parts=parts)

    def test_a_return_guide_of_another_tasks_rewards(self, check_refused, run_folder):
        parts = ["rewards of maze2d-umaze, not of multi2d-umaze"]
        check_refused("plan", run_folder, *ACROSS, "--task", "multi2d", "--guide", "return", parts=parts)

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["--guidance", "hope", "--guide", "effort"], ["unknown guidance 'hope'", "both, gradient"]),
            (["--guidance", "particles", "--sampler", "dpm++", "--guide", "effort"], ["noise between the steps"]),
            (["--legs", "0"], ["--legs"]),
            (["--legs", "17"], ["--legs"]),
        ],
    )
    def test_ways_that_cannot_be(self, check_refused, run_folder, words, parts):
        check_refused("plan", run_folder, *ACROSS, *words, parts=parts)

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["--only", "both"], ["--only"]),
            (["--only", "returns", "--output", "nowhere", "--steps", "1"], ["no run.json"]),
            (["--only", "returns", "--steps", "1"], ["no run of maze2d-umaze"]),
        ],
    )
    def test_training_one_part(self, check_refused, words, parts, tmp_path):
        check_refused("train", "maze2d", *words, parts=parts)
        assert not list(tmp_path.rglob("run.json"))


def test_training_one_part_after_the_other(works, tmp_path):
    words = ["train", "maze2d", "--steps", "2", "--batch-size", "4"]
    works(*words, "--only", "denoiser")
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "returns_state.safetensors").exists()
    said = works(*words, "--only", "returns")  # of the newest run
    assert "return model: 2 updates" in said
    assert (run / "returns_calibration.png").is_file()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [run.name]
