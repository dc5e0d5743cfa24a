"""diffplan tasks"""

from __future__ import annotations


def tasks() -> None:
    """What can be planned: task, environment, sizes, dataset present or not."""
    from diffplan.envs.datasets import is_local
    from diffplan.envs.tasks import all_tasks

    from .screen import table

    rows = []
    for name, task in sorted(all_tasks().items()):
        spec = task.spec
        present = "here" if is_local(task.dataset) else "collected on first use"
        rows.append(
            [
                name,
                f"{len(spec.observation_names)} ({', '.join(spec.observation_names)})",
                str(len(spec.action_names)),
                f"{task.horizon} x {spec.stride}",
                str(task.episode_steps),
                f"{task.minutes:g}",
                f"{task.dataset} ({present})",
            ]
        )
    table("Tasks", ["task", "observations", "actions", "tokens x stride", "episode steps", "minutes", "dataset"], rows)
