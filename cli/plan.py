"""diffplan plan"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def plan(
    run: Annotated[
        str | None,
        typer.Argument(help="Run folder, or a task (its newest run); the newest, or else the one that ships."),
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="X,Y in metres, or cell:ROW,COL; left out, the guides decide where to go.")
    ] = None,
    or_goal: Annotated[
        list[str] | None, typer.Option(help="Another goal that would do: whichever is reached sooner; repeats.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="X,Y or cell:ROW,COL; the task's own start if left out.")] = None,
    via: Annotated[
        list[str] | None, typer.Option(help="Pass through this point on the way; repeats, in order.")
    ] = None,
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
    compare: Annotated[bool, typer.Option("--compare", help="Draw the plan without guides beside.")] = False,
    legs: Annotated[
        int | None, typer.Option(min=1, max=16, help="Legs a plan may be made of, for goals beyond the data's reach.")
    ] = None,
    candidates: Annotated[int | None, typer.Option(min=1, max=1024, help="Plans to sample and choose from.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="ddim, ddpm or dpm++.")] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(help="Where to write: .png, .gif, .mp4 or .json; repeats; plan.png if left out."),
    ] = None,
    film: Annotated[
        Path | None, typer.Option(help="Also write the denoising, from noise to plan: .gif or .mp4.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Another task of the same data, such as multi2d-umaze.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of start and noise.")] = 0,
) -> None:
    """Plan to a goal, or to where guides lead, and draw it."""
    from dataclasses import replace

    from diffplan.envs.video import check_output

    files = list(output or ([] if film else [Path("plan.png")]))
    for file in files:
        check_output(file)
    if film:
        check_output(film, allowed=(".gif", ".mp4"))
    from diffplan.envs.backend import use_backend
    from diffplan.envs.requests import Request, answer, describe, draw, film_of, settle
    from diffplan.envs.runs import load_planner
    from diffplan.envs.tasks import ArmTask

    planner, chosen = load_planner(run, device=device, task=task)
    if isinstance(chosen, ArmTask):
        use_backend()  # before mujoco is imported: it reads its backend once
    request = Request.parse(
        chosen,
        planner,
        goal=goal,
        or_goal=or_goal or [],
        start=start,
        via=via or [],
        avoid=avoid or [],
        guides=guide or [],
        seed=seed,
    )
    if compare and request.guide is None:
        raise ValueError("--compare draws a plan with guides beside one without: give --guide or --avoid")
    options: dict[str, Any] = {"candidates": candidates, "steps": steps, "sampler": sampler}
    options |= {"guidance": guidance, "legs": legs}
    request = settle(planner, request, **options)
    made = answer(planner, request, **options)
    unguided = answer(planner, replace(request, guide=None), **options) if compare else None
    print(describe(request, made))
    for file in files:
        draw(request, made, file, unguided=unguided)
        print(f"wrote {file}")
    if film:
        film_of(planner, request, film, **options)
        print(f"wrote {film}")
