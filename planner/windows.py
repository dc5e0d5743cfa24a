"""Training windows: strided pieces of episodes that end in an absorbing state: a goal, or failure.

Shape letters: S states, B batch, H horizon (tokens), A actions, O observations, D columns of a token.

    token         0    1    ..   L          L+1  ..  H-1
    observation   s0   sk   ..   s(kL)      stays at the last position, velocity 0
    action        mean over the k steps     0    0   ..  0     (what is held, such as a grip: as it was before)
    arrived       -1   -1   ..   +1         +1   ..  +1

Where the task has positions, windows are of random length: length as an output of the plan (the absorbing goal) lets
one shape serve near and far goals alike. Where it has none, windows are as long as they can be, and only an episode
that ended in failure is absorbed: `arrived` then says "terminated".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .constants import picked
from .episodes import Episodes, as_tensor
from .spans import Spans
from .spec import TrajectorySpec


class Windows:
    """Draws windows from episodes that stay on one device.

    Args:
        episodes: the data.
        spec: columns and stride.
        horizon: H, tokens per window.
        device: where the data is kept and windows are made.
        discount: of rewards, per environment step; None where returns are not asked for.
        only: (N,) which episodes windows are taken from; all of them if left out.
        fixed: windows are always of the whole horizon and arrive at its last token, as in Diffuser.
        state_only: actions are left out (zero), for plans of states alone (see `inverse`).
        stays_within: hindsight's goals are places where the position stays, within so many position units, until its
            episode ends, and windows end when it comes there; one that comes to no rest has windows of random lengths,
            one that never moves has none. None takes any place that was passed: whoever has to hold a goal learns from
            those to pass it. Fixed windows do not ask.

    Raises:
        ValueError: widths do not fit the spec, no episode is long enough for two tokens or a horizon that is longer
            than every episode, or returns are asked of episodes without rewards.
    """

    def __init__(
        self,
        episodes: Episodes,
        spec: TrajectorySpec,
        *,
        horizon: int,
        device: torch.device | str = "cpu",
        discount: float | None = None,
        fixed: bool = False,
        state_only: bool = False,
        stays_within: float | None = None,
        only: NDArray[np.bool_] | None = None,
    ) -> None:
        check_widths(episodes, spec)
        longest = int(episodes.lengths.max())
        if horizon < 2 or longest < spec.stride:
            raise ValueError(
                f"horizon {horizon} at stride {spec.stride} needs episodes of at least {spec.stride} steps "
                f"and 2 tokens; the longest episode has {longest} steps"
            )
        self.spec, self.horizon, self.fixed, self.state_only = spec, horizon, fixed, state_only
        asked: dict[str, Any] = {"fixed": fixed, "stays_within": stays_within, "only": only}
        self.spans = Spans.of(episodes, spec, horizon=horizon, device=device, **asked)
        if not len(self):
            raise ValueError(f"no episode is long enough for a window of {horizon} tokens of {spec.stride} steps")
        self.observations = as_tensor(episodes.observations).to(device)
        self.device = self.observations.device
        self.actions = as_tensor(episodes.actions).to(self.device)
        taken = self.actions.shape[1]
        self._runs = self.actions.reshape(-1).unfold(0, spec.stride * taken, taken)  # of `stride` actions each, a view
        self.discount = discount
        if discount is not None:
            _check_discount(discount)
            if episodes.rewards is None:
                raise ValueError("returns need rewards, and these episodes have none")
            self.rewards = as_tensor(episodes.rewards).to(self.device)
            if spec.position:
                self._fade = discount ** torch.arange(self.spans.most * spec.stride, dtype=torch.float64, device=device)
            else:
                to_go = returns_to_go(episodes, discount, tails=endless_tails(episodes, discount))
                self.to_go = torch.from_numpy(to_go).to(self.device)
        names = spec.observation_names
        self._rates = torch.tensor([n in spec.velocity + spec.rates for n in names], device=self.device)
        self._held = torch.tensor([n in spec.held for n in spec.action_names], device=self.device)

    def __len__(self) -> int:
        """States that a window can begin at."""
        return self.spans.total

    @property
    def starts(self) -> Tensor:
        """States that windows begin at, in order (n,); made when asked for, as draws do without."""
        counts = self.spans.upto.diff(prepend=self.spans.upto.new_zeros(1))
        return self.spans.shift.repeat_interleave(counts).add_(torch.arange(len(self), device=self.device))

    @property
    def room(self) -> Tensor:
        """Tokens (S,) that a window from each state can last; made when asked for."""
        every = torch.arange(len(self.observations), device=self.device)
        return self.spans.room(every, self.spans.episode(every))

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random windows: trajectories (B, H, D) in environment units and their lengths L (B,) in tokens.

        With positions, lengths run from 1 to what the episode leaves, H - 1 at most: half of them log-uniform, so that
        near goals are seen often, half uniform, so that long ways are. Without, they are what the episode leaves.
        """
        first, length = self.draw(batch, generator)
        return self.window(first, length), length

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where random windows begin (B,), as states, and how many tokens they last (B,)."""
        pick, u, coin = torch.rand(3, batch, generator=generator, device=self.device, dtype=torch.float64)
        first, episode = self.spans.at((pick * len(self)).long())
        room = self.spans.room(first, episode)
        if self.fixed or not self.spec.position:
            return first, room
        length = torch.where(coin < 0.5, torch.exp(u * torch.log(room + 1.0)), 1 + u * room).long()
        length = torch.minimum(length, room).clamp(min=1)  # rounding must not carry a window past its episode
        return first, self.spans.settles(length, first, episode)

    def window(self, first: Tensor, length: Tensor) -> Tensor:
        """The windows (B, H, D) that begin at states `first` (B,) and last `length` (B,) tokens."""
        token = torch.arange(self.horizon, device=first.device)
        index = first[:, None] + self.spec.stride * torch.minimum(token, length[:, None])
        observations = self.observations[index]  # (B, H, O)
        absorbs = self.spans.absorbs(first)
        absorbed = (token > length[:, None]).unsqueeze(-1)
        reached = (token >= length[:, None]) & absorbs[:, None]
        observations = torch.where(absorbed & self._rates, 0.0, observations)
        last = torch.where(absorbs, length - 1, length)  # an episode's last state may have no action to show
        acted = first[:, None] + self.spec.stride * torch.minimum(token, last[:, None])
        actions = torch.where(reached.unsqueeze(-1) & ~self._held, 0.0, self._taken(acted))
        return self.spec.join(actions, observations, torch.where(reached, 1.0, -1.0))

    def _taken(self, state: Tensor) -> Tensor:
        """Mean (..., A) of the `stride` actions from each state (...) on; zero in plans of states alone."""
        if self.state_only:
            return torch.zeros(*state.shape, self.actions.shape[1], device=self.device)
        run = self._runs.index_select(0, state.flatten().clamp(max=len(self._runs) - 1))
        return run.view(*state.shape, self.spec.stride, -1).mean(-2)

    def returns(self, first: Tensor, length: Tensor) -> Tensor:
        """Discounted return (B,) of windows, as float32, in reward units.

        Where windows end in an absorbing goal (the task has positions) it is the return of what the window shows:
        its own rewards, and the last of them for ever after. Otherwise it is the return to go of the episode, as in
        Diffuser (Janner et al. 2022, section 3.2), an episode that was only cut off going on as it did last.

        Raises:
            ValueError: the windows were made without a discount.
        """
        if self.discount is None:
            raise ValueError("these windows were made without a discount; give Windows(..., discount=0.99)")
        if not self.spec.position:
            return self.to_go[first].float()
        steps, every = length * self.spec.stride, torch.arange(len(self._fade), device=self.device)
        last = steps[:, None] - 1
        gains = self.rewards[first[:, None] + torch.minimum(every, last)].double()  # (B, steps of the longest)
        shown = (gains * torch.where(every <= last, self._fade, 0.0)).sum(1)
        return (shown + self.discount ** steps.double() * gains[:, -1] / (1 - self.discount)).float()


def returns_to_go(episodes: Episodes, discount: float, *, tails: np.ndarray | None = None) -> np.ndarray:
    """Discounted sum (S,) of the rewards from each state to the end of its episode, float64.

    Args:
        episodes: with rewards.
        discount: per environment step.
        tails: (N,) value of each episode's last state; zero if left out.

    Raises:
        ValueError: the discount does not lie between 0 and 1 (excluded), or there are no rewards.
    """
    _check_discount(discount)
    if episodes.rewards is None:
        raise ValueError("returns need rewards, and these episodes have none")
    to_go = episodes.rewards.astype(np.float64)
    begins, lengths = episodes.offsets[:-1], episodes.lengths
    if tails is not None:
        to_go[episodes.offsets[1:] - 1] = tails
    for step in range(int(lengths.max()) - 1, -1, -1):  # all episodes at once, from the back
        state = begins[lengths > step] + step
        to_go[state] += discount * to_go[state + 1]
    return to_go


def endless_tails(episodes: Episodes, discount: float, *, steps: int = 100) -> np.ndarray:
    """What each episode (N,) would have earned after its end: nothing where it failed or where nobody knows.

    One that was only cut off (a time limit says nothing of the state that it met) goes on earning the mean of its last
    rewards: for a gait, the best guess that the data itself has.
    """
    _check_discount(discount)
    if episodes.terminated is None or episodes.rewards is None:
        return np.zeros(len(episodes))
    ends = episodes.offsets[1:] - 1
    spans = [slice(end - min(steps, int(n)), end) for end, n in zip(ends, episodes.lengths, strict=True)]
    means = np.array([episodes.rewards[span].mean(dtype=np.float64) for span in spans])
    return np.where(episodes.terminated, 0.0, means / (1 - discount))


def _check_discount(discount: float) -> None:
    if not 0 < discount < 1:
        raise ValueError(f"discount={discount} must lie between 0 and 1, both excluded")


def check_widths(episodes: Episodes, spec: TrajectorySpec) -> None:
    """Refuse data whose widths are not the spec's."""
    got = episodes.observations.shape[1], episodes.actions.shape[1]
    want = len(spec.observation_names), len(spec.action_names)
    if got != want:
        raise ValueError(
            f"the data has {got[0]} observation and {got[1]} action columns, the task has "
            f"{want[0]} ({', '.join(spec.observation_names)}) and {want[1]} ({', '.join(spec.action_names)})"
        )


