"""What the data says of the plant: how it answers to actions, and where it has been.

Shape letters: S states, P positions, A actions, ... any leading shape.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

from .episodes import Episodes, chunks
from .spec import TrajectorySpec

Array = NDArray[np.floating[Any]]

MOST_VOXELS = 4_000_000
SEEN = 3  # states that must lie in a voxel for it to count as visited: once may be an accident
STEPS_PER_VOXEL = 1.5  # so that the states of one motion leave no gaps between them
EXPLAINED = 0.95  # of what positions do in a step, by the actions that are said to set it
SLOW = 0.95  # of the top speed: faster transitions do not tell how the plant answers
MOST_TRANSITIONS = 1_100_000  # that the answer is fitted to; of more, so many evenly spaced ones
ROUNDS, KEPT = 4, 0.8  # of the trimmed regression: contacts and saturation are not the plant's own answer
MOST_LEFT = 0.99  # quantile of what the plant takes its top speeds for: what runs into something keeps less
FASTEST = 20  # transitions at least that say so
GROWN = 2  # voxels by which space is taken to be free beyond what was visited, where no contact speaks against it
CONTACT = 0.25  # of the velocity that the largest action adds in a step: an answer further off is a contact
WALL, THICK = 8, 4  # voxels: how far to all sides, and how deep, a contact is taken to be a flat wall
MOST_CONTACTS = 20_000
AXES_MOST = 3
DRAG_MOST, DIRECT_MOST = 0.5, 0.8  # of the force, against drag at the largest velocity; where actions set velocities


class Plant(ModelMixin, ConfigMixin):
    """A linear answer per axis, v' = a clip(v, -c, c) + b u, p' = p + v' dt, and the space that the data has visited.

    Where no velocities are observed, actions set them: a is zero.

    Both are fitted to recorded episodes, so that plans can be followed as fast as the plant can and no faster, where
    its data shows that nothing is in the way: no model and no map is given.

    Args:
        axes: P; velocities and actions have as many.
        dt_seconds: duration of one environment step.
        voxels: of the grid of visited places along each axis.
        voxel: side of a voxel, in position units.
        pace: mean speed of the data while it moves, in position units per second.

    Attributes:
        answer: (P,) a, share of a velocity that is left after a step.
        push: (P,) b, velocity that an action of 1 adds in a step, per second.
        force: (P,) largest action.
        cap: (P,) c, velocity above which the plant cuts off.
        top: (P,) largest velocity seen.
        visited: (voxels) 1 where the data has been.
        free: (voxels) 1 where nothing is in the way: visited, or close to it and not behind what the data ran into.
        origin: (P,) corner of the grid.
    """

    answer: Tensor
    push: Tensor
    force: Tensor
    cap: Tensor
    top: Tensor
    visited: Tensor
    free: Tensor
    origin: Tensor

    @register_to_config
    def __init__(
        self,
        axes: int = 2,
        dt_seconds: float = 0.01,
        voxels: tuple[int, ...] = (1, 1),
        voxel: float = 0.05,
        pace: float = 1.0,
    ) -> None:
        super().__init__()
        if not (voxel > 0 and dt_seconds > 0 and pace >= 0):
            raise ValueError(f"voxel={voxel}, dt_seconds={dt_seconds} and pace={pace} must be positive")
        if not 1 <= axes <= AXES_MOST or len(voxels) != axes or min(voxels) < 1:
            raise ValueError(f"a plant of {axes} axes (1 to {AXES_MOST}) needs as many counts of voxels, got {voxels}")
        if np.prod([float(n) for n in voxels]) > MOST_VOXELS:
            raise ValueError(f"a grid of {tuple(voxels)} voxels is larger than {MOST_VOXELS:,}")
        for name in ("answer", "push", "force", "cap", "top", "origin"):
            self.register_buffer(name, torch.ones(axes))
        for name in ("visited", "free"):
            self.register_buffer(name, torch.zeros(tuple(voxels)))

    @staticmethod
    def fits(spec: TrajectorySpec) -> bool:
        """Whether a spec describes such a plant: one action for each position."""
        return 0 < len(spec.position) <= AXES_MOST and len(spec.action_names) == len(spec.position)

    @classmethod
    def of(cls, episodes: Episodes, spec: TrajectorySpec) -> Plant | None:
        """Fitted to episodes, or None where there is no such plant: other columns, an axis that no action moves, or
        positions without velocities that actions alone do not explain.
        """
        if not cls.fits(spec):
            return None
        made = cls.fit(episodes, spec)
        return made if bool((made.push * made.force > 1e-9).all()) and made.explains(episodes, spec) else None

    @classmethod
    def fit(cls, episodes: Episodes, spec: TrajectorySpec) -> Plant:
        """From recorded transitions, by regression without the fifth of them that fits worst.

        Raises:
            ValueError: the spec does not describe such a plant.
        """
        if not cls.fits(spec):
            raise ValueError("a plant needs positions and one action for each of them")
        now, before, afterwards, actions = _transitions(episodes, spec)
        reached = _columns(episodes, now + 1, spec.position_indices)
        steps = np.linalg.norm(reached - _columns(episodes, now, spec.position_indices), axis=1)
        voxel, voxels, origin, visited = _grid(episodes, spec, float(np.median(steps)))
        made = cls(len(spec.position), spec.dt_seconds, voxels, voxel, _pace(steps) / spec.dt_seconds)
        for axis in range(len(spec.position)):
            v, after, u = before[:, axis], afterwards[:, axis], actions[:, axis]
            a, b = _response(v, after, u)
            made.answer[axis], made.push[axis], made.force[axis] = a, b, float(np.abs(u).max())
            if not spec.velocity:
                made.top[axis] = made.cap[axis] = float(np.abs(after).max())
                continue
            top = float(np.abs(v).max())
            fast = np.abs(v) > min(0.99 * top, float(np.sort(np.abs(v))[-FASTEST:][0]) - 1e-9)
            left = np.sign(v[fast]) * (after[fast] - b * u[fast]) / a  # what the plant took its velocity for
            made.top[axis], made.cap[axis] = top, min(top, float(np.quantile(left, MOST_LEFT)))
        made.origin[:] = torch.from_numpy(origin)
        made.visited[:] = torch.from_numpy(visited)
        off = afterwards - made.next_velocities(before, actions)
        walls = _walls(reached, off, made)
        made.free[:] = torch.from_numpy(_grown(visited > 0.5, walls).astype(np.float32))
        return made

    @cached_property
    def limits(self) -> tuple[Array, Array]:
        """Largest acceleration (P,), per second squared, also against the drag at top speed; largest velocity (P,).

        Where drag takes more than half of the force at the velocities seen, the largest is that where it takes half;
        where actions set velocities, four fifths, so that a few steps lead there.
        """
        a, b, force, cap, top = (getattr(self, n).double().cpu().numpy() for n in _DYNAMICS)
        drag, dt = np.maximum(1 - a, 1e-9), self.config.dt_seconds
        most = np.where(a == 0, DIRECT_MOST, DRAG_MOST)
        fastest = np.minimum(np.minimum(top, a * cap + b * force), most * b * force / drag)
        return (b * force - (1 - a) * np.minimum(cap, fastest)) / dt, fastest

    def next_velocities(self, velocities: ArrayLike, actions: ArrayLike) -> Array:
        """Velocities (..., P) a step after velocities (..., P) under actions (..., P), where nothing is in the way."""
        a, b, force, cap, _ = (getattr(self, n).double().cpu().numpy() for n in _DYNAMICS)
        return a * np.clip(np.asarray(velocities, dtype=float), -cap, cap) + b * np.clip(actions, -force, force)

    def actions_for(self, velocities: ArrayLike, wanted: ArrayLike) -> Array:
        """Actions (..., P) that turn velocities (..., P) into wanted ones within a step, clipped to what was seen."""
        a, b, force, cap, _ = (getattr(self, n).double().cpu().numpy() for n in _DYNAMICS)
        seen = np.clip(np.asarray(velocities, dtype=float), -cap, cap)
        return np.clip((np.asarray(wanted) - a * seen) / b, -force, force)

    def explains(self, episodes: Episodes, spec: TrajectorySpec) -> bool:
        """Whether actions account for the motions of an episode, contacts left out; velocities do in any case."""
        if spec.velocity:
            return True
        _, before, after, actions = _transitions(episodes, spec)
        off = np.square(after - self.next_velocities(before, actions)).sum(axis=1)
        kept = off <= np.quantile(off, KEPT)
        return bool(off[kept].mean() <= (1 - EXPLAINED) * np.square(after[kept]).sum(axis=1).mean())

    def depth(self, positions: ArrayLike) -> tuple[Array, Array]:
        """How deep positions (..., P) lie inside free space, negative outside, and the way deeper (..., P)."""
        from .kernels import interpolate

        points, (fields, shape, origin, voxel) = np.asarray(positions, dtype=float), self.field
        look, beyond = interpolate(fields, shape, ((points - origin) / voxel - 0.5).reshape(-1, len(shape)))
        return (look[:, 0] - beyond * voxel).reshape(points.shape[:-1]), look[:, 1:].reshape(points.shape)

    @cached_property
    def field(self) -> tuple[Array, NDArray[np.int64], Array, float]:
        """Depth and its slopes (1 + P, V), the grid's shape (P,), its corner (P,), and the side of a voxel."""
        inside = self.free.cpu().numpy() > 0.5
        out = ndimage.distance_transform_edt(~inside) if inside.any() else np.full(inside.shape, max(inside.shape))
        into = ndimage.distance_transform_edt(inside) if inside.any() else np.zeros(inside.shape)
        depth = np.where(inside, into - 0.5, 0.5 - out) * self.config.voxel
        slopes = np.gradient(depth, self.config.voxel)
        fields = np.stack([depth, slopes] if depth.ndim == 1 else [depth, *slopes])
        origin = self.origin.double().cpu().numpy()
        return fields.reshape(len(fields), -1), np.array(depth.shape), origin, float(self.config.voxel)

    def forward(self, positions: Tensor) -> Tensor:
        return torch.from_numpy(self.depth(positions.cpu().numpy())[0])


