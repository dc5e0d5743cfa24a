"""What a planner's folder must be before anything of it is loaded: whole, ours, and free of foreign code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open

from .inverse import InverseDynamics
from .normalizer import Normalizer
from .plant import Plant
from .returns import ReturnModel
from .unet import TemporalUNet


def load_whole(path: Path, load: Callable[[], Any]) -> Any:
    """What `load` loads from a folder that is whole and ours, or from the hub where there is no such folder.

    Raises:
        ValueError: a file is missing, damaged or foreign; the message names it.
    """
    if path.exists():
        check_files(path)
    try:
        with quiet_diffusers():
            return load()
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} (model_index.json and its parts) holds no planner that can be loaded: {reason}"
        ) from error


def check_files(folder: Path) -> None:
    """Refuse a planner folder that lacks a file, or holds one that is damaged or names foreign code.

    Raises:
        ValueError: with the file and what is wrong with it.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is no planner: it has no model_index.json; train one with: diffplan train TASK")
    try:
        parts = json.loads(index.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{index} is damaged: {error}") from error
    if not isinstance(parts, dict) or parts.get("_class_name") != "TrajectoryPlanner":
        raise ValueError(f"{index} describes no TrajectoryPlanner")
    networks: dict[str, Any] = {"denoiser": TemporalUNet, "normalizer": Normalizer}
    for name, kind in (("returns", ReturnModel), ("plant", Plant), ("inverse", InverseDynamics)):
        if parts.get(name) not in (None, [None, None]):  # not every run has them
            networks[name] = kind
    for name in (*networks, "scheduler"):
        entry = parts.get(name)
        library = entry[0] if isinstance(entry, list) and entry else entry
        if not isinstance(library, str) or library.split(".")[0] not in ("diffusers", "diffplan"):
            raise ValueError(
                f"{index}: {name} comes from {library!r}; only diffplan and diffusers components are loaded"
            )
        wanted = (
            ("scheduler_config.json",)
            if name == "scheduler"
            else ("config.json", "diffusion_pytorch_model.safetensors")
        )
        for file in wanted:
            _check_file(folder / name / file)
    for name, kind in networks.items():
        _check_weights(folder / name, kind)


def _check_file(path: Path) -> None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with safe_open(path, framework="pt"):
                pass
    except Exception as error:
        raise ValueError(
            f"{path} is missing, truncated or not what it should be: {str(error).splitlines()[0]}"
        ) from error


def _check_weights(folder: Path, kind: Any) -> None:
    """Refuse weights of another network: diffusers would fill what is missing with random ones."""
    path = folder / "diffusion_pytorch_model.safetensors"
    try:
        with torch.device("meta"):
            empty = kind(**{k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k[0] != "_"})
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} describes no {kind.__name__}: {str(error).splitlines()[0]}"
        ) from error
    with safe_open(path, framework="pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a mapping
    wanted = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    if found != wanted:
        count = len(set(found.items()) ^ set(wanted.items()))
        raise ValueError(f"{path} holds the weights of another network: {count} tensors differ in name or shape")


def own_weights(part: torch.nn.Module) -> None:
    """Copy weights out of the file that they are mapped from, as single precision: it may be replaced meanwhile."""
    for tensor in (*part.parameters(), *part.buffers()):
        tensor.data = tensor.data.to(torch.float32, copy=True)


@contextlib.contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Without diffusers' progress bar and notes; errors are raised all the same."""
    level, bars = diffusers_logging.get_verbosity(), diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
        if bars:
            diffusers_logging.enable_progress_bar()
