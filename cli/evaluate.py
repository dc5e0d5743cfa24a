"""diffplan evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .screen import CONTROLLERS


def evaluate(
    run: Annotated[
        str | None,
        typer.Argument(help="Run folder, or a task (its newest run); the newest, or else the one that ships."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, max=10_000, help="Episodes, run side by side.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of starts, goals and noise.")] = 0,
    task: Annotated[str | None, typer.Option(help="Another task of the same data, such as multi2d-umaze.")] = None,
    replan_every: Annotated[int | None, typer.Option(min=1, max=10**6, help="Environment steps between plans.")] = None,
    controller: Annotated[str, typer.Option(help=CONTROLLERS)] = "auto",
    candidates: Annotated[int | None, typer.Option(min=1, max=1024, help="Plans to sample and choose from.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps.")] = None,
    select: Annotated[
        str | None, typer.Option(help="plausible, balanced, unprompted, earliest, preferred or first.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=10.0, help="Scale of the sampling noise.")] = None,
    guide: Annotated[list[str] | None, typer.Option(help="A guide SPEC; repeats; see: diffplan guides")] = None,
    guidance: Annotated[
        str | None, typer.Option(help="How guides act: both, gradient, candidates or particles.")
    ] = None,
    no_goal: Annotated[
        bool, typer.Option("--no-goal", help="Do not tell the planner the goal: guides alone lead, such as return@3.")
    ] = False,
    legs: Annotated[
        int | None, typer.Option(min=1, max=16, help="Legs a plan may be made of, for goals beyond the data's reach.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Also write the numbers here.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Measure a planner by its task's protocol, beside its references."""
    from diffplan.benchmarks.evaluate import Evaluation, record
    from diffplan.benchmarks.evaluate import evaluate as measure
    from diffplan.benchmarks.report import header_of, table_rows
    from diffplan.envs.records import write_json
    from diffplan.envs.runs import exact_command, load_planner, versions
    from diffplan.envs.video import check_output
    from diffplan.envs.wishes import guides_for, parse_wishes

    from .screen import progress, table

    if json:
        check_output(json, allowed=(".json",))
    planner, chosen = load_planner(run, device=device, task=task)
    with progress(f"evaluating {chosen.name}", quiet=quiet) as bar:
        for done in measure(
            planner,
            chosen,
            episodes=episodes,
            seed=seed,
            replan_every=replan_every,
            controller=controller,
            guide=parse_wishes(chosen, planner, guides=guides_for(chosen, guide)),
            pin_goal=not no_goal,
            guidance=guidance,
            legs=legs,
            candidates=candidates,
            steps=steps,
            select=select,
            temperature=temperature,
        ):
            if isinstance(done, Evaluation):
                result = done
            else:
                bar(done)
    numbers = record(
        result, chosen, seed=seed, device=str(planner.device), versions=versions(), command=exact_command()
    )
    table(f"{chosen.name}, {episodes} episodes, seed {seed}", header_of(numbers), table_rows(numbers))
    for fault in result.faults:
        print(f"warning: {fault}; its episode ended there")
    print(f"one plan takes {1000 * result.plan_seconds_median:.0f} ms (median); {result.plans} plans were made")
    if json:
        write_json(json, numbers)
        print(f"wrote {json}")
