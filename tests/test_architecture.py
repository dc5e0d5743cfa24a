"""Imports run one way, and each package knows only what it may: read from the files themselves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("planner", "envs", "benchmarks", "cli")
BANNED = {
    "planner": {"gymnasium", "gymnasium_robotics", "mujoco", "minari", "matplotlib", "imageio", "typer", "rich"},
    "envs": {"typer", "rich", "click"},
    "benchmarks": {"typer", "rich", "click"},
    "cli": set(),
}
FILES = [p for package in ORDER for p in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> list[tuple[str, int]]:
    """Module names and relative levels of every import, wherever it stands in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package, depth = path.relative_to(ROOT).parts[0], len(path.relative_to(ROOT).parts) - 1
    for name, level in imports(path):
        parts = name.split(".")
        assert level <= depth, f"{path}: relative imports stay inside a package"
        assert parts[0] not in BANNED[package], f"{path} imports {name}"
        assert level or parts[0] not in ORDER, f"{path}: bare {parts[0]!r} is other people's package"
        if not level and parts[0] == "diffplan" and len(parts) > 1:
            assert parts[1] != package, f"{path}: imports inside a package are relative"
            assert ORDER.index(parts[1]) < ORDER.index(package), f"{path}: {package} may not import {parts[1]}"


def test_no_package_stands_bare_at_the_root_of_the_import_path():
    assert not (ROOT / "diffplan").exists()
    links = {p.name: p.readlink().as_posix() for p in (ROOT / "src" / "diffplan").iterdir() if p.is_symlink()}
    assert links == {name: f"../../{name}" for name in ORDER}


def test_no_nameless_modules():
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common", "base")]


def test_the_library_does_not_print():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "cli" or path.name == "demo.py":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path
