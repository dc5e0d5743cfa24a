"""Behaviour cloning: what plain imitation of the same data is worth.

Shape letters: B batch, S states, O observations, A actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffplan.planner.episodes import Episodes

UPDATES, BATCH, WIDTH, RATE = 20_000, 256, 256, 1e-3


@dataclass(frozen=True)
class ClonedPolicy:
    """An MLP from observations to the mean action, as `benchmarks.baselines.run_policy` runs it.

    Attributes:
        network: standardised observations to actions.
        center, scale: (O,) of the observations.
    """

    network: nn.Module
    center: Tensor
    scale: Tensor

    def begin(self, observations: NDArray[np.float64], goals: NDArray[np.float64]) -> None:
        """Nothing to remember between steps."""

    @torch.no_grad()
    def act(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions (B, A) for observations (B, O), clipped to [-1, 1]."""
        seen = (torch.as_tensor(observations, dtype=torch.float32) - self.center) / self.scale
        return self.network(seen).clamp(-1, 1).double().numpy()


def clone(episodes: Episodes, *, updates: int | None = None, seed: int = 0) -> Iterator[float | ClonedPolicy]:
    """Regress actions on observations (mean squared error), yielding the loss now and then and, last, the policy.

    Two hidden layers of 256, as in the usual baselines (Fujimoto & Gu 2021, TD3+BC, table 1); Adam, cosine decay.
    """
    updates = updates or UPDATES
    taken = np.ones(len(episodes.actions), dtype=bool)
    taken[episodes.offsets[1:] - 1] = False  # nobody acted in an episode's last state
    observations, actions = (torch.from_numpy(a[taken]) for a in (episodes.observations, episodes.actions))
    center, scale = observations.mean(0), observations.std(0).clamp(min=1e-6)
    observations = (observations - center) / scale
    with torch.random.fork_rng():  # layers initialise from the global generator
        torch.manual_seed(seed)
        network = _mlp(observations.shape[1], actions.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator().manual_seed(seed)
    for update in range(updates):
        rows = torch.randint(len(actions), (BATCH,), generator=generator)
        loss = (network(observations[rows]) - actions[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if update % 1000 == 0:
            yield float(loss.detach())
    yield ClonedPolicy(network.eval(), center, scale)


def _mlp(into: int, out: int) -> nn.Module:
    layers: list[Any] = [nn.Linear(into, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, out)]
    return nn.Sequential(*layers)
