"""Plans and rollouts as JSON, in environment units.

Shape letters: K candidates, H tokens, O observations, A actions, T steps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffplan.planner.execution import Rollout
from diffplan.planner.files import whole_file
from diffplan.planner.plan import SLOWEST, Plan

from .references import planned_observations
from .tasks import ArmTask, Task, task_of

MOST_BYTES = 256 * 2**20


def plan_record(
    task: Task,
    plan: Plan,
    *,
    start: Sequence[float],
    goal: Sequence[float],
    seed: int,
    versions: dict[str, str],
    command: str,
    vias: Sequence[Sequence[float]] = (),
) -> dict[str, Any]:
    """One plan; `observations` and `actions` are the best candidate's, until the horizon ends."""
    spec = plan.spec
    return {
        **task.record(),
        "dt_seconds": spec.dt_seconds,
        "stride": spec.stride,
        "observation_names": list(spec.observation_names),
        "action_names": list(spec.action_names),
        "start": _round(start),
        "goal": _round(goal),
        "vias": [_round(via) for via in vias],
        "arrival_steps": plan.steps,
        "tempo": plan.tempo,
        "observations": _round(plan.observations[0]),
        "actions": _round(plan.actions[0]),
        "candidates": _round(plan.observations),
        "candidate_arrivals": [int(a) for a in plan.arrivals],
        "scores": _round(plan.scores),
        "guides": list(plan.guides),
        "seconds": round(plan.seconds, 4),
        "seed": seed,
        "versions": versions,
        "command": command,
    }


def rollout_record(
    task: Task, rollout: Rollout, *, seed: int, versions: dict[str, str], command: str
) -> dict[str, Any]:
    """One executed episode, with its first plan in full and when it planned again."""
    first = plan_record(
        task,
        rollout.plans[0],
        start=rollout.states[0].tolist(),
        goal=rollout.goal.tolist(),
        seed=seed,
        versions=versions,
        command=command,
    )
    ahead = (
        {"plan_paths": [_round(p.path()) for p in rollout.plans]}
        if task.spec.position
        else {"plan_observations": [_round(p.ahead()) for p in rollout.plans]}
    )
    if isinstance(task, ArmTask):
        ahead["plan_references"] = [_round(planned_observations(p)) for p in rollout.plans]
    return first | {
        "states": _round(rollout.states),
        "applied_actions": _round(rollout.actions),
        "rewards": _round(rollout.rewards),
        "plan_steps": list(rollout.plan_steps),
        **ahead,
    }


def write_json(path: str | Path, record: dict[str, Any]) -> None:
    """Write a record, moved into place when it is whole."""
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    with whole_file(path) as scratch:
        scratch.write_text(text)


def read_json(path: str | Path) -> dict[str, Any]:
    """A plan or rollout that `write_json` wrote.

    Raises:
        ValueError: no such file, not JSON, not a plan or rollout, or arrays that do not fit together.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"file {str(path)!r} does not exist; write one with: diffplan plan --output plan.json")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"file {str(path)!r} has {file.stat().st_size / 2**20:.0f} MiB; at most {MOST_BYTES / 2**20:.0f} are read"
        )
    try:
        record = json.loads(file.read_text())
        plan_of(record)
        _check_points(record)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is no plan or rollout of diffplan: {error}") from error
    return dict(record)


def _check_points(record: dict[str, Any]) -> None:
    """Refuse a start that is no observation, and goals or vias that are no positions."""
    spec = task_of(record).spec
    start, goal = _matrix(record["start"], 1, "start"), _matrix(record["goal"], 1, "goal")
    vias = _matrix(record.get("vias") or np.zeros((0, len(spec.position))), 2, "vias")
    wanted = (len(spec.observation_names), len(spec.position), len(spec.position))
    if (len(start), len(goal) or wanted[1], vias.shape[1]) != wanted:
        raise ValueError(f"start, goal and vias need {wanted} numbers, got {(len(start), len(goal), vias.shape[1])}")


def plan_of(record: dict[str, Any]) -> Plan:
    """The plan of a record, as it was made (what no record keeps is zero)."""
    task = task_of(record)
    spec = replace(
        task.spec,
        action_names=tuple(record["action_names"]),
        observation_names=tuple(record["observation_names"]),
        dt_seconds=float(record["dt_seconds"]),
        stride=int(record["stride"]),
    )
    observations = _matrix(record["candidates"], 3, "candidates")
    actions = _matrix(record["actions"], 2, "actions")
    arrivals = np.array(record["candidate_arrivals"], dtype=np.int64)
    count, horizon, _ = observations.shape
    if len(actions) != horizon or len(arrivals) != count or not ((arrivals >= 0) & (arrivals < horizon)).all():
        raise ValueError("candidates, candidate_arrivals and actions do not fit together")
    reached = np.where(np.arange(horizon) >= arrivals[:, None], 1.0, -1.0)
    spread = np.broadcast_to(actions, (count, *actions.shape))
    trajectories = np.concatenate([spread, observations, reached[..., None]], axis=-1).astype(np.float32)
    if trajectories.shape[-1] != spec.width or horizon < 2:
        raise ValueError(f"rows of {trajectories.shape[-1]} columns do not fit the names, which make {spec.width}")
    scores = _matrix(record["scores"], 1, "scores")
    return Plan(
        spec,
        trajectories,
        arrivals,
        scores,
        np.zeros(count),
        np.zeros(count),
        float(record["seconds"]),
        tuple(map(str, record["guides"])),
        _tempo(record.get("tempo", 1.0)),
    )


def _tempo(value: Any) -> float:
    if not SLOWEST <= float(value) <= 10:
        raise ValueError(f"tempo {value!r} must lie between {SLOWEST:g} and 10")
    return float(value)


def _matrix(values: Any, dimensions: int, name: str) -> NDArray[np.float64]:
    array = np.array(values, dtype=float)
    if array.ndim != dimensions or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers in {dimensions} dimensions, got shape {array.shape}")
    return array


def _round(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=float), 5).tolist()
