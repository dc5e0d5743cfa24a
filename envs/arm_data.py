"""Data of the Fetch arm, made here: scripted experts that are disturbed, and mend what went wrong.

Shape letters: T steps of an episode, O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .experts import EXPERTS, Expert
from .parallel import cores, on_all_cores
from .quiet import quiet_imports
from .storage import episode_buffer, store_buffers, versions_of
from .tasks.task import Collecting

if TYPE_CHECKING:
    from .tasks.arms import ArmTask

NOISES = (0.0, 0.1, 0.2, 0.4)  # standard deviation added to each action; one of them for a whole episode
SLIP_CHANCE, SLIP_STEPS = 0.02, (2, 6)  # per step, that the arm does anything at all for a while
SCALES = (0.7, 1.25)  # of all moves of an episode of sliding: strikes of all strengths
DWELL = (3, 12)  # steps for which a goal is held before the next
CHUNK = 20  # episodes that a process records at a time
PROVEN = 100  # episodes that tell how good the undisturbed expert is


class ArmEpisode(NamedTuple):
    """Observations of the environment by name (T + 1, ...), actions (T, 4), rewards (T,)."""

    observations: dict[str, NDArray[np.float64]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]


def collect_arm(task: ArmTask, *, steps: int, seed: int) -> Iterator[Collecting]:
    """Record on all cores and store the dataset; the same seed makes the same data on any number of cores."""
    per_chunk = CHUNK * task.data_steps
    jobs = [(task.name, CHUNK, int(s)) for s in np.random.SeedSequence(seed).generate_state(-(-steps // per_chunk))]
    found: list[ArmEpisode] = []
    for chunk in on_all_cores(record_chunk, jobs):
        found += chunk
        done = sum(len(e.actions) for e in found)
        yield Collecting(min(done, steps), steps, f"{done:,} steps on {cores()} cores")
    shares = np.array_split(np.random.SeedSequence([seed, 1]).generate_state(PROVEN), min(PROVEN, 2 * cores()))
    proof = list(on_all_cores(prove, [(task.name, [int(s) for s in share]) for share in shares]))
    store(task, found, provenance(task, seed, float(np.mean(np.concatenate(proof)))))


def record_chunk(job: tuple[str, int, int]) -> list[ArmEpisode]:
    """So many episodes of a task, with a seed: the work of one process."""
    name, count, seed = job
    task, rng = _arm(name), np.random.default_rng(seed)
    env = task.environment()
    try:
        return [record_episode(task, env, rng) for _ in range(count)]
    finally:
        env.close()


def prove(job: tuple[str, Sequence[int]]) -> list[bool]:
    """Whether the undisturbed expert holds the goal at the end of an evaluation episode, for each seed."""
    name, seeds = job
    task = _arm(name)
    expert = EXPERTS[task.skill]
    env = task.environment()
    won = []
    for seed in seeds:
        seen, goal = task.reset(env, np.random.default_rng(seed))
        for _ in range(task.episode_steps):
            seen = task.flatten(env.step(expert(seen, goal))[0])
        won.append(bool(task.reached(seen, goal)))
    env.close()
    return won


def _arm(name: str) -> ArmTask:
    from .tasks import find_task
    from .tasks.arms import ArmTask

    task = find_task(name)
    assert isinstance(task, ArmTask)
    return task


def record_episode(task: ArmTask, env: Any, rng: np.random.Generator) -> ArmEpisode:
    """One episode: a goal is held for a while, then there is another; the arm slips now and then and goes on.

    It ends early where the object falls off the table.
    """
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    seen, actions, rewards = [observation], [], []
    hand = Disturbed(EXPERTS[task.skill], rng, scaled=task.skill == "slide")
    goals, dwell, held = 1, int(rng.integers(*DWELL)), 0
    for _ in range(task.data_steps):
        action = hand.act(task.flatten(observation), observation["desired_goal"])
        observation, reward, *_ = env.step(action)
        held += bool(task.reached(task.flatten(observation), observation["desired_goal"]))
        actions.append(action)
        rewards.append(reward + 1.0)
        if held > dwell and goals < task.goals_per_episode:
            env.goal, held, goals = env._sample_goal(), 0, goals + 1
            observation = env._get_obs()
        seen.append(observation)
        if task.lost(task.flatten(observation)):
            break
    known = {name: np.array([o[name] for o in seen]) for name in seen[0]}
    return ArmEpisode(known, np.array(actions, np.float32), np.array(rewards))


class Disturbed:
    """An expert whose actions are noisy, and who loses control for some steps now and then."""

    def __init__(self, expert: Expert, rng: np.random.Generator, *, scaled: bool = False) -> None:
        self.expert, self.rng, self.slipping = expert, rng, 0
        self.noise = float(rng.choice(NOISES))
        self.scale = float(rng.uniform(*SCALES)) if scaled else 1.0
        self.slip = np.zeros(4)

    def act(self, observation: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """(4,)."""
        if self.slipping == 0 and self.rng.random() < SLIP_CHANCE:
            self.slipping, self.slip = int(self.rng.integers(*SLIP_STEPS)), self.rng.uniform(-1, 1, 4)
        noise = self.rng.normal(0, self.noise, 4) if self.noise else 0.0
        if self.slipping:
            self.slipping -= 1
            return np.clip(self.slip + noise, -1, 1)
        return np.clip(self.scale * self.expert(observation, goal) + noise, -1, 1)


def store(task: ArmTask, found: Sequence[ArmEpisode], made: dict[str, Any]) -> None:
    """Write episodes as a Minari dataset with its provenance in the metadata."""
    with quiet_imports():
        import gymnasium
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
        env = gymnasium.make(str(task.make))
    store_buffers(
        task.dataset,
        [
            episode_buffer(index, one.observations, one.actions, one.rewards, terminated=False)
            for index, one in enumerate(found)
        ],
        env,
        made,
        algorithm="scripted expert",
        description=f"{task.make}: a scripted expert with noise and slips.",
        requirements=["gymnasium-robotics>=1.4,<1.5", "mujoco>=3.3,<3.11"],
    )


def provenance(task: ArmTask, seed: int, success: float) -> dict[str, Any]:
    """How the data was made, and how good the expert is when nothing disturbs it."""
    return {
        "environment": task.make,
        "expert": {
            "skill": task.skill,
            "success": round(success, 4),
            "success_is_over_episodes": PROVEN,
            "action_noise_std": list(NOISES),
            "slip_chance_per_step": SLIP_CHANCE,
            "slip_steps": list(SLIP_STEPS),
            **({"move_scale": list(SCALES)} if task.skill == "slide" else {}),
        },
        "seed": seed,
        "versions": versions_of("mujoco", "gymnasium", "gymnasium-robotics", "minari", "numpy"),
    }
