"""Which of MuJoCo's offscreen backends works on this machine: found by trying, once, in a child process.

An installed library says little: Mesa's EGL may load and draw nothing, or fail only when asked for a picture.
What worked is remembered for the process and, in the user's cache folder, for the machine; failures are not.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

TIMEOUT_SECONDS = 20.0

_PICTURE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size=".5" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    picture = renderer.render()
if picture.min() == picture.max():
    raise SystemExit("the picture is all one colour")
print("drawn")
"""


def use_backend() -> str | None:
    """Set MUJOCO_GL to a backend that works; None where there is none, and only the top view can be drawn.

    Call it before mujoco is first imported in this process: mujoco reads the variable then, and never again.
    """
    backend = choose_backend()
    if backend is not None:
        os.environ.update(_variables(backend))
        if backend == "glfw":
            os.environ.pop("PYOPENGL_PLATFORM", None)
    return backend


@functools.cache
def choose_backend() -> str | None:
    """The value that MUJOCO_GL should have, "egl", "osmesa" or "glfw"; None where nothing draws.

    A MUJOCO_GL that the user has set is tried first. `choose_backend.cache_clear()` forgets this process's
    answer, and the file `cache_file()` that of the machine.
    """
    known = _remembered()
    key = _machine()
    if known.get(key) in _candidates():
        return known[key]
    for backend in _candidates():
        if try_backend(backend) is None:
            _remember({**known, key: backend})
            return backend
    return None


def try_backend(backend: str) -> str | None:
    """Draw one small picture in a child process: None if that worked, else one line that says why it did not.

    A backend whose context cannot be closed again counts as not working. It takes about a second, given 20.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | _variables(backend)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PICTURE],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no picture after {TIMEOUT_SECONDS:g} s"
    except OSError as error:
        return f"{sys.executable} could not be started: {error}"
    if done.returncode == 0 and "drawn" in done.stdout:
        return None
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return said[-1] if said else f"the child process ended with {done.returncode}"


def cache_file() -> Path:
    """Where the answer is kept: $XDG_CACHE_HOME or ~/.cache, then diffplan/backend.json."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return folder / "diffplan" / "backend.json"


def _candidates() -> tuple[str, ...]:
    """Backends in the order in which they are tried; outside Linux there is only a hidden window."""
    usual = ("egl", "osmesa") if platform.system() == "Linux" else ("glfw",)
    wish = _wish()
    return (wish, *(b for b in usual if b != wish)) if wish in ("egl", "osmesa", "glfw") else usual


def _wish() -> str:
    return os.environ.get("MUJOCO_GL", "").strip().lower()


def _variables(backend: str) -> dict[str, str]:
    """Environment variables of a backend; PyOpenGL must agree with mujoco or mujoco refuses to start."""
    return {"MUJOCO_GL": backend} | ({} if backend == "glfw" else {"PYOPENGL_PLATFORM": backend})


def _machine() -> str:
    """All that the answer depends on: mujoco, host, its graphics devices, python, and the user's wish."""
    try:
        version = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    devices = sorted(glob.glob("/dev/dri/*") + glob.glob("/dev/nvidia[0-9]*"))
    host = hashlib.sha256(" ".join([platform.node(), *devices]).encode()).hexdigest()[:16]
    return f"mujoco {version}, host {host}, {sys.executable}, wish {_wish() or 'none'}"


def _remembered() -> dict[str, str]:
    """What the cache file says; nothing where it is missing or broken."""
    try:
        known = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): v for k, v in known.items() if isinstance(v, str)} if isinstance(known, dict) else {}


def _remember(known: dict[str, str]) -> None:
    """Write the cache file in one piece; a cache that cannot be written is done without."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(known, file, indent=1)
        os.replace(file.name, path)
    except OSError:
        return
