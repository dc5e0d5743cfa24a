"""Inverse dynamics: the action that leads from one state to the next, for plans of states alone.

Shape letters: B batch, S states, A actions, O observations, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

# ModelMixin must be a name of this module: diffusers finds the loader of a saved component by it.
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from .episodes import Episodes, as_tensor
from .spec import TrajectorySpec
from .training import Objective, TrainConfig

MOST_TRANSITIONS = 1_100_000  # that scales are taken from
SMALLEST = 1e-4  # standard deviation by which anything is divided


class InverseDynamics(ModelMixin, ConfigMixin):
    """Actions from consecutive states, an MLP (Ajay et al. 2023, "Is conditional generative modeling all you need for
    decision-making?", equation 6).

    Args:
        observations: O.
        actions: A.
        width: of its two hidden layers.
    """

    center: Tensor
    scale: Tensor
    step: Tensor
    mean: Tensor
    spread: Tensor

    @register_to_config
    def __init__(self, observations: int, actions: int, *, width: int = 256) -> None:
        super().__init__()
        if observations < 1 or actions < 1 or width < 1:
            raise ValueError(f"observations={observations}, actions={actions} and width={width} must be positive")
        self.network = nn.Sequential(
            nn.Linear(2 * observations, width), nn.Mish(), nn.Linear(width, width), nn.Mish(), nn.Linear(width, actions)
        )
        for name, size, value in (
            ("center", observations, 0.0),
            ("scale", observations, 1.0),
            ("step", observations, 1.0),
            ("mean", actions, 0.0),
            ("spread", actions, 1.0),
        ):
            self.register_buffer(name, torch.full((size,), value))

    def fit_scale(self, episodes: Episodes) -> None:
        """Set the scales of states, steps between them and actions to those of the data."""
        now, ahead, taken = transitions(episodes)
        self.center.copy_(now.mean(0))
        self.mean.copy_(taken.mean(0))
        for buffer, values in ((self.scale, now), (self.step, ahead - now), (self.spread, taken)):
            buffer.copy_(values.std(0).clamp(min=SMALLEST))

    def forward(self, now: Tensor, ahead: Tensor) -> Tensor:
        """Actions (..., A) that lead from observations (..., O) to those one environment step later."""
        seen = torch.cat([(now - self.center) / self.scale, (ahead - now) / self.step], dim=-1)
        return self.mean + self.spread * self.network(seen)

    @torch.no_grad()
    def acted(self, spec: TrajectorySpec, trajectories: Tensor) -> Tensor:
        """Trajectories (..., H, D) with the actions that lead from each token toward the next, at its pace."""
        observations = trajectories[..., spec.observations]
        now, far = observations[..., :-1, :], observations[..., 1:, :]
        made = trajectories.clone()
        made[..., :-1, spec.actions] = self(now, now + (far - now) / spec.stride).to(made.dtype)
        made[..., -1, spec.actions] = made[..., -2, spec.actions]
        return made


def transitions(episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """States, those one step later, and the actions between: (S, O), (S, O), (S, A); of many, evenly spaced ones."""
    now = episodes.acted(most=MOST_TRANSITIONS)
    rows = episodes.observations[now], episodes.observations[now + 1], episodes.actions[now]
    first, second, taken = (torch.from_numpy(r) for r in rows)
    return first, second, taken


def predicting_actions(episodes: Episodes, config: TrainConfig, device: torch.device) -> Objective:
    """To predict the actions between consecutive states; the model is an `InverseDynamics`."""
    observations, actions = (as_tensor(a).to(device) for a in (episodes.observations, episodes.actions))
    spread = transitions(episodes)[2].std(0).clamp(min=SMALLEST).to(device)
    count, upto = episodes.steps, torch.from_numpy(np.cumsum(episodes.lengths)).to(device)

    def objective(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        row = torch.randint(count, (config.batch_size,), generator=generator, device=device)
        now = row + torch.searchsorted(upto, row, right=True)  # nobody acts in an episode's last state
        off = model(observations[now], observations[now + 1]) - actions[now]
        loss = (off / spread).square().mean()
        return loss, {"inverse_loss": loss.detach(), "action_error": off.detach().abs().mean()}

    return objective
