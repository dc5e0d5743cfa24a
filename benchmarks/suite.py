"""Named benchmarks: each writes its numbers as JSON and as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffplan.envs.distilling import find_teacher
from diffplan.envs.ogbench_scene import need_ogbench
from diffplan.envs.presets import Preset, find_preset
from diffplan.envs.records import write_json
from diffplan.envs.runs import RUNS, SHIPPED, exact_command, find_run, load_planner, pick_device, read_record, versions
from diffplan.envs.tasks import ArmTask, MazeTask, OgbenchTask, RobotTask, Task, all_tasks, find_task
from diffplan.envs.tasks.ogbench import ROLLOUTS, TASKS
from diffplan.envs.training import train_run
from diffplan.planner.training import TrainConfig

from .arm_wishes import measure, wishes_rows
from .arms import INVERSE, JOINT, arm_rows, compare_arms
from .control import control_frequency, first_steps
from .dials import cost_of_guidance, monotone, samplers, ways
from .distilled import compare_distilled, distilled_rows
from .growth import growth
from .growth_report import growth_rows, save_growth
from .guiding import composition
from .learned import returns_alone, roundabout, stitching
from .locomotion import compare
from .maze_plots import save_plots
from .maze_report import tables
from .mazes import MazeBenchmark
from .ogbench import method_rows
from .ogbench_compare import compare_ogbench
from .report import guides_table, learned_table, markdown
from .robot_report import control_rows, locomotion_rows
from .scenarios import make_scenarios
from .speed import speed, speed_rows
from .stepping import save_stepping, stepping, stepping_rows
from .steps import few_steps, steps_rows
from .trained import training_record
from .training_speed import training_rows, training_speed

SEED = 1  # of the episodes: settings were chosen on those of seed 0

SUITE = {
    "maze": "all mazes: the presets beside random, waypoint controller, time-optimal bound and Diffuser's own recipe",
    "guides": "what guides get on paper and executed, with each sampler, the ways to use them, and what they cost",
    "weights": "each guide's own quantity against its weight",
    "returns": "maze2d-umaze with no goal given, led by the learned return alone",
    "roundabout": "steps to the goal after training on data half of whose routes are detours (maze2d-umaze-roundabout)",
    "stitching": "goals farther than any episode of the data goes (multi2d-umaze-stitch)",
    "arms": "wishes that the arm was never trained for: obstacles, an order, a choice, a region; and a lost block",
    "speed": "how fast plans are made, one after another and by the thousand, beside Diffuser's own recipe",
    "training": "how fast the training loop is beside a plain PyTorch loop over Diffuser's own U-Net",
    "steps": "score and success at 1 to 16 denoising steps, with DDIM and DPM++",
    "distill": "planners of one step beside the ones they were distilled from; RUN-distilled, or distilled now",
    "control": "control frequency of a robot's planner beside Diffuser's own recipe, which is trained into RUN-paper",
    "growth": "how cost grows with the horizon, candidates, environments and data; slopes, memory and a picture",
    "stepping": "steps of MuJoCo's environments a second, in one process and on all cores",
}

SUITE |= {
    name: "train the planner, then measure it beside its data, that data's clone, and itself without a guide"
    for name, task in all_tasks().items()
    if isinstance(task, RobotTask)
}

SUITE |= {
    name: "train planners of states and actions, and of states alone, then measure them beside expert, clone and chance"
    for name, task in all_tasks().items()
    if isinstance(task, ArmTask)
}

SUITE |= {
    name: "train the planner, then measure it by OGBench's protocol beside its data's clone, chance and published rows"
    for name, task in all_tasks().items()
    if isinstance(task, OgbenchTask)
}

TIMED = ("speed", "training")  # whose numbers are of a machine: those of a GPU stand beside a CPU's

WISHING = "fetch-pick-and-place"  # the one that ships, or the newest run of its task
CONTROL_TASK = "halfcheetah-medium"
FIRST_EPISODES, FIRST_STEPS = 4, 200  # in which the paper's recipe is compared; it takes seconds for every step

LEARNED: dict[str, tuple[str, Callable[[str | None, int, int], Any]]] = {
    "returns": ("maze2d-umaze", returns_alone),
    "roundabout": ("maze2d-umaze-roundabout", roundabout),
    "stitching": ("multi2d-umaze-stitch", stitching),
}

GUIDED_CANDIDATES = 32


def run_benchmark(
    name: str, *, output: Path, run: str | None = None, episodes: int | None = None, quick: bool = False
) -> Iterator[str]:
    """Run one benchmark, yielding lines to show.

    Args:
        name: of `SUITE`.
        output: folder of NAME.json and NAME.md.
        run: a run to measure instead of training one.
        episodes: per row; None for the benchmark's own number: mostly 100, for OGBench's tasks the protocol's 250.
        quick: less of everything; only "maze" knows it.

    Raises:
        ValueError: an unknown name, or a folder that is not there.
    """
    if name not in SUITE:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(SUITE)}")
    if not output.is_dir():
        raise ValueError(f"folder {str(output)!r} does not exist; make it, or name another with --output")
    if name == "maze":
        if run is not None:
            raise ValueError("benchmark 'maze' trains its own runs, in runs/bench-maze; leave --run out")
        yield from _mazes(output, quick, episodes)
        return
    if quick:
        raise ValueError(f"benchmark {name!r} has no quick setting; only maze has")
    episodes, about = _usual_episodes(name) if episodes is None else episodes, SUITE[name]
    if name in ("guides", "weights"):
        report = yield from _guides(run, episodes, weights=name == "weights")
        header, *rows = guides_table(report, "weights" if name == "weights" else "composition")
    elif name == "arms":
        report = yield from measure(run or WISHING, episodes, seed=SEED)
        header, *rows = wishes_rows(report)
    elif name == "speed":
        report = yield from _speed(run)
        header, *rows = speed_rows(report)
    elif name == "training":
        report = yield from training_speed(pick_device("auto"))
        header, *rows = training_rows(report)
    elif name == "steps":
        report = yield from few_steps(run, episodes, SEED)
        header, *rows = steps_rows(report)
    elif name == "distill":
        report = yield from compare_distilled(run, episodes, SEED)
        header, *rows = distilled_rows(report)
    elif name == "growth":
        report = yield from growth()
        header, *rows = growth_rows(report)
        yield f"drawn in {save_growth(report, output)}"
    elif name == "stepping":
        report = yield from stepping()
        header, *rows = stepping_rows(report)
        yield f"drawn in {save_stepping(report, output)}"
    elif name == "control":
        report = yield from _control(run)
        header, *rows = control_rows(report)
    elif isinstance(all_tasks().get(name), OgbenchTask):
        report = yield from _ogbench(name, run, episodes)
        header, *rows = method_rows(report)
    elif isinstance(all_tasks().get(name), ArmTask):
        report = yield from _arm(name, run, episodes)
        header, *rows = arm_rows(report)
    elif isinstance(all_tasks().get(name), RobotTask):
        report = yield from _robot(name, run, episodes)
        header, *rows = locomotion_rows(report)
    else:
        report = yield from _learned(name, run, episodes)
        header, *rows = learned_table(report)
    name = f"{name}-cuda" if name in TIMED and report["device"] != "cpu" else name
    write_json(output / f"{name}.json", report | {"versions": versions(), "command": exact_command()})
    (output / f"{name}.md").write_text(f"# {name}\n\n{about}\n\n" + markdown(header, rows))
    yield markdown(header, rows)
    yield f"wrote {output / f'{name}.json'}"


def _usual_episodes(name: str) -> int:
    return TASKS * ROLLOUTS if isinstance(all_tasks().get(name), OgbenchTask) else 100


def _speed(run: str | None) -> Generator[str, None, dict[str, Any]]:
    """Of what ships and its student, or of a run and its own."""
    folder = find_run(run or SHIPPED)
    planner, _ = load_planner(folder)
    student = find_teacher(folder).student_folder
    known = (student / "planner" / "model_index.json").is_file()
    return (yield from speed(planner, load_planner(student)[0] if known else None))


def _mazes(output: Path, quick: bool, episodes: int | None) -> Iterator[str]:
    bench = MazeBenchmark.standard(quick=quick, episodes=episodes)
    name = "maze-quick" if quick else "maze"
    report = yield from bench.run()
    report |= {"versions": versions(), "command": exact_command()}
    write_json(output / f"{name}.json", report)
    made = {title: markdown(table[0], table[1:]) for title, table in tables(report).items()}
    (output / f"{name}.md").write_text("".join(f"## {title}\n\n{text}\n" for title, text in made.items()))
    yield made["main"]
    pictures = save_plots(report, output) if not quick else []
    yield f"wrote {', '.join(str(p) for p in [output / f'{name}.json', *pictures])}"


def _guides(run: str | None, pairs: int, *, weights: bool) -> Generator[str, None, dict[str, Any]]:
    planner, task = load_planner(run, task="multi2d-umaze")
    assert isinstance(task, MazeTask)
    scenes = make_scenarios(task, pairs, seed=SEED)
    report: dict[str, Any] = {"task": task.name, "pairs": pairs, "seed": SEED, "device": str(planner.device)}
    if weights:
        report["weights"] = yield from monotone(planner, task, scenes)
        return report
    report["composition"] = yield from composition(planner, task, scenes, candidates=GUIDED_CANDIDATES)
    report["samplers"] = yield from samplers(planner, task, scenes)
    report["ways"] = yield from ways(planner, task, scenes[:50])
    report["speed"] = cost_of_guidance(planner, task)
    yield f"{report['speed']}"
    return report


def _robot(name: str, run: str | None, episodes: int) -> Generator[str, None, dict[str, Any]]:
    folder = yield from _trained(find_task(name), run, "default")
    report = yield from compare(str(folder), read_record(folder)["dataset"], episodes, SEED)
    return report | {"training": training_record(folder), "calibration": _calibration(folder)}


def _ogbench(name: str, run: str | None, episodes: int) -> Generator[str, None, dict[str, Any]]:
    need_ogbench(name)  # before anything is trained
    folder = yield from _trained(find_task(name), run, "default")
    report = yield from compare_ogbench(str(folder), read_record(folder)["dataset"], episodes, SEED)
    return report | {"training": training_record(folder)}


def _arm(name: str, run: str | None, episodes: int) -> Generator[str, None, dict[str, Any]]:
    """The run (or one trained now) and beside it RUN-inverse, which plans states alone."""
    task = find_task(name)
    joint = yield from _trained(task, run, "default")
    alone = joint.with_name(f"{joint.name}-inverse")
    if not (alone / "run.json").is_file():
        yield from _trained(task, None, "default", alone, actions="inverse")
    folders = {JOINT: joint, INVERSE: alone}
    report = yield from compare_arms({method: str(folder) for method, folder in folders.items()}, episodes, SEED)
    return report | {"training": {method: training_record(folder) for method, folder in folders.items()}}


def _control(run: str | None) -> Generator[str, None, dict[str, Any]]:
    task = find_task(CONTROL_TASK)
    folder = yield from _trained(task, run, "default")
    rival = folder.with_name(f"{folder.name}-paper")
    if not (rival / "run.json").is_file():
        yield from _trained(task, None, "paper", rival)
    runs = {"diffplan": str(folder), "paper": str(rival)}
    *lines, first = first_steps(runs, seed=SEED, episodes=FIRST_EPISODES, steps=FIRST_STEPS)
    yield from map(str, lines)
    *lines, speed = control_frequency(runs, seed=SEED)
    yield from map(str, lines)
    assert isinstance(speed, dict)
    training = {name: training_record(Path(folder)) for name, folder in runs.items()}
    return {"task": task.name, "seed": SEED, "first_steps": first, **speed, "training": training}


def _trained(
    task: Task, run: str | None, preset: str, folder: Path | None = None, **changes: Any
) -> Generator[str, None, Path]:
    """The folder of the run that was given, which must be of the task's data, or of one trained now."""
    if run is not None:
        load_planner(run, task=task.name)
        inner = find_run(run)
        return inner.parent if inner.name == "planner" else inner
    settings = replace(find_preset(preset, task), **changes)
    into = folder or RUNS / f"bench-{task.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    minutes = settings.fit(task).minutes
    yield f"training {task.name}, preset {preset}, for {minutes:g} minutes into {into}"
    yield from _train(task, into, TrainConfig(**task.training | settings.training, minutes=minutes), preset=settings)
    return into


def _calibration(folder: Path) -> dict[str, Any] | None:
    path = folder / "returns_calibration.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _learned(name: str, run: str | None, episodes: int) -> Generator[str, None, dict[str, Any]]:
    folder = yield from _trained(find_task(LEARNED[name][0]), run, "default")
    rows = yield from LEARNED[name][1](str(folder), episodes, SEED)
    training = training_record(folder) if (folder / "run.json").is_file() else None
    return {"seed": SEED, "device": "cpu", "rows": rows, "calibration": _calibration(folder), "training": training}


def _train(task: Task, folder: Path, config: TrainConfig, *, preset: Preset) -> Iterator[str]:
    for stage in train_run(task, folder, config, preset=preset, command=exact_command()):
        if stage.message:
            yield stage.message
