"""diffplan tasks"""

from __future__ import annotations

MOST_NAMES = 4  # of observations, in the table


def tasks() -> None:
    """What can be planned: task, environment, sizes, dataset present or not."""
    from diffplan.envs.datasets import PATIENCE_MINUTES, dataset_of, is_local
    from diffplan.envs.tasks import all_tasks

    from .screen import table

    rows = []
    for name, task in sorted(all_tasks().items()):
        spec = task.spec
        quick = task.collect_minutes <= PATIENCE_MINUTES
        missing = "collected on first use" if quick else f"diffplan data collect {name}"
        missing = "on the Minari hub" if task.hub_only else missing
        data = dataset_of(task)
        present = "here" if is_local(data) else missing
        columns = ", ".join(spec.observation_names[:MOST_NAMES]) + ", ..." * (len(spec.observation_names) > MOST_NAMES)
        rows.append(
            [
                name,
                f"{len(spec.observation_names)} ({columns})",
                str(len(spec.action_names)),
                f"{task.horizon} x {spec.stride}",
                str(task.episode_steps),
                f"{task.minutes:g}",
                f"{data} ({present})",
            ]
        )
    table("Tasks", ["task", "observations", "actions", "tokens x stride", "episode steps", "minutes", "dataset"], rows)