_DYNAMICS = ("answer", "push", "force", "cap", "top")


def _transitions(episodes: Episodes, spec: TrajectorySpec) -> tuple[NDArray[np.int64], Array, Array, Array]:
    """States (S,) that another follows, velocities before and after the step (S, P), and the actions (S, A) between.

    Where none are observed, those before are zero and those after what the positions did.
    """
    now = episodes.acted(most=MOST_TRANSITIONS)
    actions = episodes.actions[now].astype(np.float64)
    columns = spec.velocity_indices or spec.position_indices
    seen, ahead = _columns(episodes, now, columns), _columns(episodes, now + 1, columns)
    if spec.velocity:
        return now, seen, ahead, actions
    return now, np.zeros_like(seen), (ahead - seen) / spec.dt_seconds, actions


def _columns(episodes: Episodes, states: NDArray[np.int64], columns: list[int]) -> Array:
    """Columns (S, n) of states (S,), in double precision."""
    return episodes.observations[states[:, None], columns].astype(np.float64)


def _places(episodes: Episodes, spec: TrajectorySpec) -> Iterator[Array]:
    """Positions (n, P) of all states, chunk by chunk."""
    for part in chunks(len(episodes.observations)):
        yield episodes.observations[part][:, spec.position_indices].astype(np.float64)


