"""Pairs with something in the way, and what is said of paths through them; closed forms on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.benchmarks.guiding import NEAR, OVER, Outcome, keep_out, row, watch
from diffplan.benchmarks.scenarios import (
    APART,
    GRID,
    RADII,
    SLACK,
    Scenario,
    joined,
    make_scenarios,
    way_around,
)
from diffplan.envs.maze import MazeMap
from diffplan.envs.tasks import find_task
from diffplan.planner.guides import Disc, Spot

RADIUS = 0.1
CORRIDOR = MazeMap(("#######", "#OOOOO#", "#######"))
HALL = MazeMap(("#######", "#OOOOO#", "#OOOOO#", "#OOOOO#", "#######"))
LEFT, RIGHT = np.array([-2.0, 0.0]), np.array([2.0, 0.0])


def passable(maze: MazeMap, disc: Disc, radius: float = RADIUS) -> bool:
    return way_around(maze, disc, LEFT, RIGHT, radius=radius)


class TestJoined:
    def free(self, *rows: str) -> np.ndarray:
        return np.array([[c == "." for c in row] for row in rows])

    def test_straight_and_around(self):
        assert joined(self.free("...", "##.", "..."), (0, 0), (2, 0))
        assert joined(self.free("....."), (0, 0), (0, 4))

    def test_corners_do_not_join(self):
        assert not joined(self.free(".#", "#."), (0, 0), (1, 1))
        assert joined(self.free("..", "#."), (0, 0), (1, 1))

    def test_a_wall_parts_them(self):
        assert not joined(self.free(".#.", ".#.", ".#."), (0, 0), (2, 2))

    def test_ends_must_be_free(self):
        grid = self.free("..#")
        assert not joined(grid, (0, 0), (0, 2))
        assert not joined(grid, (0, 2), (0, 0))
        assert not joined(grid, (0, 2), (0, 2))
        assert joined(grid, (0, 1), (0, 1))

    def test_it_agrees_with_a_flood_by_hand(self):
        """Random grids, against a search with a stack."""
        rng = np.random.default_rng(0)
        answers = []
        for _ in range(60):
            free = rng.random((9, 11)) < 0.62
            a, b = (tuple(int(v) for v in rng.integers((9, 11))) for _ in range(2))
            seen, stack = set(), [a] if free[a] else []
            while stack:
                i, j = stack.pop()
                if (i, j) not in seen and 0 <= i < 9 and 0 <= j < 11 and free[i, j]:
                    seen.add((i, j))
                    stack += [(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)]
            answers.append(b in seen)
            assert joined(free, a, b) == answers[-1]
        assert 5 < sum(answers) < 55


class TestWayAround:
    def test_a_disc_that_fills_the_corridor_has_none(self):
        """A corridor of 1 m, a ball of 0.1 m with slack on both sides: beside a disc in the middle 0.5 - r is left."""
        widest = 0.5 - 2 * (RADIUS + SLACK)
        assert passable(CORRIDOR, Disc(0, 0, widest - 2 * GRID))
        assert not passable(CORRIDOR, Disc(0, 0, widest + 2 * GRID))
        assert not passable(CORRIDOR, Disc(0, 0, 0.5))

    def test_off_the_middle_there_is_more_room_on_one_side(self):
        fits = 0.5 - 2 * (RADIUS + SLACK)
        disc = Disc(0, 0.2, fits + 0.2 - 2 * GRID)
        assert passable(CORRIDOR, disc)
        assert not passable(CORRIDOR, replace(disc, y=0.0))
        assert not passable(CORRIDOR, replace(disc, radius=fits + 0.2 + 2 * GRID))

    def test_a_thinner_ball_passes(self):
        disc = Disc(0, 0, 0.25)
        assert not passable(CORRIDOR, disc)
        assert passable(CORRIDOR, disc, radius=0.02)

    def test_a_hall_leads_around_what_fills_a_corridor(self):
        assert passable(HALL, Disc(0, 0, 0.6))
        assert not passable(HALL, Disc(0, 0, 1.5))

    @pytest.mark.parametrize("end", [LEFT, RIGHT])
    def test_an_end_that_is_covered_has_none(self, end):
        assert not passable(HALL, Disc(*end, 0.1))
        assert not passable(HALL, Disc(end[0], end[1] + RADIUS + SLACK + 0.1 - GRID, 0.1))
        assert passable(HALL, Disc(end[0], end[1] + RADIUS + SLACK + 0.1 + 2 * GRID, 0.1))


class TestScenarios:
    @pytest.fixture(scope="class")
    def task(self):
        return find_task("maze2d-umaze")

    @pytest.fixture(scope="class")
    def scenes(self, task) -> list[Scenario]:
        return make_scenarios(task, 6, seed=0)

    def test_a_seed_is_a_list_and_longer_ones_begin_alike(self, task, scenes):
        assert make_scenarios(task, 2, seed=0) == scenes[:2]
        assert make_scenarios(task, 2, seed=1) != scenes[:2]
        assert len({s.seed for s in scenes}) == len(scenes)

    def test_discs_cover_neither_end(self, task, scenes):
        for s in scenes:
            for end in (s.start, s.goal):
                assert float(s.disc.clearance(torch.tensor(end, dtype=torch.float64))) > task.agent_radius
            assert RADII[0] <= s.disc.radius <= RADII[1]
            assert way_around(task.maze, s.disc, np.array(s.start), np.array(s.goal), radius=task.agent_radius)

    def test_ends_are_free_and_far_apart(self, task, scenes):
        for s in scenes:
            assert task.maze.is_free(s.start)
            assert task.maze.is_free(s.goal)
            assert len(task.maze.route(task.maze.cell(s.start), task.maze.cell(s.goal))) >= 4

    def test_vias_are_apart_and_can_be_passed(self, task, scenes):
        for s in scenes:
            others = np.array([(s.disc.x, s.disc.y), s.start, s.goal])
            assert np.hypot(*(others - (s.via.x, s.via.y)).T).min() >= APART
            assert task.maze.clearance((s.via.x, s.via.y)) + NEAR > task.agent_radius


SCENE = Scenario((-1.0, 1.0), (1.0, 1.0), Disc(0.0, 1.0, 0.2), Spot(0.5, 1.3), seed=0)


class TestWatch:
    @pytest.fixture(scope="class")
    def task(self):
        return find_task("maze2d")

    def seen(self, task, path, speeds=(1.0,), **extra) -> Outcome:
        return watch(task, SCENE, np.array(path), np.array(speeds), **({"reached": True, "steps": 7} | extra))

    @pytest.mark.parametrize(("off", "touched"), [(0.0, True), (0.299, True), (0.301, False), (-0.299, True)])
    def test_the_ball_touches_by_its_edge(self, task, off, touched):
        """A disc of 0.2 m and a ball of 0.1 m."""
        assert self.seen(task, [[-1, 1], [0, 1 + off], [9, 9]]).touched == touched

    @pytest.mark.parametrize("off", [0.0, NEAR - 1e-6, NEAR + 1e-6, 0.5])
    def test_a_via_is_passed_by_its_nearest_point(self, task, off):
        made = self.seen(task, [[-1, 1], [0.5, 1.3 + off], [3, 3]])
        assert made.via_distance == pytest.approx(off)
        assert made.passed == (off <= NEAR)

    def test_the_rest_is_taken_as_it_is(self, task):
        made = self.seen(task, [[-1, 1], [-1, 0.9]], [0.5, 2.5, 1.0], reached=False, steps=11)
        assert (made.top_speed, made.reached, made.steps) == (2.5, False, 11)


class TestRow:
    """Four made-up outcomes: all kept, touched, too fast, and passed by; the limit is 2 m/s."""

    OUTCOMES = (
        Outcome(False, True, 0.1, 2.0, True, 10),
        Outcome(True, True, 0.1, 1.0, True, 20),
        Outcome(False, False, 0.4, 2.0 * OVER + 0.01, True, 30),
        Outcome(False, True, 0.0, 2.0 * OVER - 0.01, False, 40),
    )

    def made(self, *asked: str):
        return row("wish", "plan", 8, self.OUTCOMES, [2.0] * 4, asked)

    def test_shares(self):
        made = self.made("avoid")
        assert (made.wish, made.where, made.candidates, made.pairs) == ("wish", "plan", 8, 4)
        assert (made.touched, made.slow_enough, made.passed, made.reached) == (0.25, 0.75, 0.75, 0.75)
        assert made.steps == 25

    @pytest.mark.parametrize(
        ("asked", "kept"),
        [((), 0.75), (("avoid",), 0.5), (("speed",), 0.5), (("via",), 0.5), (("avoid", "speed", "via"), 0.25)],
    )
    def test_all_kept_is_what_was_asked_and_the_goal(self, asked, kept):
        assert self.made(*asked).all_kept == kept

    def test_each_pair_has_its_own_limit(self):
        alike = [Outcome(False, True, 0.0, 1.5, True, 1)] * 3
        assert row("w", "plan", 1, alike, [1.0, 1.5, 2.0], ["speed"]).slow_enough == pytest.approx(2 / 3, abs=1e-3)
        with pytest.raises(ValueError):
            row("w", "plan", 1, alike, [1.0], ["speed"])


def test_keeping_out_is_what_the_command_line_asks():
    from diffplan.envs.wishes import AVOID_CLEARANCE, AVOID_WEIGHT, parse_wishes

    task = find_task("maze2d")

    class NoReturns:
        task, returns = "maze2d-umaze", None

    asked = parse_wishes(task, NoReturns(), avoid=["0,1,0.2"])
    assert keep_out(task, SCENE).describe() == asked.describe()
    assert f"margin={task.agent_radius + AVOID_CLEARANCE:.12g}" in asked.describe()[0]
    assert asked.describe()[0].endswith(f"@{AVOID_WEIGHT:g}")
