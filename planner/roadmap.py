"""Goals farther than any plan: stops on the way there, found in the space that the data has visited.

A window spans so many steps; a goal beyond it is reached by way of stops, each within a window's span of the one
before (subgoals on a graph of the data, as in Eysenbach et al. 2019, "Search on the Replay Buffer"; the denoiser plans
every leg).

Shape letters: V visited voxels, P positions, n points of a route.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, spatial
from scipy.sparse import csgraph

from .plan import Array, Plan, arc_length
from .plant import Plant

IN_REACH = 1.0  # of a window's span: nearer goals are planned for at once
LEG = 0.5  # of a window's span, from stop to stop: half of the training windows are shorter
SHY = 2.0  # voxels: a way this close to unvisited space counts twice its length
HALVINGS = 3  # of a leg, where no way is found
ROOM = 0.25  # of a leg, in which a stop may move to where there is most room
TREES = 256  # goals whose ways are remembered
SPECK = 0.01  # of the largest connected part: smaller ones are accidents, and lead nowhere


class Roadmap:
    """Shortest ways through visited space.

    Args:
        plant: whose data has visited it.
        span_seconds: duration of a plan, H tokens.
    """

    def __init__(self, plant: Plant, span_seconds: float) -> None:
        self.plant = plant
        self.span = plant.config.pace * span_seconds
        self._trees: OrderedDict[int, NDArray[np.int32]] = OrderedDict()

    def stops(self, start: ArrayLike, goal: ArrayLike, *, nearer: int = 0) -> list[Array]:
        """Positions (P,) on the way from a start to a goal, the goal last; only the goal where it is within reach.

        `nearer` says how often the distance from stop to stop is halved; a goal must then be as near as they are.
        """
        leg = LEG * self.span * 0.5**nearer
        reach = leg if nearer else IN_REACH * self.span
        if not leg > 0:
            return [np.asarray(goal, dtype=float)]  # the data never moved
        way = self.route(start, goal)
        gone = arc_length(way)
        room = self.plant.depth(way)[0]
        stops, at = [], 0.0
        while gone[-1] - at > reach:
            at += leg
            near = np.abs(gone - at) <= ROOM * leg
            if near.any():
                at = float(gone[np.argmax(np.where(near, room, -np.inf))])
            stops.append(np.array([np.interp(at, gone, axis) for axis in way.T]))
        return [*stops, np.asarray(goal, dtype=float)]

    def route(self, start: ArrayLike, goal: ArrayLike) -> Array:
        """Way (n, P) through the centres of visited voxels; straight where nothing visited joins the two."""
        ends = np.array([start, goal], dtype=float)
        if not len(self._places):
            return ends
        here, there = (self._nearest(end) for end in ends)
        before, chain = self._tree(there), [here]
        while chain[-1] != there and before[chain[-1]] >= 0:
            chain.append(int(before[chain[-1]]))
        return np.vstack([ends[:1], self._places[chain] if chain[-1] == there else ends[:0], ends[1:]])

    def _tree(self, goal: int) -> NDArray[np.int32]:
        """For each voxel (V,) the next one on the way to a goal; negative where there is none."""
        if goal not in self._trees:
            _, before = csgraph.dijkstra(self._graph, directed=False, indices=goal, return_predecessors=True)
            self._trees[goal] = before.astype(np.int32)
        self._trees.move_to_end(goal)
        while len(self._trees) > TREES:
            self._trees.popitem(last=False)
        return self._trees[goal]

    @cached_property
    def _cells(self) -> NDArray[np.int64]:
        return np.argwhere(self.plant.visited.cpu().numpy() > 0.5)

    @cached_property
    def _places(self) -> Array:
        """Centres (V, P) of the visited voxels."""
        return self.plant.origin.double().cpu().numpy() + (self._cells + 0.5) * self.plant.config.voxel

    @cached_property
    def _main(self) -> tuple[NDArray[np.int64], spatial.cKDTree]:
        """The voxels of every connected part that is more than a speck."""
        count, parts = csgraph.connected_components(self._graph, directed=False)
        sizes = np.bincount(parts, minlength=count)
        voxels = np.flatnonzero(sizes[parts] >= SPECK * sizes.max())
        return voxels, spatial.cKDTree(self._places[voxels])

    def _nearest(self, position: Array) -> int:
        voxels, tree = self._main
        return int(voxels[tree.query(position)[1]])

    @cached_property
    def _graph(self) -> sparse.csr_array:
        """Lengths from voxel to voxel that touch, longer where unvisited space is near."""
        shape = tuple(self.plant.visited.shape)
        number = np.full(shape, -1)
        number[tuple(self._cells.T)] = np.arange(len(self._cells))
        shy = SHY * self.plant.config.voxel
        price = 1 + shy / np.maximum(self.plant.depth(self._places)[0], shy / 4)
        rows, columns, lengths = [], [], []
        for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
            if offset <= (0,) * len(shape):
                continue  # each pair once
            other = self._cells + offset
            inside = ((other >= 0) & (other < shape)).all(axis=1)
            found = np.full(len(other), -1)
            found[inside] = number[tuple(other[inside].T)]
            joined = np.flatnonzero(found >= 0)
            rows.append(joined)
            columns.append(found[joined])
            far = float(np.linalg.norm(offset)) * self.plant.config.voxel
            lengths.append(far * (price[joined] + price[found[joined]]) / 2)
        count = len(self._cells)
        joints = np.concatenate(rows), np.concatenate(columns)
        return sparse.coo_array((np.concatenate(lengths), joints), shape=(count, count)).tocsr()


def through(
    start: Array,
    stops: Sequence[Sequence[float]],
    *,
    leg: Callable[[Array, Sequence[float]], Plan],
    between: Callable[[Array, Sequence[float], int], Sequence[Sequence[float]]],
    blocked: Callable[[Plan], bool],
) -> Plan:
    """One plan through several positions: each leg begins in the state in which the one before it arrives.

    Args:
        start: observation (O,).
        stops: positions (P,) in order.
        leg: plans from an observation (O,) to a position.
        between: positions on the way from an observation to a position, which is the last of them; nearer ones, by so
            many halvings, for legs that found no way.
        blocked: whether a leg found no way.
    """
    plan: Plan | None = None
    for stop in stops:
        here = start if plan is None else plan.arrival_state
        ahead = [(position, 0) for position in between(here, stop, 0)]
        while ahead:
            position, halved = ahead.pop(0)
            here = start if plan is None else plan.arrival_state
            made = leg(here, position)
            if blocked(made):
                tries = ((n, between(here, position, n)) for n in range(halved + 1, HALVINGS + 1))
                if (closer := next(((n, stops) for n, stops in tries if len(stops) > 1), None)) is not None:
                    ahead = [*((p, closer[0]) for p in closer[1]), *ahead]
                    continue
            plan = made if plan is None else plan.then(made)
    assert plan is not None
    return plan
