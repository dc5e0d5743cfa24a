"""How many steps of MuJoCo's environments a second: in one process, and spread over all cores.

Shape letters: B environments, A actions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from diffplan.envs.colours import GREY, INK, START, VIA
from diffplan.envs.parallel import cores
from diffplan.envs.simulators import Simulators
from diffplan.envs.tasks import find_task

from .growth_report import dress
from .maze_gallery import WIDTH, WORDS, new_figure
from .maze_plots import save_picture

COUNTS = (1, 4, 16, 64, 256)
TASKS: dict[str, tuple[int, ...]] = {
    "maze2d-large": COUNTS,
    "fetch-pick-and-place": COUNTS[:-1],  # an environment takes tens of megabytes
    "halfcheetah-medium": COUNTS,
}
TURNS, TURN_SECONDS = 5, 0.5  # the two take turns, so that a noisy machine disturbs both alike
TALL = 300  # pixels of the picture


def stepping(
    tasks: Mapping[str, Sequence[int]] = TASKS, *, turns: int = TURNS, seconds: float = TURN_SECONDS
) -> Generator[str, None, dict[str, Any]]:
    """Measure each task at each number of environments, yielding a line for each; the numbers in the end."""
    rows = []
    for name, counts in tasks.items():
        for count in counts:
            rows.append(_row(name, count, _rates(name, count, turns, seconds)))
            yield f"{name}, {count} environments: {rows[-1]}"
    return {"rows": rows, "cores": cores(), "turns": turns, "turn_seconds": seconds, "device": "cpu"}


def _rates(name: str, count: int, turns: int, seconds: float) -> dict[str, list[float]]:
    """Environment steps per second of each turn, in one process and on all cores."""
    task, rng = find_task(name), np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (16, count, len(task.spec.action_names)))
    found: dict[str, list[float]] = {"serial": [], "spread": []}
    with Simulators(task, count, processes=1) as serial, Simulators(task, count, processes=cores()) as spread:
        for turn in range(1 + turns):  # the first is not counted
            for kind, simulators in (("serial", serial), ("spread", spread)):
                simulators.reset(range(count))
                rate = _rate(simulators, actions, seconds)
                found[kind] += [rate] * (turn > 0)
    return found


def _rate(simulators: Simulators, actions: np.ndarray, seconds: float) -> float:
    """Environment steps per second under actions (n, B, A) in a circle; what has ended does not count."""
    done, ended, began, step = 0, np.zeros(actions.shape[1], dtype=bool), time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds and not ended.all():
        done += int((~ended).sum())
        ended = simulators.step(actions[step % len(actions)])[2]
        step += 1
    return done / spent


def _row(name: str, count: int, rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    serial, spread = (statistics.median(rates[kind]) for kind in ("serial", "spread"))
    faster = statistics.median(b / a for a, b in zip(rates["serial"], rates["spread"], strict=True))
    return {
        "task": name,
        "environments": count,
        "serial_steps_per_second": round(serial),
        "spread_steps_per_second": round(spread),
        "times_faster": round(faster, 3),
        "efficiency": round(faster / min(cores(), count), 3),
    }


def stepping_rows(report: dict[str, Any]) -> list[list[str]]:
    """Table (header first): each task and number of environments."""
    header = ["task", "environments", "steps / s, one process", f"on {report['cores']} cores", "times", "of linear"]
    return [
        header,
        *(
            [
                row["task"],
                str(row["environments"]),
                f"{row['serial_steps_per_second']:,}",
                f"{row['spread_steps_per_second']:,}",
                f"{row['times_faster']:.2f}",
                f"{row['efficiency']:.0%}",
            ]
            for row in report["rows"]
        ),
    ]


def save_stepping(report: dict[str, Any], folder: Path) -> Path:
    """Write stepping.png into a folder."""
    path = folder / "stepping.png"
    save_picture(stepping_figure(report), path)
    return path


def stepping_figure(report: dict[str, Any]) -> Figure:
    """A panel for each task: steps per second against environments."""
    names = list(dict.fromkeys(row["task"] for row in report["rows"]))
    figure = new_figure(WIDTH, TALL, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    for i, name in enumerate(names):
        rows = [row for row in report["rows"] if row["task"] == name]
        axes, counts = figure.add_subplot(1, len(names), i + 1), [row["environments"] for row in rows]
        one = [row["serial_steps_per_second"] for row in rows]
        all_cores = [row["spread_steps_per_second"] for row in rows]
        linear = [rate * min(report["cores"], count) for rate, count in zip(one, counts, strict=True)]
        axes.plot(counts, linear, color=GREY, linestyle=(0, (4, 2)), linewidth=1.2, label="linear in cores")
        axes.plot(counts, all_cores, "o-", color=START, markersize=4.5, linewidth=1.2, label="all cores")
        axes.plot(counts, one, "o-", color=VIA, markersize=4.5, linewidth=1.2, label="one process")
        dress(axes, counts)
        axes.set_yscale("linear")
        axes.set_ylim(0, 1.1 * max(*linear, *all_cores))
        axes.legend(loc="lower right", **WORDS)
        axes.set_title(name, fontsize=9, color=INK, loc="left")
        axes.set_xlabel("environments", fontsize=8.5, color=INK)
        if i == 0:
            axes.set_ylabel("steps per second", fontsize=8.5, color=INK)
    return figure
