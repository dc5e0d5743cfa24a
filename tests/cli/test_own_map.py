"""A maze of one's own, from its map to pictures of rollouts, and what is said where something is off."""

import json
import shutil
from pathlib import Path

import imageio.v3 as iio
import pytest
from typer.testing import CliRunner

from diffplan.cli.main import app
from diffplan.envs.runs import find_run, load_planner, read_record

FAST = ["--candidates", "2"]
MAP = "######\n#S...#\n#.##G#\n######\n"


def invoke(words):
    return works(CliRunner().invoke(app, words.split()))


def works(result):
    assert result.exit_code == 0, result.output
    return result.output


def check_refused(result, *parts):
    """One line on standard error, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run on a map, trained for a moment, and its data; the map's file is gone."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.chdir(folder)
        Path("my_maze.txt").write_text(MAP)
        invoke("data collect maze2d --map my_maze.txt --steps 3000")
        invoke("train maze2d --map my_maze.txt --steps 2 --batch-size 4 --only denoiser --output runs/mine")
        Path("my_maze.txt").unlink()
    return folder


@pytest.fixture
def trained(made, cli, tmp_path, monkeypatch):
    """A copy of that run, where commands run."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(made / "minari"))
    return Path(shutil.copytree(made / "runs", tmp_path / "runs")) / "mine"


def test_from_map_to_pictures_without_the_file(cli, trained, tmp_path):
    """One test for the whole way, as each part needs the one before."""
    record = read_record(trained)
    assert (record["task"], record["map"]) == ("maze2d-my_maze", MAP.split())
    where = works(cli("plan", "--goal", "cell:2,1", *FAST, "--output", "p.json", "--output", "p.png"))
    assert "maze2d-my_maze: from (-1." in where  # in the one start, by the newest run
    works(cli("rollout", "maze2d-my_maze", *FAST, "--output", "r.json"))  # the run by its task's name
    for name in "pr":
        saved = json.loads((tmp_path / f"{name}.json").read_text())
        assert (saved["task"], saved["map"]) == (record["task"], record["map"])
        works(cli("render", f"{name}.json", "--output", f"{name}.gif"))
        assert iio.imread(tmp_path / f"{name}.gif").size > 1000
    assert saved["goal"] == [1.5, -0.5]  # of the rollout: the map's G
    table = works(cli("evaluate", "runs/mine", "--episodes", 2, *FAST, "--json", "e.json"))
    assert "score" not in table
    assert "success" in table
    numbers = json.loads((tmp_path / "e.json").read_text())
    assert numbers["score_strict"] is numbers["score_latched"] is None
    assert numbers["map"] == record["map"]
    assert numbers["references"]["waypoint controller"]["success_rate"] == 1.0

    works(cli("train", "maze2d-my_maze", "--resume", "--steps", 3))
    works(cli("train", "maze2d-my_maze", "--resume", "--steps", 4, "--output", "runs/mine"))
    works(
        cli("train", "maze2d-my_maze", "--steps", 1, "--batch-size", 4, "--only", "denoiser", "--output", "runs/again")
    )
    assert read_record(tmp_path / "runs" / "again")["dataset"] == record["dataset"]


def test_what_does_not_fit_a_run_is_refused(cli, trained, tmp_path, copy_run):
    other = tmp_path / "elsewhere" / "my_maze.txt"
    other.parent.mkdir()
    for text, where in ((MAP.replace("##G", "#.G"), "walls"), (MAP.replace("G", "."), "goal")):
        other.write_text(text)
        words = ("train", "maze2d", "--map", other, "--resume", "--output", "runs/mine")
        check_refused(cli(*words), "trains maze2d-my_maze on another map", "train maze2d-my_maze --resume", "--output")
        assert read_record(trained)["map"] == MAP.split(), where
    check_refused(
        cli("train", "maze2d", "--resume", "--output", "runs/mine"), "trains maze2d-my_maze, not maze2d-umaze"
    )
    check_refused(cli("plan", "runs/mine", "--goal", "0,0", "--task", "multi2d"), "trained for maze2d-my_maze, not for")
    check_refused(cli("plan", "--goal", "cell:2,2", "--start", "0.5,0.5"), "goal", "lies inside or against a wall")
    alone = copy_run(trained / "planner")
    check_refused(cli("plan", alone, "--goal", "0.5,0.5"), "maze2d-my_maze", "keep the run folder whole")
    damaged = read_record(trained) | {"map": ["#"]}
    (trained / "run.json").write_text(json.dumps(damaged))
    check_refused(cli("plan", "runs/mine", "--goal", "0.5,0.5"), "has no free cell")
    with pytest.raises(ValueError, match="no free cell"):
        load_planner(find_run(trained))


@pytest.mark.parametrize("command", [("train",), ("data", "collect")])
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("maze2d", "none.txt"), ["map 'none.txt' does not exist"]),
        (("maze2d", "."), ["map '.' is a folder"]),
        (("maze2d", "open.txt"), ["map 'open.txt', line 2, column 1: '.' leaves the border open"]),
        (("maze2d", "umaze.txt"), ["would make the task maze2d-umaze", "rename"]),
        (("multi2d", "mine.txt"), ["--map is for maze2d, not for multi2d", "fresh goal"]),
        (("hopper-medium", "mine.txt"), ["--map is for maze2d, not for hopper-medium"]),
        (("mase2d", "mine.txt"), ["unknown task 'mase2d'"]),
    ],
)
def test_what_is_no_map_is_refused(cli, command, words, parts, tmp_path):
    for name, text in (("mine", MAP), ("umaze", MAP), ("open", "####\n...#\n####")):
        (tmp_path / f"{name}.txt").write_text(text)
    before = sorted(tmp_path.rglob("*"))
    check_refused(cli(*command, words[0], "--map", words[1]), *parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_is_not_there(cli, tmp_path):
    (tmp_path / "mine.txt").write_text(MAP)
    check_refused(
        cli("train", "maze2d", "--map", "mine.txt", "--resume"), "start one with: diffplan train maze2d --map"
    )
    check_refused(cli("plan", "maze2d-mine", "--goal", "1,1"), "'maze2d-mine' does not exist")
