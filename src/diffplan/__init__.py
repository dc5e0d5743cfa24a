"""diffplan: plan trajectories by denoising them.

Names are imported when they are first used, so that `import diffplan` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Conditions": "planner.conditions",
    "Episodes": "planner.episodes",
    "Executor": "planner.execution",
    "Guide": "planner.guides",
    "MazeMap": "envs.maze",
    "MazeTask": "envs.tasks",
    "Normalizer": "planner.normalizer",
    "Plan": "planner.plan",
    "PlannedActions": "planner.controllers",
    "Preset": "envs.presets",
    "Rollout": "planner.execution",
    "Sampling": "planner.options",
    "Simulators": "envs.simulators",
    "Task": "envs.tasks",
    "TemporalUNet": "planner.unet",
    "TrackingController": "planner.controllers",
    "TrainConfig": "planner.training",
    "TrajectoryPlanner": "planner.pipeline",
    "TrajectorySpec": "planner.spec",
    "Windows": "planner.windows",
    "controller_for": "envs.control",
    "distill_run": "envs.distilling",
    "evaluate": "benchmarks.evaluate",
    "executor_for": "envs.control",
    "find_run": "envs.runs",
    "find_task": "envs.tasks",
    "find_teacher": "envs.distilling",
    "load_planner": "envs.runs",
    "own_task": "envs.tasks",
    "parse_guide": "planner.guides",
    "read_map": "envs.tasks",
    "register_guide": "planner.guides",
    "register": "envs.tasks",
    "train_run": "envs.training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffplan' has no attribute {name!r}")
    return getattr(importlib.import_module(f"diffplan.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


if TYPE_CHECKING:
    from .benchmarks.evaluate import evaluate as evaluate
    from .envs.control import controller_for as controller_for
    from .envs.control import executor_for as executor_for
    from .envs.distilling import distill_run as distill_run
    from .envs.distilling import find_teacher as find_teacher
    from .envs.maze import MazeMap as MazeMap
    from .envs.presets import Preset as Preset
    from .envs.runs import find_run as find_run
    from .envs.runs import load_planner as load_planner
    from .envs.simulators import Simulators as Simulators
    from .envs.tasks import MazeTask as MazeTask
    from .envs.tasks import Task as Task
    from .envs.tasks import find_task as find_task
    from .envs.tasks import own_task as own_task
    from .envs.tasks import read_map as read_map
    from .envs.tasks import register as register
    from .envs.training import train_run as train_run
    from .planner.conditions import Conditions as Conditions
    from .planner.controllers import PlannedActions as PlannedActions
    from .planner.controllers import TrackingController as TrackingController
    from .planner.episodes import Episodes as Episodes
    from .planner.execution import Executor as Executor
    from .planner.execution import Rollout as Rollout
    from .planner.guides import Guide as Guide
    from .planner.guides import parse_guide as parse_guide
    from .planner.guides import register_guide as register_guide
    from .planner.normalizer import Normalizer as Normalizer
    from .planner.options import Sampling as Sampling
    from .planner.pipeline import TrajectoryPlanner as TrajectoryPlanner
    from .planner.plan import Plan as Plan
    from .planner.spec import TrajectorySpec as TrajectorySpec
    from .planner.training import TrainConfig as TrainConfig
    from .planner.unet import TemporalUNet as TemporalUNet
    from .planner.windows import Windows as Windows
