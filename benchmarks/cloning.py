"""Behaviour cloning: what plain imitation of the same data is worth.

Shape letters: B batch, S states, O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffplan.planner.episodes import Episodes

CLONE = "goal-conditioned behaviour cloning"
UPDATES, BATCH, WIDTH, RATE = 20_000, 256, 256, 1e-3


@dataclass(frozen=True)
class ClonedPolicy:
    """An MLP from observations to the mean action, as `benchmarks.baselines.run_policy` runs it.

    Attributes:
        network: standardised observations (and goals) to actions.
        center, scale: (O,) of the observations.
        goal: which observations goals are about; () for a policy that has none.
    """

    network: nn.Module
    center: Tensor
    scale: Tensor
    goal: tuple[int, ...] = ()
    wanted: list[Tensor] = field(default_factory=list)

    def begin(self, observations: NDArray[np.float64], goals: NDArray[np.float64]) -> None:
        """Remember the goals (B, P)."""
        self.wanted[:] = [torch.as_tensor(goals, dtype=torch.float32)]

    @torch.no_grad()
    def act(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions (B, A) for observations (B, O), clipped to [-1, 1]."""
        seen = (torch.as_tensor(observations, dtype=torch.float32) - self.center) / self.scale
        if self.goal:
            seen = _with_goals(seen, (self.wanted[0] - self.center[[*self.goal]]) / self.scale[[*self.goal]], self.goal)
        return self.network(seen).clamp(-1, 1).double().numpy()


def _with_goals(seen: Tensor, goals: Tensor, columns: Sequence[int]) -> Tensor:
    """Observations (B, O) beside goals (B, P) and what is left of the way to them, all standardised."""
    return torch.cat([seen, goals, goals - seen[:, list(columns)]], dim=1)


def clone(
    episodes: Episodes, *, goal: Sequence[int] = (), updates: int | None = None, seed: int = 0
) -> Iterator[float | ClonedPolicy]:
    """Regress actions on observations (mean squared error), yielding the loss now and then and, last, the policy.

    Two hidden layers of 256, as in the usual baselines (Fujimoto & Gu 2021, TD3+BC, table 1); Adam, cosine decay.

    Args:
        episodes: the data.
        goal: which observations (P,) goals are about. The policy is then told a later state's as its goal, any of those
            that its episode still has (goal-conditioned behaviour cloning, Ghosh et al. 2021).
        updates: of batches of 256.
        seed: of everything random.
    """
    updates = updates or UPDATES
    taken = np.ones(len(episodes.actions), dtype=bool)
    taken[episodes.offsets[1:] - 1] = False  # nobody acted in an episode's last state
    now = torch.from_numpy(np.flatnonzero(taken))
    left = torch.from_numpy(np.repeat(episodes.offsets[1:] - 1, np.diff(episodes.offsets)))[now] - now
    actions = torch.from_numpy(episodes.actions)[now]
    center, scale = (torch.from_numpy(v) for v in _standard(episodes.observations[taken]))
    states = (torch.from_numpy(episodes.observations) - center) / scale
    with torch.random.fork_rng():  # layers initialise from the global generator
        torch.manual_seed(seed)
        network = _mlp(states.shape[1] + 2 * len(goal), actions.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator().manual_seed(seed)
    for update in range(updates):
        rows = torch.randint(len(actions), (BATCH,), generator=generator)
        seen = states[now[rows]]
        if goal:
            later = now[rows] + 1 + (torch.rand(BATCH, generator=generator) * left[rows]).long()
            seen = _with_goals(seen, states[later][:, list(goal)], goal)
        loss = (network(seen) - actions[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % 1000 == 0:
            yield float(loss.detach())
    yield ClonedPolicy(network.eval(), center, scale, tuple(goal))


def _standard(states: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means and deviations (O,)."""
    return states.mean(0), np.maximum(states.std(0, ddof=1), 1e-6)


def _mlp(into: int, out: int) -> nn.Module:
    layers: list[Any] = [nn.Linear(into, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, out)]
    return nn.Sequential(*layers)


def told_the_goal(episodes: Episodes, goal: Sequence[int]) -> ClonedPolicy:
    """The goal-conditioned clone of the data, its progress unseen; see `clone`."""
    *_, made = clone(episodes, goal=goal)
    assert isinstance(made, ClonedPolicy)
    return made
