"""D4RL's kinds of robot data, made here: what behaviour policies do, and what they tried while they learned.

Shape letters: B environments, T steps, O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import cache_file
from .behaviour import RECENT, Algorithm, Learner, Policy, Recipe
from .quiet import quiet_imports
from .storage import episode_buffer, store_buffers, versions_of
from .tasks.task import Collecting
from .trajectories import Trajectory, diary

if TYPE_CHECKING:
    from .tasks.robots import RobotTask

RECORDED_TOGETHER = 16  # environments, one batch for the policy
MOST_TRAINING = 1_000_000  # steps


def behaviour_folder() -> Path:
    """Where behaviour policies are kept, so that one training serves all kinds of data of a robot."""
    return cache_file().parent / "behaviour"


def collect_robot(task: RobotTask, *, steps: int, seed: int, algorithm: Algorithm = "sac") -> Iterator[Collecting]:
    """Train the policies that a task's data needs, record them, and store the dataset.

    Args:
        task: whose data.
        steps: to record (of a replay, all that was tried is kept). Where they are fewer than the task's own number, a
            policy is trained for as many at most, whatever it earns by then; otherwise for a million at most.
        seed: of everything random.
        algorithm: of the behaviour policy.
    """
    recipe = Recipe(str(task.make), dict(task.levels), algorithm, seed)
    learner = Learner(recipe, behaviour_folder() / f"{task.robot}-{algorithm}-{seed}")
    wanted: tuple[str, ...] = ("medium", "expert") if task.quality == "medium-expert" else ("medium",)
    for level in wanted:
        yield from _train(learner, level, MOST_TRAINING if steps >= task.collect_steps else steps)
    found: list[Trajectory] = []
    if task.quality == "medium-replay":
        found, wanted = learner.history[: int(learner.progress.levels["medium"]["episodes"])], ()
        if not found:
            raise ValueError(f"the policy finished no episode in {learner.progress.steps:,} steps; give more --steps")
    for number, level in enumerate(wanted):
        share = steps // len(wanted)
        for one in record_policy(recipe.environment, learner.policy(level), steps=share, seed=seed + 1 + number):
            found.append(one)
            done = sum(len(t.actions) for t in found)
            yield Collecting(min(done, steps), steps, f"recording the {level} policy")
    store(task, found, provenance(task, learner, wanted or ("medium",), found))


def _train(learner: Learner, level: str, most: int) -> Iterator[Collecting]:
    goal = learner.recipe.levels[level]
    for now in learner.reach(level, most_steps=most):
        words = f"training the {level} policy: return {now.recent:.0f} of {goal:.0f} after {now.steps:,} steps"
        earned = now.recent / goal if np.isfinite(now.recent) else 0.0
        yield Collecting(round(1000 * min(1.0, max(now.steps / most, earned))), 1000, words)


def record_policy(environment: str, policy: Policy, *, steps: int, seed: int) -> Iterator[Trajectory]:
    """Episodes of a stochastic policy, until `steps` actions were taken; what was begun is finished.

    Dropping unfinished episodes would favour short ones.
    """
    import gymnasium

    rng = np.random.default_rng(seed)
    finished: list[Trajectory] = []
    with quiet_imports():
        envs = [diary()(gymnasium.make(environment), finished) for _ in range(RECORDED_TOGETHER)]
    running = {env: _begin(env, rng) for env in envs}
    taken = 0
    while running:
        actions = policy(np.array(list(running.values())), rng)
        for env, action in zip(list(running), actions, strict=True):
            running[env], _, terminated, truncated, _ = env.step(action)
            taken += 1
            if terminated or truncated:
                yield finished.pop()
                if taken >= steps:
                    del running[env]
                else:
                    running[env] = _begin(env, rng)
    for env in envs:
        env.close()


def _begin(env: Any, rng: np.random.Generator) -> Any:
    """The first observation (O,) of an episode of its own."""
    return env.reset(seed=int(rng.integers(2**31)))[0]


def store(task: RobotTask, found: Sequence[Trajectory], made: dict[str, Any]) -> None:
    """Write episodes as a Minari dataset with its provenance in the metadata."""
    with quiet_imports():
        import gymnasium

        env = gymnasium.make(str(task.make))
    store_buffers(
        task.dataset,
        [
            episode_buffer(index, one.observations, one.actions, one.rewards, terminated=one.terminated)
            for index, one in enumerate(found)
        ],
        env,
        made,
        algorithm=str(made["policy"]["algorithm"]).upper(),
        description=f"{task.make}, {task.quality}: {made['recorded']['return_mean']:.0f} mean return.",
        requirements=["gymnasium>=1.1", "mujoco>=3.3,<3.11"],
    )


def provenance(
    task: RobotTask, learner: Learner, levels: Sequence[str], found: Sequence[Trajectory]
) -> dict[str, object]:
    """How robot data was made: the policy, what it was to earn and what it earned, and the versions."""
    returns = np.array([t.total for t in found])
    recipe, reached = learner.recipe, learner.progress.levels
    return {
        "environment": recipe.environment,
        "quality": task.quality,
        "policy": {
            "algorithm": recipe.algorithm,
            "settings": learner.settings,
            "seed": recipe.seed,
            "wanted_return": {level: recipe.levels[level] for level in levels},
            "reached": {level: reached[level] for level in levels},
            "return_is_the_mean_of_the_last_training_episodes": RECENT,
        },
        "recorded": {
            "episodes": len(found),
            "steps": int(sum(len(t.actions) for t in found)),
            "return_mean": round(float(returns.mean()), 2),
            "return_std": round(float(returns.std()), 2),
            "return_max": round(float(returns.max()), 2),
            "failed": round(float(np.mean([t.terminated for t in found])), 4),
        },
        "versions": versions_of("stable-baselines3", "torch", "mujoco", "gymnasium"),
    }
