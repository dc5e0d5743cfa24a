import itertools

import numpy as np
import pytest

from diffplan.envs.maze import LARGE, MAZES, UMAZE, MazeMap, WaypointController

ALL = pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES.keys())


@ALL
def test_maps_and_coordinates_are_gymnasium_robotics(maze):
    from gymnasium_robotics.envs.maze import maps
    from gymnasium_robotics.envs.maze.maze_v4 import Maze

    theirs = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}
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