def _grid(episodes: Episodes, spec: TrajectorySpec, step: float) -> tuple[float, tuple[int, ...], Array, Array]:
    """Side of a voxel, their counts, the corner of the grid (P,), and which were visited; a margin is left around."""
    ends = np.array([(places.min(0), places.max(0)) for places in _places(episodes, spec)])
    low, high = ends[:, 0].min(0), ends[:, 1].max(0)
    extent = np.maximum(high - low, 1e-6)
    least = float((extent.prod() / (MOST_VOXELS / 4)) ** (1 / len(extent)))
    voxel = float(np.float32(max(STEPS_PER_VOXEL * step, least, 1e-6)))
    while np.ceil(extent / voxel + 8).prod() > MOST_VOXELS:  # where the margin is most of the grid
        voxel *= 2
    margin = 4 * voxel
    origin = low - margin
    counts = np.ceil((extent + 2 * margin) / voxel).astype(int)
    hits = np.zeros(counts, dtype=int)
    for places in _places(episodes, spec):
        np.add.at(hits, tuple(np.floor((places - origin) / voxel).astype(int).T), 1)
    return voxel, tuple(int(n) for n in counts), origin, (hits >= SEEN).astype(np.float32)


def _pace(steps: Array) -> float:
    """Mean length of the steps (S,) in which the data moved."""
    moving = steps[steps > 0.1 * steps.max()]
    return float(moving.mean()) if len(moving) else 0.0


def _walls(positions: Array, off: Array, plant: Plant) -> NDArray[np.bool_]:
    """Voxels behind contacts: places where the plant answered otherwise than it does, pushed away from something.

    Args:
        positions: (S, P).
        off: (S, P) velocity after a step less what the plant's own answer would be.
        plant: its fitted dynamics and grid.
    """
    voxel, shape = plant.config.voxel, np.array(plant.visited.shape)
    strength = np.linalg.norm(off, axis=1)
    hits = np.flatnonzero(strength > CONTACT * float((plant.push * plant.force).min()))
    hits = hits[:: max(1, math.ceil(len(hits) / MOST_CONTACTS))]
    away = off[hits] / strength[hits, None]
    around = np.array(list(itertools.product(range(-WALL, WALL + 1), repeat=len(shape))))
    around = around[np.linalg.norm(around, axis=1) <= WALL]
    blocked = np.zeros(tuple(shape), dtype=bool)
    where = np.floor((positions[hits] - plant.origin.double().numpy()) / voxel).astype(int)
    for cell, normal in zip(where, away, strict=True):
        depth = around @ normal
        behind = cell + around[(depth < -0.5) & (depth > -THICK - 0.5)]
        blocked[tuple(behind[((behind >= 0) & (behind < shape)).all(axis=1)].T)] = True
    return blocked


def _grown(visited: NDArray[np.bool_], walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Visited space and what is close to it, except behind contacts; what was visited is free in any case."""
    free = visited
    for _ in range(GROWN):
        free = free | (ndimage.binary_dilation(free) & ~walls)
    return free


def _response(velocity: Array, after: Array, action: Array) -> tuple[float, float]:
    """(a, b) of after = a velocity + b action, over the transitions that agree with it best."""
    inputs = np.stack([velocity, action], axis=1)
    slow = np.abs(velocity) < SLOW * np.abs(velocity).max()  # the fastest may have been cut off
    slow = slow if slow.mean() > 1 - KEPT else np.ones(len(velocity), dtype=bool)
    kept = slow
    for _ in range(ROUNDS):
        answer = np.linalg.lstsq(inputs[kept], after[kept], rcond=None)[0]
        off = np.where(slow, np.abs(after - inputs @ answer), np.inf)
        kept = off <= np.quantile(off[slow], KEPT)
    return float(answer[0]), float(answer[1])
