"""The rendering backend: chosen by trying, remembered when it works, tried anew when it did not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffplan.envs import backend


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache, no wish of the user's, Linux's candidates; the environment is put back afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that monkeypatch restores what use_backend sets
        monkeypatch.delenv(name)
    monkeypatch.setattr(backend.platform, "system", lambda: "Linux")
    backend.choose_backend.cache_clear()
    yield
    backend.choose_backend.cache_clear()


class Probe:
    """Stands in for `try_backend`: only some backends work; it keeps count of what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *working: str) -> None:
        self.working, self.tried = set(working), list[str]()
        monkeypatch.setattr(backend, "try_backend", self)

    def __call__(self, name: str) -> str | None:
        self.tried.append(name)
        return None if name in self.working else "no such thing"


def test_takes_the_first_that_works_and_asks_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch, "osmesa")
    assert [backend.choose_backend() for _ in range(3)] == ["osmesa"] * 3
    assert probe.tried == ["egl", "osmesa"]


def test_success_is_remembered_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probe = Probe(monkeypatch, "osmesa")
    backend.choose_backend()
    kept = json.loads((tmp_path / "diffplan" / "backend.json").read_text())
    assert list(kept.values()) == ["osmesa"]
    assert sys.executable in next(iter(kept))
    assert [p.name for p in (tmp_path / "diffplan").iterdir()] == ["backend.json"]
    backend.choose_backend.cache_clear()  # as in a new process
    assert backend.choose_backend() == "osmesa"
    assert probe.tried == ["egl", "osmesa"]


def test_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch)
    assert backend.choose_backend() is None
    assert not backend.cache_file().exists()
    probe.working = {"egl"}
    assert backend.choose_backend() is None  # this process has its answer
    backend.choose_backend.cache_clear()
    assert backend.choose_backend() == "egl"


@pytest.mark.parametrize("content", ["", "not json", "[1]", '{"x": 3}'])
def test_broken_cache_is_ignored_and_mended(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    Probe(monkeypatch, "egl")
    backend.cache_file().parent.mkdir(parents=True)
    backend.cache_file().write_text(content)
    assert backend.choose_backend() == "egl"
    assert "egl" in json.loads(backend.cache_file().read_text()).values()


def test_unwritable_cache_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Probe(monkeypatch, "egl")
    (tmp_path / "diffplan").write_text("a file where the folder should be")
    assert backend.choose_backend() == "egl"


def test_users_wish_comes_first_and_has_its_own_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch, "egl", "osmesa", "glfw")
    assert backend.choose_backend() == "egl"
    for wish in ("osmesa", "glfw"):
        monkeypatch.setenv("MUJOCO_GL", wish)
        backend.choose_backend.cache_clear()
        assert backend.choose_backend() == wish
    assert probe.tried == ["egl", "osmesa", "glfw"]


def test_wish_that_fails_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch, "osmesa")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert backend.choose_backend() == "osmesa"
    assert probe.tried == ["glfw", "egl", "osmesa"]


def test_new_mujoco_is_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch, "egl")
    backend.choose_backend()
    monkeypatch.setattr(backend.importlib.metadata, "version", lambda name: "99.0")
    backend.choose_backend.cache_clear()
    backend.choose_backend()
    assert probe.tried == ["egl", "egl"]


def test_use_backend_sets_both_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    Probe(monkeypatch, "osmesa")
    assert backend.use_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "osmesa"


def test_use_backend_sets_nothing_where_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    Probe(monkeypatch)
    assert backend.use_backend() is None
    assert "MUJOCO_GL" not in os.environ
    assert "PYOPENGL_PLATFORM" not in os.environ


def test_outside_linux_only_a_window_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(monkeypatch)
    monkeypatch.setattr(backend.platform, "system", lambda: "Darwin")
    assert backend.choose_backend() is None
    assert probe.tried == ["glfw"]


def test_trying_reports_why_a_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = backend.try_backend("nonsense")
    assert reason
    assert "\n" not in reason
    monkeypatch.setattr(backend, "_PICTURE", "raise SystemExit('the picture is all one colour')")
    assert backend.try_backend("egl") == "the picture is all one colour"
    monkeypatch.setattr(backend, "_PICTURE", "import os; os.abort()")
    assert "ended with -6" in str(backend.try_backend("egl"))
    monkeypatch.setattr(backend, "_PICTURE", "import time; time.sleep(60)")
    monkeypatch.setattr(backend, "TIMEOUT_SECONDS", 0.3)
    assert backend.try_backend("egl") == "no picture after 0.3 s"
    monkeypatch.setattr(backend.sys, "executable", "/no/such/python")
    assert "could not be started" in str(backend.try_backend("egl"))


def test_what_really_works_here_draws_in_a_new_process() -> None:
    chosen = backend.use_backend()
    if chosen is None:
        pytest.skip("no offscreen rendering on this machine")
    script = (
        "from diffplan.envs.backend import use_backend; use_backend()\n"
        "import mujoco\n"
        "m = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>')\n"
        "with mujoco.Renderer(m, 16, 24) as r: print(r.render().shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(16, 24, 3)", done.stderr


def test_importing_the_module_imports_nothing_heavy() -> None:
    heavy = {"mujoco", "OpenGL", "numpy", "torch", "gymnasium"}
    script = f"import sys, diffplan.envs.backend; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
