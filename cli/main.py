"""The `diffplan` program."""

from __future__ import annotations

import typer

from . import bench, data, distill, doctor, evaluate, guides, plan, render, rollout, tasks, train
from .screen import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Plan trajectories by denoising them. --debug after any command shows full error traces.",
)
app.command("tasks")(tasks.tasks)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("plan")(plan.plan)
app.command("rollout")(rollout.rollout)
app.command("evaluate")(evaluate.evaluate)
app.command("render")(render.render)
app.command("guides")(guides.guides)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)

if __name__ == "__main__":
    app(prog_name="diffplan")
