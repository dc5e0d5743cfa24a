"""diffplan rollout"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .screen import CONTROLLERS


def rollout(
    run: Annotated[
        str | None,
        typer.Argument(help="Run folder, or a task (its newest run); the newest, or else the one that ships."),
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="X,Y in metres, or cell:ROW,COL; the task's own if left out.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="X,Y or cell:ROW,COL; the task's own if left out.")] = None,
    or_goal: Annotated[
        list[str] | None, typer.Option(help="Another goal that would do: whichever is reached sooner; repeats.")
    ] = None,
    via: Annotated[
        list[str] | None, typer.Option(help="Pass through this point on the way; repeats, in order.")
    ] = None,
    no_goal: Annotated[
        bool, typer.Option("--no-goal", help="Do not tell the planner the goal: guides alone lead, such as return@3.")
    ] = False,
    avoid: Annotated[
        list[str] | None,
        typer.Option(
            help="X,Y,R or X,Y,WIDTH,HEIGHT (in space X,Y,Z,R or X,Y,Z,WIDTH,HEIGHT,DEPTH): keep out of it; repeats."
        ),
    ] = None,
    guide: Annotated[list[str] | None, typer.Option(help="A guide SPEC; repeats; see: diffplan guides")] = None,
    guidance: Annotated[
        str | None, typer.Option(help="How guides act: both, gradient, candidates or particles.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Draw the episode without guides beside.")] = False,
    legs: Annotated[
        int | None, typer.Option(min=1, max=16, help="Legs a plan may be made of, for goals beyond the data's reach.")
    ] = None,
    replan_every: Annotated[int | None, typer.Option(min=1, max=10**6, help="Environment steps between plans.")] = None,
    controller: Annotated[str, typer.Option(help=CONTROLLERS)] = "auto",
    candidates: Annotated[int | None, typer.Option(min=1, max=1024, help="Plans to sample and choose from.")] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(help="Where to write: .gif, .mp4 or .json, of an arm .png too; repeats; rollout.gif if left out."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Another task of the same data, such as multi2d-umaze.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of start, goal and noise.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Execute plans in MuJoCo with replanning, and draw what happened."""
    from dataclasses import replace

    from diffplan.envs.backend import use_backend
    from diffplan.envs.video import check_output

    files = list(output or [Path("rollout.gif")])
    for file in files:
        check_output(file, allowed=(".gif", ".mp4", ".png", ".json"))
    backend = use_backend() if any(f.suffix != ".json" for f in files) else None
    from diffplan.envs.rollouts import Ride, check_drawn, describe, execute, has_pictures, save, save_expectations
    from diffplan.envs.runs import load_planner

    from .screen import progress

    planner, chosen = load_planner(run, device=device, task=task)
    for file in files:
        check_drawn(chosen, file)
    ride = Ride.parse(
        chosen,
        planner,
        goal=goal,
        or_goal=or_goal or [],
        via=via or [],
        start=start,
        avoid=avoid or [],
        guides=guide or [],
        pin_goal=not no_goal,
        seed=seed,
        replan_every=replan_every,
        controller=controller,
        pictures=backend is not None and not compare and has_pictures(chosen),
    )
    if compare and ride.guide is None:
        raise ValueError("--compare draws an episode with guides beside one without: give --guide or --avoid")
    rides = [ride, replace(ride, guide=None)] if compare else [ride]
    results = []
    with progress(f"rolling out {chosen.name}", quiet=quiet) as bar:
        for number, one in enumerate(rides):
            for done in execute(planner, one, candidates=candidates, guidance=guidance, legs=legs):
                if isinstance(done, float):
                    bar((number + done) / len(rides))
                else:
                    results.append(done)
    if backend is None and any(f.suffix != ".json" for f in files):
        print("no offscreen rendering here (neither EGL nor OSMesa works): drawing the top view alone")
    for one, result in zip(rides, results, strict=True):
        print(("unguided: " if one is not ride else "") + describe(one, result))
    for file in files:
        save(ride, results[0], file, unguided=results[1] if compare else None)
        print(f"wrote {file}")
        if expectations := save_expectations(planner, ride, results[0], file):
            print(f"wrote {expectations}")
