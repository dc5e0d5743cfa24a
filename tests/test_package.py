"""What users install: the wheel's contents, and how light the first import is."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import diffplan

ROOT = Path(__file__).parent.parent


def test_wheel_holds_every_module_and_the_shipped_planner(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for package in ("planner", "envs", "benchmarks", "cli"):
        wanted = {f"diffplan/{p.relative_to(ROOT)}" for p in (ROOT / package).rglob("*.py")}
        assert wanted and wanted <= names
    assert {"diffplan/__init__.py", "diffplan/py.typed"} <= names
    shipped = {f"diffplan/{p.relative_to(ROOT)}" for p in (ROOT / "envs" / "assets").rglob("*") if p.is_file()}
    assert any(n.endswith("diffusion_pytorch_model.safetensors") for n in shipped) and shipped <= names
    assert not [n for n in names if n.startswith(("planner/", "envs/", "tests/", "diffplan/benchmarks/results"))]


def test_shipped_planners_are_small():
    """A few MB in all: each in half precision."""
    for planner in (ROOT / "envs" / "assets").iterdir():
        assert sum(p.stat().st_size for p in planner.rglob("*") if p.is_file()) <= 3 * 2**20


def test_help_and_import_leave_torch_alone():
    code = (
        "import sys, diffplan\n"
        "from typer.testing import CliRunner\n"
        "from diffplan.cli.main import app\n"
        "for words in ([], ['train'], ['distill'], ['plan'], ['rollout'], ['evaluate'], ['data', 'collect']):\n"
        "    result = CliRunner().invoke(app, [*words, '--help'])\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'diffusers', 'mujoco', 'gymnasium', 'minari', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_had():
    for name in diffplan.__all__:
        assert getattr(diffplan, name).__name__ == name
        assert name in dir(diffplan)


def test_typing_names_are_the_lazy_names():
    text = (ROOT / "src" / "diffplan" / "__init__.py").read_text()
    for name, home in diffplan._HOMES.items():
        assert f"from .{home} import {name} as {name}\n" in text


def test_committed_results_name_no_path_of_a_machine():
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        found = re.findall(r'"[^"]*?(/(?:home|root|work|tmp|Users)/[^"]*)"', file.read_text())
        assert found == [], file.name
