"""OGBench's environments as they are made here: they compile, and begin the same way from the same seed.

Nothing imports the package before a task of it is used: it is an extra.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .quiet import quiet_imports

CUBES_FROM = np.array([0.425, 0.0, 0.0])  # metres: where observations of cubes and of the hand are measured from
CUBE_UNITS, DRAWER_UNITS, WINDOW_UNITS = 10.0, 18.0, 15.0  # per metre, as they are observed
TEXTURE_CLASS = re.compile(r'(<texture\b[^>]*?)\s+class="[^"]*"')


def need_ogbench(task: str) -> Any:
    """The package, its environments registered.

    Raises:
        ValueError: it is not installed; the message has the command.
    """
    try:
        with quiet_imports():
            import ogbench
    except ImportError:
        raise ValueError(f"task {task} needs OGBench: pip install 'diffplan[ogbench]'") from None
    return ogbench


def make_environment(environment: str, **options: Any) -> Any:
    """An environment by its id, compiled, without wrappers; `options` are the package's own."""
    import gymnasium

    with quiet_imports(), textures_without_class(), chance_from(0):
        env = gymnasium.make(environment, disable_env_checker=True, **options).unwrapped
        env.reset()  # scenes compile here
        if "action_space" not in vars(env):
            # Scenes make this space anew at every look, so that nobody could seed what their resets sample from it.
            kind = type(env)
            env.__class__ = type(kind.__name__, (kind,), {"action_space": env.action_space})
    return env


def begin(env: Any, seed: int, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Reset to the same observation and info from the same seed, whatever was done before."""
    env.action_space.seed(seed)
    with chance_from(seed):
        return env.reset(seed=seed, options=options)


def aim(env: Any, wanted: Mapping[str, float]) -> None:
    """Let a scene's success be about other values of what its goal names, in the units of its observations."""
    for number, target in enumerate(env._cube_target_mocap_ids, start=1):
        place = np.array([wanted[f"cube{number}_{axis}"] for axis in "xyz"])
        env.data.mocap_pos[target] = CUBES_FROM + place / CUBE_UNITS
    if "drawer" in wanted:
        env._target_button_states[:] = [round(wanted[f"button{n}_frees"]) for n in (1, 2)]
        env._target_drawer_pos = wanted["drawer"] / DRAWER_UNITS
        env._target_window_pos = wanted["window"] / WINDOW_UNITS


@contextlib.contextmanager
def chance_from(seed: int) -> Iterator[None]:
    """What OGBench draws from NumPy's global generator (starts, goals, oracles) comes from a seed; nobody else's does.

    The generator is left as it was found.
    """
    before = np.random.get_state()  # noqa: NPY002 - the package knows no other
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


@contextlib.contextmanager
def textures_without_class() -> Iterator[None]:
    """The one fix to OGBench 1.2.2: scenes compile where dm_control is newer than MuJoCo.

    dm_control 1.0.50 writes <texture class="/"> into what the scenes are compiled from, which MuJoCo 3.10 refuses
    ("Schema violation: unrecognized attribute: 'class'"); textures have no defaults that a class could stand for. pip
    keeps the two apart by itself (dm_control 1.0.43 is the last for MuJoCo 3.10), other installers may not.
    """
    with quiet_imports():
        from ogbench.manipspace import mjcf_utils

    written = mjcf_utils.to_string

    def cleaned(*args: Any, **options: Any) -> str:
        return TEXTURE_CLASS.sub(r"\1", written(*args, **options))

    mjcf_utils.to_string = cleaned
    try:
        yield
    finally:
        mjcf_utils.to_string = written
