import itertools

import numpy as np
import pytest
import torch

from diffplan.envs.maze import LARGE, MAZES, UMAZE, MazeMap, WaypointController

OGBENCH_GIANT = [  # as its ogbench/locomaze/maze.py has it
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1],
    [1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1],
    [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
    [1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1],
    [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1],
    [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 1],
    [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
    [1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1],
    [1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1],
    [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
]
ALL = pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES.keys())


@ALL
def test_maps_and_coordinates_are_gymnasium_robotics(maze):
    from gymnasium_robotics.envs.maze import maps
    from gymnasium_robotics.envs.maze.maze_v4 import Maze

    theirs = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE, "giant": OGBENCH_GIANT}
    name = next(k for k, v in MAZES.items() if v == maze)
    assert maze.gymnasium_map == theirs[name]
    reference = Maze(theirs[name], maze_size_scaling=1.0, maze_height=0.4)
    for cell in itertools.product(*(range(n) for n in maze.walls.shape)):
        np.testing.assert_allclose(maze.center(cell), reference.cell_rowcol_to_xy(np.array(cell)))


@ALL
def test_cell_and_center_are_inverse(maze):
    for cell in itertools.product(*(range(n) for n in maze.walls.shape)):
        assert maze.cell(maze.center(cell)) == cell


def test_clearance_in_closed_form():
    corridor = MazeMap(("#####", "#OOO#", "#####"))
    assert corridor.clearance([0.0, 0.0]) == pytest.approx(0.5)
    assert corridor.clearance([0.0, 0.3]) == pytest.approx(0.2)
    assert corridor.clearance([1.4, 0.0]) == pytest.approx(0.1)
    assert corridor.clearance([[0.0, 0.6], [9.0, 0.0]]).tolist() == [0.0, 0.0]
    corner = UMAZE.clearance(UMAZE.center((2, 3)) + [-0.5 + 0.3, 0.5 + 0.4])
    assert corner == pytest.approx(0.5)  # a 3-4-5 triangle to the wall's corner


def test_touching_a_wall():
    a, b, c = UMAZE.center((1, 1)), UMAZE.center((1, 3)), UMAZE.center((3, 1))
    assert not UMAZE.touches_wall([a, b])
    assert UMAZE.touches_wall([a, c])  # straight through the middle wall, though both ends are free
    assert UMAZE.touches_wall([a, a + [0, 0.45]])


@ALL
def test_nearest_free_point_is_free_and_nearest(maze):
    rng = np.random.default_rng(0)
    left, right, bottom, top = maze.extent
    grid = np.stack(np.meshgrid(np.arange(left, right, 0.05), np.arange(bottom, top, 0.05)), -1).reshape(-1, 2)
    free = grid[maze.clearance(grid) >= 0.1]
    for point in rng.uniform([left - 1, bottom - 1], [right + 1, top + 1], (40, 2)):
        near = maze.nearest_free(point)
        assert maze.is_free(near)
        assert np.linalg.norm(near - point) <= np.linalg.norm(free - point, axis=1).min() + 0.03
    for cell in maze.free_cells:
        np.testing.assert_allclose(maze.nearest_free(maze.center(cell)), maze.center(cell))


@ALL
def test_routes_are_connected_and_as_long_as_an_all_pairs_reference(maze):
    cells = maze.free_cells
    index = {c: i for i, c in enumerate(cells)}
    distance = np.full((len(cells), len(cells)), np.inf)
    np.fill_diagonal(distance, 0)
    for (i, j), k in index.items():
        for other in ((i + 1, j), (i, j + 1)):
            if other in index:
                distance[k, index[other]] = distance[index[other], k] = 1
    for k in range(len(cells)):  # Floyd and Warshall
        distance = np.minimum(distance, distance[:, k : k + 1] + distance[k : k + 1])
    for a, b in itertools.product(cells[::3], cells[::4]):
        way = maze.route(a, b)
        assert (way[0], way[-1]) == (a, b) and set(way) <= set(cells)
        assert all(abs(p[0] - q[0]) + abs(p[1] - q[1]) == 1 for p, q in itertools.pairwise(way))
        assert len(way) - 1 == distance[index[a], index[b]]


def test_routes_to_walls_and_islands_are_refused():
    with pytest.raises(ValueError, match="wall"):
        UMAZE.route((0, 0), (1, 1))
    with pytest.raises(ValueError, match="no way leads"):
        MazeMap(("#####", "#O#O#", "#####")).route((1, 1), (1, 3))
    with pytest.raises(ValueError, match="one length"):
        MazeMap(("###", "#O"))


def test_controller_is_the_stated_law_and_follows_the_route():
    controller = WaypointController(LARGE)
    start, goal = LARGE.center((1, 1)), LARGE.center((3, 1))
    controller.aim(start, goal)
    state = np.array([*start, 0.02, -0.01])
    np.testing.assert_allclose(controller.act(state), np.clip(10 * (LARGE.center((2, 1)) - start) - state[2:], -1, 1))
    state[:2] = LARGE.center((2, 1))  # a waypoint that is reached makes way for the next
    np.testing.assert_allclose(controller.act(state), np.clip(10 * (goal - state[:2]) - state[2:], -1, 1))


def points_in(maze, count: int = 4000, seed: int = 0) -> np.ndarray:
    left, right, bottom, top = maze.extent
    return np.random.default_rng(seed).uniform((left, bottom), (right, top), (count, 2))


def in_wall(maze, points) -> np.ndarray:
    return np.array([maze.walls[maze.cell(p)] for p in points])