def check_horizon(episodes: Episodes, spec: TrajectorySpec, horizon: int) -> None:
    """Refuse a horizon that no episode can fill, so that no plan of that length would ever be learned."""
    whole = 0 if spec.position or (episodes.terminated is not None and episodes.terminated.any()) else 1
    needed, longest = (horizon - 1 + whole) * spec.stride, int(episodes.lengths.max())
    if needed > longest:
        fits = longest // spec.stride + 1 - whole
        raise ValueError(
            f"horizon {horizon} (tokens of {spec.stride} steps: {needed} steps) is longer than every episode "
            f"(the longest has {longest} steps); use a horizon of at most {fits} or a smaller stride"
        )


def consistency(spec: TrajectorySpec, trajectory: Tensor) -> Tensor:
    """How far each step disagrees with its own velocities: |position step - mean velocity * time|, (..., H-1).

    In the units of the positions. Zero for the trapezoid rule's exact motions; all zeros where the task has no
    velocities to compare with.
    """
    if not spec.velocity:
        return trajectory.new_zeros(trajectory.shape[:-2] + (trajectory.shape[-2] - 1,))
    position, velocity = picked(trajectory, spec.position_columns), picked(trajectory, spec.velocity_columns)
    step = position[..., 1:, :] - position[..., :-1, :]
    mean = (velocity[..., 1:, :] + velocity[..., :-1, :]) / 2
    return (step - mean * spec.token_seconds).norm(dim=-1)


def arrival(spec: TrajectorySpec, trajectory: Tensor) -> Tensor:
    """First token whose `arrived` is positive, (...); H - 1 where there is none."""
    reached = trajectory[..., spec.arrived] > 0
    reached[..., -1] = True
    return reached.float().argmax(dim=-1)


def worst_before_arrival(spec: TrajectorySpec, trajectory: Tensor, errors: Tensor) -> Tensor:
    """Largest of per-step `errors` (..., H-1) up to the arrival, (...): what comes after is only padding."""
    steps = torch.arange(errors.shape[-1], device=errors.device)
    ahead = steps < arrival(spec, trajectory).unsqueeze(-1).clamp(min=1)
    return torch.where(ahead, errors, 0.0).amax(dim=-1)
