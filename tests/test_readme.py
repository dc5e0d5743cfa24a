"""The README's words are true: its commands run, its Python runs, its table is the committed results'."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diffplan.benchmarks.readme import TABLES
from diffplan.cli.main import app

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("diffplan ")
]
SHORTER = {"evaluate": ["--episodes", "2", "--candidates", "2"]}  # the same commands, with less of the same work


@pytest.fixture
def here(tmp_path_factory, monkeypatch, data):
    """A folder to run in with the README's map, and a short dataset for every task that is trained."""
    from dataclasses import replace

    from diffplan.envs import tasks
    from diffplan.envs.tasks import own

    folder = tmp_path_factory.mktemp("readme")
    monkeypatch.chdir(folder)
    (folder / "my_maze.txt").write_text(re.search(r"```text\n(#.*?)```", TEXT, re.DOTALL).group(1))
    monkeypatch.setattr(own, "COLLECT_STEPS", 20_000)
    monkeypatch.setattr(tasks, "_TASKS", {n: replace(t, collect_steps=20_000) for n, t in tasks.all_tasks().items()})
    return folder


@pytest.mark.timeout(600)
def test_commands_run_in_order(here):
    assert len(COMMANDS) >= 12
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        if words[0] == "train":
            bound = words.index("--minutes") if "--minutes" in words else len(words)
            words = [
                *words[:bound],
                *words[bound + 2 :],
                "--steps",
                "3" if "--resume" in words else "2",
                "--batch-size",
                "4",
            ]
        result = CliRunner().invoke(app, [*words, *SHORTER.get(words[0], [])])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert {"plan.png", "plan.gif", "film.gif", "rollout.gif", "again.gif", "large.json", "mine.gif", "choice.gif"} <= {
        p.name for p in here.iterdir()
    }


def test_python_runs(here):
    space: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)
    assert space["careful"].duration_seconds > space["plan"].duration_seconds


@pytest.mark.parametrize(("mark", "table"), TABLES.items())
def test_tables_are_made_from_committed_json(mark, table):
    made = table(ROOT / "benchmarks" / "results")
    shown = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", TEXT, re.DOTALL)
    if shown is None:
        assert not made, f"there are results that the README does not show: give them a mark, <!-- {mark} -->"
    else:
        assert made and shown.group(1) == made


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target
