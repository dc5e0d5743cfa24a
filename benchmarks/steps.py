"""How many denoising steps a maze's planner needs: score and success at few steps, with each sampler.

Shape letters: N episodes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from diffplan.envs.runs import load_planner
from diffplan.planner.schedulers import Sampler

from .distilled import beside, evaluated, find_teacher
from .evaluate import Evaluation

TASKS = ("maze2d-umaze", "maze2d-large")
SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpm++")
STEPS, WARM_STEPS = (1, 2, 4, 8, 16), (1, 2)  # of plans; of replans that begin from the plan before
SLOW = {"candidates": 16, "steps": 8, "warm_steps": 4}  # what others are compared with, on the same episodes

Numbers = dict[str, Any]


def few_steps(run: str | None, episodes: int, seed: int) -> Generator[str, None, Numbers]:
    """Measure each sampler at each number of steps with one candidate, yielding a line for each row.

    Args:
        run: whose planner; None takes the newest trained run of two mazes, or what ships.
        episodes: of each row.
        seed: of the episodes.
    """
    report: Numbers = {"seed": seed, "episodes": episodes, "rows": []}
    for name in TASKS if run is None else (run,):
        planner, task = load_planner(find_teacher(name).folder)
        ways: list[Numbers] = [{"sampler": s, "steps": n, "candidates": 1} for s in SAMPLERS for n in STEPS]
        ways += [{"sampler": "ddim", "steps": 8, "warm_steps": n, "candidates": 1} for n in WARM_STEPS]
        slow: Evaluation | None = None
        for options in ({"sampler": "ddim", **SLOW}, *ways):
            done = evaluated(planner, task, episodes, seed, options)
            slow = slow or done
            row = {"task": task.name, **beside(done, slow, task, planner, options)}
            report["rows"].append(row)
            yield f"{task.name}, {_words(row)}: {row['score_strict']} ± {row['score_strict_ci95']}"
    return report | {"device": str(planner.device)}


def _words(row: Numbers) -> str:
    sampling = row["sampling"]
    warm = min(sampling["warm_steps"], sampling["steps"])
    steps = f"{sampling['steps']} steps" + (f" ({warm} in replans)" if warm < sampling["steps"] else "")
    return f"{sampling['sampler']}, {steps}, candidates: {sampling['candidates']}"


def steps_rows(report: Numbers) -> list[list[str]]:
    """Table, header first."""
    header = ["task", "sampler, steps, candidates", "strict score", "below the first row", "success", "one plan"]
    rows = []
    for row in report["rows"]:
        below = row["below_teacher"]
        rows.append(
            [
                row["task"],
                _words(row),
                f"{row['score_strict']:.1f} ± {row['score_strict_ci95']:.1f}",
                f"{below['mean']:.1f} ± {below['ci95']:.1f}",
                f"{row['success_rate']:.0%}",
                f"{row['plan_ms_median']:.1f} ms",
            ]
        )
    return [header, *rows]
