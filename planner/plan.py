"""What planning returns.

Shape letters: K candidates, H horizon (tokens), A actions, O observations, P positions, D columns of a token, n steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .selection import Verdict
from .spec import TrajectorySpec

Array = NDArray[np.floating[Any]]

SLOWEST = 0.01  # tempo
FINE = 20  # points per token at which a plan's speed is looked at


@dataclass(frozen=True)
class Reference:
    """What a plan asks for at given times; leading shape (n,) or (B,).

    Attributes:
        observation: (n, O).
        position: (n, P), smooth between tokens.
        velocity: (n, P), per second; zeros where the task observes none.
        action: (n, A).
    """

    observation: Array
    position: Array
    velocity: Array
    action: Array


@dataclass(frozen=True, eq=False)
class Plan:
    """Trajectories in environment units, the best candidate first.

    Attributes:
        spec: the columns.
        trajectories: (K, H, D).
        arrivals: (K,) token at which each candidate arrives.
        scores: (K,) higher is better; the order of the candidates (those that a caller's check refused come last).
        consistency: (K,) worst disagreement of positions with velocities before arrival, in position units.
        implausibility: (K,) the denoiser's own judgement (see `selection`): lower is more like the data.
        seconds: wall time that planning took (of the whole batch, where several were planned at once).
        guides: descriptions of the guides at work.
        tempo: how fast it is to be followed: 1 as its tokens say, below 1 where a guide's speed limit asks for it. All
            that is said of times and rates is at this tempo.
    """

    spec: TrajectorySpec
    trajectories: Array
    arrivals: NDArray[np.int64]
    scores: NDArray[np.float64]
    consistency: NDArray[np.float64]
    implausibility: NDArray[np.float64]
    seconds: float = 0.0
    guides: tuple[str, ...] = ()
    tempo: float = 1.0

    def __repr__(self) -> str:
        return (
            f"Plan({self.steps} steps, {self.duration_seconds:.2f} s, {len(self.trajectories)} candidates, "
            f"observations {self.observations.shape}, actions {self.actions.shape})"
        )

    @property
    def observations(self) -> Array:
        """(K, H, O)."""
        return self.trajectories[..., self.spec.observations]

    @property
    def actions(self) -> Array:
        """(K, H, A)."""
        return self.trajectories[..., self.spec.actions]

    @property
    def positions(self) -> Array:
        """(K, H, P)."""
        return self.trajectories[..., self.spec.position_columns]

    @property
    def steps(self) -> int:
        """Environment steps until the best candidate arrives."""
        return self.arrival_steps(0)

    @property
    def arrival_state(self) -> Array:
        """Observation (O,) in which the best candidate arrives."""
        return np.asarray(self.observations[0, int(self.arrivals[0])])

    def arrival_steps(self, candidate: int) -> int:
        """Environment steps until a candidate arrives."""
        return math.ceil(int(self.arrivals[candidate]) * self.spec.stride / self.tempo - 1e-9)

    @property
    def duration_seconds(self) -> float:
        """Simulated time until the best candidate arrives."""
        return self.steps * self.spec.dt_seconds

    def reference(self, steps: ArrayLike, candidate: int = 0) -> Reference:
        """What the plan asks for at environment steps (n,) after its start; past its end it holds the last token.

        Positions run through the tokens as cubic Hermite splines with the planned velocities as slopes; without
        velocities, and for all else, they run straight.
        """
        spec, path = self.spec, self.trajectories[candidate]
        pace = self.tempo / spec.stride  # tokens per step
        time = np.clip(np.asarray(steps, dtype=float) * pace, 0, len(path) - 1)
        token = np.minimum(time.astype(int), len(path) - 2)
        u = (time - token)[:, None]
        a, b = path[token], path[token + 1]
        row = (1 - u) * a + u * b
        row[:, spec.velocity_columns] *= self.tempo
        row[:, spec.actions] = path[np.minimum(time.astype(int), len(path) - 1)][:, spec.actions]  # held, not blended
        position, velocity = row[:, spec.position_columns], np.zeros((len(row), len(spec.position)))
        if spec.velocity:
            p, q = a[:, spec.position_columns], b[:, spec.position_columns]
            absorbed = token >= self.arrivals[candidate]
            slope = np.where(absorbed[:, None], 0.0, spec.token_seconds)
            m, n = a[:, spec.velocity_columns] * slope, b[:, spec.velocity_columns] * slope
            position = (
                (2 * u**3 - 3 * u**2 + 1) * p
                + (u**3 - 2 * u**2 + u) * m
                + (3 * u**2 - 2 * u**3) * q
                + (u**3 - u**2) * n
            )
            velocity = (6 * u**2 - 6 * u) * (p - q) + (3 * u**2 - 4 * u + 1) * m + (3 * u**2 - 2 * u) * n
            velocity = self.tempo * velocity / spec.token_seconds
            velocity[np.asarray(steps) * pace > len(path) - 1] = 0.0  # past the end: stay
        return Reference(row[:, spec.observations], position, velocity, row[:, spec.actions])

    def way(self, steps: Array) -> Array:
        """Positions (n, P) of the best candidate at environment steps (n,), as `reference` has them."""
        if not self.spec.velocity:
            return self.reference(steps).position
        from .kernels import spline

        path, spec = self.trajectories[0].astype(float), self.spec
        places, rates = path[:, spec.position_columns], path[:, spec.velocity_columns]
        pace = self.tempo / spec.stride
        return spline(places, rates, int(self.arrivals[0]), pace, spec.token_seconds, steps)

    def path(self, candidate: int = 0, *, every: int = 1, body: int = 0) -> Array:
        """Positions (n, P) of a candidate at every so many environment steps until it arrives.

        Of another body than the position where `body` says which of `TrajectorySpec.body_columns` is meant.
        """
        asked = self.reference(np.arange(0, self.arrival_steps(candidate) + 1, every), candidate)
        return asked.observation[:, self.spec.body_indices[body]] if body else asked.position

    def paths(self, candidate: int = 0, *, every: int = 1) -> list[Array]:
        """The `path` of everything that has a place: of the position, then of the bodies."""
        return [self.path(candidate, every=every, body=i) for i in range(len(self.spec.body_columns))]

    def ahead(self) -> Array:
        """Observations (n, O) of the best candidate until it arrives, or ends, token by token; two at least."""
        return self.observations[0, : max(2, int(self.arrivals[0]) + 1)]

    def remainder(self, steps: float) -> Array:
        """All candidates as they look `steps` environment steps later, (K, H, D): where a warm start begins."""
        horizon = self.trajectories.shape[1]
        time = np.minimum(np.arange(horizon) + steps * self.tempo / self.spec.stride, horizon - 1)
        token = np.minimum(time.astype(int), horizon - 2)
        u = (time - token)[None, :, None]
        return ((1 - u) * self.trajectories[:, token] + u * self.trajectories[:, token + 1]).astype(np.float32)

    def preferring(self, accepted: NDArray[np.bool_]) -> Plan:
        """The same candidates, those that were not accepted (K,) behind the others."""
        return self._sorted(np.argsort(~np.asarray(accepted, dtype=bool), kind="stable"))

    def top_speed(self) -> float:
        """Fastest planned speed of the best candidate before it arrives, between its tokens too; position units / s.

        Of the position's velocities, and of the bodies' steps.
        """
        fastest = self._top_step()
        if not self.spec.velocity:
            return fastest
        tokens = np.linspace(0, self.arrivals[0], FINE * int(self.arrivals[0]) + 1)
        asked = self.reference(tokens * self.spec.stride / self.tempo)
        planned = np.linalg.norm(asked.observation[:, self.spec.velocity_indices], axis=1)
        return float(max(planned.max(), np.linalg.norm(asked.velocity, axis=1).max(), fastest))

    def _top_step(self) -> float:
        """Fastest that a body beside the position goes from token to token; 0 without one."""
        ahead = self.trajectories[0, : int(self.arrivals[0]) + 1]
        steps = [np.linalg.norm(np.diff(ahead[:, body], axis=0), axis=1) for body in self.spec.body_columns[1:]]
        return float(np.max([0.0, *np.ravel(steps)])) * self.tempo / self.spec.token_seconds

    def slowed(self, limit: float) -> Plan:
        """The same plan, to be followed so slowly that it nowhere passes a speed (position units per second).

        Not slower than `SLOWEST`, which keeps plans finite.
        """
        return replace(self, tempo=max(SLOWEST, self.tempo * min(1.0, limit / max(self.top_speed(), 1e-9))))

    def best(self) -> Plan:
        """The best candidate alone."""
        return self.candidate(0)

    def candidate(self, index: int) -> Plan:
        """A candidate alone."""
        return self._sorted(np.array([index]))

    def ranked(self, scores: NDArray[np.float64]) -> Plan:
        """The same candidates by other scores (K,), the highest first."""
        return replace(self, scores=scores)._sorted(np.argsort(-scores, kind="stable"))

    def _sorted(self, best: NDArray[np.int64]) -> Plan:
        names = ("trajectories", "arrivals", "scores", "consistency", "implausibility")
        return replace(self, **{name: getattr(self, name)[best] for name in names})

    def then(self, leg: Plan) -> Plan:
        """This plan's best candidate until it arrives, followed by each candidate of another leg."""
        count, end = len(leg.trajectories), int(self.arrivals[0])
        head = np.repeat(self.trajectories[:1, :end], count, axis=0)
        head[..., self.spec.arrived] = -1.0
        return replace(
            leg,
            trajectories=np.concatenate([head, leg.trajectories], axis=1),
            arrivals=leg.arrivals + end,
            consistency=np.maximum(leg.consistency, self.consistency[0]),
            implausibility=np.maximum(leg.implausibility, self.implausibility[0]),
            seconds=self.seconds + leg.seconds,
            tempo=min(self.tempo, leg.tempo),
        )


def sorted_plans(
    spec: TrajectorySpec,
    trajectories: Tensor,
    verdict: Verdict,
    scores: Tensor,
    *,
    problems: int,
    guides: tuple[str, ...] = (),
) -> list[Plan]:
    """One plan per problem, best candidates first.

    Args:
        spec: the columns.
        trajectories: (B, H, D) in environment units, the K candidates of each problem together.
        verdict: what was found about each of them.
        scores: (B,) higher is better.
        problems: P, B = P * K.
        guides: descriptions of the guides at work.
    """
    paths, ranks = (t.cpu().reshape(problems, -1, *t.shape[1:]) for t in (trajectories, scores))
    arrivals, consistency, doubt = (v.cpu().reshape(problems, -1) for v in verdict)
    plans = []
    for i in range(problems):
        best = torch.argsort(ranks[i], descending=True, stable=True)
        plans.append(
            Plan(
                spec,
                paths[i][best].float().numpy(),
                arrivals[i][best].numpy(),
                ranks[i][best].double().numpy(),
                consistency[i][best].double().numpy(),
                doubt[i][best].double().numpy(),
                guides=guides,
            )
        )
    return plans


def arc_length(path: Array) -> Array:
    """Distance gone (n,) along a path (n, P) at each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
