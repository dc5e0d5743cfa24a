"""What a training run reports while it goes."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator

from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.training import Update

from .tasks import Task

LOG_EVERY = 50  # updates
PICTURES = 8  # of sampled plans, over a whole run


class Logger:
    """TensorBoard through accelerate: numbers every `LOG_EVERY` updates, and a picture of plans now and then."""

    def __init__(
        self, accelerator: Accelerator, planner: TrajectoryPlanner, task: Task, batch: int, *, part: str
    ) -> None:
        self.accelerator, self.planner, self.task, self.part = accelerator, planner, task, part
        self.batch = batch * accelerator.num_processes
        self.seconds, self.step, self.pictures = 0.0, 0, 0

    def log(self, update: Update) -> None:
        if update.step % LOG_EVERY and update.fraction < 1:
            return
        spent, done = update.seconds - self.seconds, update.step - self.step
        self.seconds, self.step = update.seconds, update.step
        values = {k: float(v) for k, v in update.info.items()} | {
            "learning_rate": update.learning_rate,
            "samples_per_second": self.batch * done / max(spent, 1e-9),
        }
        self.accelerator.log({f"{self.part}/{k}": v for k, v in values.items()}, step=update.step)
        if (
            self.part == "denoiser"
            and self.accelerator.is_main_process
            and update.fraction * PICTURES >= self.pictures + 1
        ):
            self.pictures = int(update.fraction * PICTURES)
            self._picture(update.step)

    def _picture(self, step: int) -> None:
        from .render import plan_picture
        from .simulators import Simulators

        if not self.task.spec.position:
            return
        with Simulators(self.task, 1) as simulators:
            observations, goals = simulators.reset([0])
        if not goals.size:
            return
        plan = self.planner.plan(self.planner.problem(observations[0].tolist(), goals[0].tolist()))
        picture = plan_picture(
            self.task,
            plan,
            start=observations[0][self.task.spec.position_indices],
            goal=goals[0],
            title=f"update {step}",
        )
        tracker = self.accelerator.get_tracker("tensorboard", unwrap=True)
        tracker.add_image("plans", np.asarray(picture), step, dataformats="HWC")