@ALL
class TestSignedClearance:
    def test_outside_walls_it_is_clearance(self, maze):
        points = points_in(maze)
        free = points[~in_wall(maze, points)]
        signed = maze.signed_clearance(torch.from_numpy(free)).numpy()
        np.testing.assert_allclose(signed, maze.clearance(free), atol=2e-6)
        assert signed.max() > 0.4

    def test_inside_walls_it_is_negative_but_where_two_wall_cells_meet(self, maze):
        points = points_in(maze)
        off = np.abs(points - [maze.center(maze.cell(p)) for p in points]).max(axis=1)
        inner = points[in_wall(maze, points) & (off < 0.499)]
        signed = maze.signed_clearance(torch.from_numpy(inner)).numpy()
        assert (signed < -5e-4).all()

    def test_inside_a_thick_wall_it_is_the_depth_to_free_space(self, maze):
        points = points_in(maze, 1000)
        points = points[in_wall(maze, points)]
        centers = np.array([maze.center(c) for c in maze.free_cells])
        depth = np.linalg.norm(np.maximum(np.abs(points[:, None] - centers) - 0.5, 0), axis=-1).min(1)
        signed = maze.signed_clearance(torch.from_numpy(points)).numpy()
        assert (signed <= -0.5 * depth + 1e-4).all()

    def test_a_lone_wall_is_as_deep_as_its_nearest_side_is_far(self, maze):
        """Away from other walls: a free cell made a pillar."""
        row, column = maze.walls.shape[0] + 2, maze.walls.shape[1] + 2
        rows = ["O" * column] * row
        rows[3] = "OOO#" + "O" * (column - 4)
        lone = MazeMap(tuple(rows), maze.cell_metres)
        middle = lone.center((3, 3))
        offsets = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2))
        signed = lone.signed_clearance(torch.from_numpy(middle + offsets)).numpy()
        np.testing.assert_allclose(signed, np.abs(offsets).max(axis=1) - 0.5, atol=2e-6)

    def test_its_gradient_points_away_from_the_wall(self, maze):
        """Of length 1, from the nearest point of the nearest wall, in free space."""
        points = points_in(maze, 1000)
        points = points[(~in_wall(maze, points)) & (maze.clearance(points) > 0.01)]
        place = torch.from_numpy(points).requires_grad_(True)
        (gradient,) = torch.autograd.grad(maze.signed_clearance(place).sum(), place)
        centers = np.array([maze.center((int(i), int(j))) for i, j in np.argwhere(maze.walls)])
        touch = np.clip(points[:, None], centers - 0.5, centers + 0.5)  # each wall's nearest point
        gaps = np.linalg.norm(points[:, None] - touch, axis=-1)
        single = np.sort(gaps, axis=1)[:, 1] - gaps.min(1) > 1e-3  # one wall is nearest
        index = np.arange(len(points))
        away = (points - touch[index, gaps.argmin(1)]) / gaps.min(1)[:, None]
        np.testing.assert_allclose(gradient.numpy()[single], away[single], atol=1e-4)
        assert single.sum() > 50

    def test_one_step_along_it_leads_out_of_a_shallow_wall(self, maze):
        """From a tenth of a metre inside, where free space is next door."""
        for i, j in maze.free_cells:
            for side in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                if maze.walls[i - side[1], j + side[0]]:
                    inside = maze.center((i, j)) + 0.6 * np.array(side)
                    place = torch.from_numpy(inside).requires_grad_(True)
                    signed = maze.signed_clearance(place)
                    (gradient,) = torch.autograd.grad(signed, place)
                    assert signed.item() == pytest.approx(-0.1, abs=1e-5)
                    np.testing.assert_allclose(gradient.numpy(), -np.array(side, dtype=float), atol=1e-6)


def follow(controller, start, steps: int = 2000):
    """Waypoints that a massless agent standing on each in turn is sent to."""
    state, seen = np.array([*start, 0.0, 0.0]), []
    for _ in range(steps):
        controller.act(state)
        seen.append(controller._waypoints[0])
        if controller.last_leg:
            return seen
        state[:2] = controller._waypoints[0]
    raise AssertionError("the route does not end")


class TestAimingByWayOfACell:
    def test_the_route_leads_there_and_on(self):
        controller, by = WaypointController(LARGE), (7, 9)
        start, goal = LARGE.center((1, 1)), LARGE.center((3, 1))
        controller.aim(start, goal, by=by)
        cells = [LARGE.cell(w) for w in follow(controller, start)]
        want = LARGE.route((1, 1), by)[1:] + LARGE.route(by, (3, 1))[1:]
        assert cells[-1] == (3, 1) and by in cells
        assert [c for c in want if c in cells] == want

    def test_the_last_leg_is_the_one_to_the_goal(self):
        controller = WaypointController(UMAZE)
        controller.aim(UMAZE.center((1, 1)), UMAZE.center((1, 3)))
        assert not controller.last_leg
        controller.act(np.array([*UMAZE.center((1, 2)), 0, 0]))
        assert controller.last_leg
        controller.aim(UMAZE.center((1, 1)), UMAZE.center((1, 2)))
        assert controller.last_leg

    def test_no_cell_is_the_shortest_way(self):
        controller = WaypointController(LARGE)
        controller.aim(LARGE.center((1, 1)), LARGE.center((7, 9)))
        cells = [LARGE.cell(w) for w in controller._waypoints]
        assert cells == LARGE.route((1, 1), (7, 9))[1:]
