"""diffplan distill"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distill(
    run: Annotated[
        str | None,
        typer.Argument(
            help="The teacher: a run folder, or a task (its newest trained run); the newest, or what ships."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.001, max=10**6, help="Minutes to train for, 3 unless --steps is given; the sooner of both."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=10**9, help="Updates to train for.")] = None,
    output: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME-distilled if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output (or RUN's student).")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of everything random.")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Windows per update; the teacher's own if left out.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, max=10, help="Peak learning rate; 0.0003.")] = None,
    teacher_steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Denoising steps of the teacher's plans that the student learns.")
    ] = 8,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Distill a trained planner into one that plans in one step, in a run folder of its own."""
    from diffplan.envs.distilling import distill_run, find_teacher, resume_distilling
    from diffplan.envs.runs import exact_command

    from .screen import follow

    if resume:
        folder = output or find_teacher(run).student_folder
        stages = resume_distilling(
            folder, steps=steps, minutes=minutes, device=device, checkpoint_seconds=checkpoint_seconds
        )
    else:
        teacher = find_teacher(run)
        folder = output or teacher.student_folder
        stages = distill_run(
            teacher,
            folder,
            teacher.config(steps=steps, minutes=minutes, batch_size=batch_size, learning_rate=learning_rate, seed=seed),
            teacher_steps=teacher_steps,
            device=device,
            checkpoint_seconds=checkpoint_seconds,
            command=exact_command(),
        )
    follow(stages, f"distilling into {folder}", quiet=quiet)
