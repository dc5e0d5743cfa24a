"""Courses are as fast as physics allows, stay where the data has been, and can be followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffplan.planner import racing
from diffplan.planner.controllers import RacingController
from diffplan.planner.course import STRAY, Course
from diffplan.planner.plan import Plan, Reference
from diffplan.planner.racing import MARGIN, RESERVE, courses, quickest_first, smooth, top_speeds
from diffplan.planner.spec import TrajectorySpec

DT, FORCE, TOP = 0.01, 10.0, 5.0
"""Of the plants here: seconds, largest acceleration, largest velocity."""

CORNERS = {
    "a corner": [[1, 1], [4, 1], [4, 4.5]],
    "two corners": [[1, 1], [4, 1], [4, 7], [8.5, 7]],
    "a hairpin": [[1, 1], [6, 1], [6, 2.5], [1, 2.5]],
    "stairs": [[1, 1], [3, 1], [3, 3], [5, 3], [5, 5], [7, 5], [7, 7]],
}


def spec_of(axes: int = 2) -> TrajectorySpec:
    position, velocity = tuple("xyz"[:axes]), tuple(f"v{c}" for c in "xyz"[:axes])
    return TrajectorySpec(tuple(f"f{c}" for c in position), position + velocity, position, velocity, DT, 10)


def along(corners, count: int = 200) -> np.ndarray:
    """Points (count, P) evenly spaced along straight lines from corner to corner."""
    corners = np.array(corners, dtype=float)
    gone = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.linspace(0, gone[-1], count)
    return np.stack([np.interp(at, gone, c) for c in corners.T], axis=1)


def plan_of(*paths: np.ndarray, velocity=None) -> Plan:
    """A plan whose candidates lead through tokens at the given positions (n, P), begun at a velocity (P,), or rest."""
    spec = spec_of(paths[0].shape[1])
    made = np.zeros((len(paths), len(paths[0]), spec.width), np.float32)
    for path, row in zip(paths, made, strict=True):
        row[:, spec.position_columns] = path
        row[1:-1, spec.velocity_columns] = (path[2:] - path[:-2]) / (2 * spec.token_seconds)
        row[0, spec.velocity_columns] = 0 if velocity is None else velocity
    made[:, :-1, spec.arrived], made[:, -1, spec.arrived] = -1, 1
    zeros = np.zeros(len(paths))
    return Plan(spec, made, np.full(len(paths), len(paths[0]) - 1), -np.arange(len(paths)) * 1.0, zeros, zeros)


def corridor(corners, half_width: float):
    """Whether points are within a distance of the lines between corners."""
    corners = np.array(corners, dtype=float)

    def inside(points: np.ndarray) -> np.ndarray:
        near = np.full(points.shape[:-1], np.inf)
        for a, b in zip(corners, corners[1:], strict=False):
            share = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)[..., None]
            near = np.minimum(near, np.linalg.norm(points - a - share * (b - a), axis=-1))
        return near < half_width

    return inside


def length(path: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def best_seconds(distance: float, force: float, top: float, speed: float = 0.0) -> float:
    """Least time over a distance from a speed to rest: faster, perhaps steadily on, slower."""
    peak = min(np.sqrt(force * distance + speed**2 / 2), top)
    steady = distance - (2 * peak**2 - speed**2) / (2 * force)
    return (2 * peak - speed) / force + steady / peak


def push_of(course: Course) -> np.ndarray:
    """Accelerations (n - 2, P) of a course."""
    return np.diff(course.positions, n=2, axis=0) / DT**2


class Plantlike:
    """The very plant that a `Plant` describes, simulated."""

    def __init__(self, plant, position, velocity) -> None:
        self.plant, self.position, self.velocity = plant, np.array(position, float), np.array(velocity, float)
        self.axes = len(self.position)
        self.controller = RacingController(plant, tuple(range(self.axes)), tuple(range(self.axes, 2 * self.axes)))

    def follow(self, course: Course, steps: int | None = None) -> np.ndarray:
        """Positions (n, P) after each step."""
        a, b, cap = (getattr(self.plant, n).numpy() for n in ("answer", "push", "cap"))
        seen = []
        for step in range(course.steps if steps is None else steps):
            asked = course.reference(np.array([step, step + 1]))
            now, ahead = (
                Reference(*(getattr(asked, n)[i : i + 1] for n in ("observation", "position", "velocity", "action")))
                for i in range(2)
            )
            (action,) = self.controller.act(np.concatenate([self.position, self.velocity])[None], now, ahead)
            self.velocity = a * np.clip(self.velocity, -cap, cap) + b * action
            self.position = self.position + self.velocity * self.plant.config.dt_seconds
            seen.append(self.position)
        return np.array(seen)


class TestTime:
    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("distance", [0.3, 1.0, 2.0, 4.0, 8.0])
    def test_straight_from_rest_to_rest_is_bang_bang(self, make_plant, axes, distance):
        """The triangle, and beyond 2.4 units the trapezoid, along one axis."""
        goal = np.full(axes, 1.0)
        goal[0] += distance
        plant = make_plant(axes, voxel=0.25 if axes == 3 else 0.05)
        (course,) = courses(plant, [plan_of(along([np.ones(axes), goal], 20))])
        want = best_seconds(distance, RESERVE * FORCE, RESERVE * TOP)
        assert course.seconds == pytest.approx(want, rel=0.02)
        assert course.steps == int(np.ceil(course.seconds / DT))
        np.testing.assert_allclose(course.positions[[0, -1]], [np.ones(axes), goal], atol=1e-6)

    @pytest.mark.parametrize("speed", [1.0, 3.0])
    @pytest.mark.parametrize("distance", [1.5, 6.0])
    def test_a_fast_start_is_gone_on_with(self, make_plant, speed, distance):
        plan = plan_of(along([[1, 5], [1 + distance, 5]], 20), velocity=[speed, 0])
        (course,) = courses(make_plant(), [plan])
        want = best_seconds(distance, RESERVE * FORCE, RESERVE * TOP, speed)
        assert course.seconds == pytest.approx(want, rel=0.02)
        assert course.velocities[1, 0] == pytest.approx(speed, abs=2 * FORCE * DT)

    @pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 200])
    def test_the_axis_with_most_to_do_decides(self, make_plant, degrees):
        way = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        (course,) = courses(make_plant(), [plan_of(along([[5, 5], 5 + 4 * way], 20))])
        share = np.abs(way).max()
        want = best_seconds(4, RESERVE * FORCE / share, RESERVE * TOP / share)
        assert course.seconds == pytest.approx(want, rel=0.02)

    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    def test_four_times_the_force_takes_half_the_time(self, make_plant, corners):
        path = along(corners, 96)[None]
        slow, fast = (top_speeds(make_plant(push=p, cap=1e3), path, np.zeros(1)) for p in (0.1, 0.4))
        np.testing.assert_allclose(fast, 2 * slow, atol=1e-3)

    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    def test_a_faster_plant_makes_no_slower_course(self, make_plant, corners):
        inside = corridor(corners, 0.4)
        plan = plan_of(along(corners, 40))
        times = [courses(make_plant(push=p, visited=inside), [plan])[0].seconds for p in (0.02, 0.05, 0.1, 0.3)]
        assert (np.diff(times) < 0).all()
        times = [courses(make_plant(cap=c, visited=inside), [plan])[0].seconds for c in (0.5, 1, 3, 9)]
        assert (np.diff(times) < 0).all()

    def test_a_longer_way_takes_longer(self, make_plant):
        plans = [plan_of(along([[1, 5], [1 + d, 5]], 20)) for d in (0.5, 1, 2, 3, 5, 8)]
        times = [course.seconds for course in courses(make_plant(), plans)]
        assert (np.diff(times) > 0).all()

    def test_backwards_it_takes_as_long(self, make_plant):
        path = along(CORNERS["two corners"], 40)
        inside = corridor(CORNERS["two corners"], 0.4)
        there, back = courses(make_plant(visited=inside), [plan_of(path), plan_of(path[::-1])])
        assert back.seconds == pytest.approx(there.seconds, rel=0.02)

    def test_a_plant_seen_at_its_terminal_speed_arrives_all_the_same(self, make_plant):
        """Its drag takes all its force there: v' = 0.9 v + 0.1 u, seen at 1."""
        plant = make_plant(1, answer=0.9, push=0.1, cap=0.9999, dt=0.05)
        (course,) = courses(plant, [plan_of(along([[1.0], [4.0]], 20))])
        assert 3.0 < course.seconds < 3 * 3.0


class TestLimits:
    @pytest.mark.parametrize("seed", range(8))
    def test_speeds_on_random_curves(self, make_plant, seed):
        """Speed and the force for it, by axis and at every point; gently curved, so that points tell all."""
        rng, at = np.random.default_rng(seed), np.linspace(0, 1, 192)[:, None]
        waves = sum(rng.normal(0, 1.5 / k**2, 2) * np.sin(np.pi * k * at + rng.uniform(0, 6, 2)) for k in (1, 2, 3))
        path = (rng.normal(0, 3, 2) * at + waves)[None]
        plant = make_plant()
        speeds = top_speeds(plant, path, rng.uniform(0, 3, 1))
        gaps = np.linalg.norm(np.diff(path[0], axis=0), axis=1)
        way = np.diff(path[0], axis=0) / gaps[:, None]
        middle = (speeds[0, 1:] + speeds[0, :-1]) / 2
        velocity = way * middle[:, None]
        assert (np.abs(velocity) <= 1.01 * RESERVE * TOP).all()
        seconds = gaps / middle
        push = np.diff(velocity, axis=0) / ((seconds[1:] + seconds[:-1]) / 2)[:, None]
        assert np.abs(push[2:-2]).max() <= 1.2 * FORCE
        assert speeds[0, -1] < 1e-3

    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    def test_of_whole_courses(self, make_plant, corners):
        """Positions at every step, around corners too, where the bend may change from point to point."""
        plant = make_plant(visited=corridor(corners, 0.4))
        (course,) = courses(plant, [plan_of(along(corners, 40))])
        push = np.abs(push_of(course)).max(axis=1)
        assert push.max() <= 1.12 * RESERVE * FORCE
        assert np.abs(course.velocities).max() <= 1.01 * RESERVE * TOP

    def test_around_a_circle(self, make_plant):
        """An axis at right angles to the way does all the turning: v^2 <= F r there, and nowhere above sqrt 2 F r."""
        angle = np.linspace(0, 4 * np.pi, 700)
        path = 5 + 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        squared = top_speeds(make_plant(), path[None], np.zeros(1))[0] ** 2
        across = np.abs(np.sin(2 * angle)) < 0.05
        bound = RESERVE * FORCE * 0.5
        assert squared.max() <= np.sqrt(2) * bound * 1.01
        assert squared[across].max() <= bound * 1.06
        assert squared[across].max() >= bound * 0.9

    @pytest.mark.parametrize("axes", [1, 2])
    def test_where_a_way_turns_back_it_stops(self, make_plant, axes):
        path = np.concatenate([np.linspace(1, 2, 41), np.linspace(2, 1, 41)[1:]])[:, None] * np.eye(axes)[0]
        plant = make_plant(axes)
        speeds = top_speeds(plant, path[None], np.zeros(1))[0]
        assert speeds[40] < 0.6
        assert (np.abs(np.diff(speeds**2)) <= 2 * 0.025 * FORCE + 1e-6).all()
        np.testing.assert_allclose(speeds[:40], speeds[:40:-1], atol=0.5)

    def test_one_axis_that_first_has_to_stop(self, make_plant):
        """Away from the goal at 3 units a second: it needs 0.47 units to stop."""
        (course,) = courses(make_plant(1), [plan_of(along([[4.0], [3.5], [7.0]], 20), velocity=[-3.0])])
        push = np.abs(push_of(course))
        assert np.quantile(push, 0.95) < 1.05 * FORCE
        assert push.max() < 4 * FORCE  # where it turns, between two of its points
        assert course.positions[-1] == pytest.approx([7.0])


class TestSmoothing:
    REST = np.zeros((1, 2))

    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    @pytest.mark.parametrize("half_width", [0.1, 0.2, 0.4])
    def test_it_keeps_the_ends_stays_inside_and_bends_less(self, make_plant, corners, half_width):
        plant = make_plant(visited=corridor(corners, half_width))
        before = along(corners)
        (after,), _ = smooth(plant, [before], self.REST)
        np.testing.assert_allclose(after[[0, -1]], before[[0, -1]], atol=1e-9)
        assert plant.depth(after)[0].min() > (MARGIN - 0.2) * plant.config.voxel
        assert length(after) < length(before)
        turns = [np.diff(p, axis=0) / np.linalg.norm(np.diff(p, axis=0), axis=1)[:, None] for p in (before, after)]
        sharpest = [(a[1:] * a[:-1]).sum(1).min() for a in turns]
        assert sharpest[1] > max(sharpest[0], 0.8)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_a_straight_line_is_left_alone(self, make_plant, axes):
        plant = make_plant(axes, voxel=0.25 if axes == 3 else 0.05)
        line = along([np.full(axes, 2.0), np.linspace(5, 8, axes)], 77)
        (after,), _ = smooth(plant, [line], np.zeros((1, axes)))
        np.testing.assert_allclose(after, along(line[[0, -1]], len(after)), atol=1e-6)

    @pytest.mark.parametrize(("waves", "left"), [(2, 0.3), (5, 0.05), (9, 0.01)])
    def test_a_detour_is_left_out(self, make_plant, waves, left):
        """All of a quick one; a slow one costs next to nothing."""
        at = np.linspace(0, 1, 200)
        wiggle = np.stack([1 + 8 * at, 5 + 0.3 * np.sin(np.pi * waves * at)], axis=1)
        (after,), _ = smooth(make_plant(), [wiggle], self.REST)
        assert np.abs(after[:, 1] - 5).max() < left
        (course,) = courses(make_plant(), [plan_of(wiggle[::5])])
        assert course.seconds < 1.01 * best_seconds(8, RESERVE * FORCE, RESERVE * TOP)

    @pytest.mark.parametrize("degrees", [0, 45, 90, 150])
    def test_the_heading_of_a_fast_start_is_kept(self, make_plant, degrees):
        way = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        line = along([[5, 5], [9, 5]])
        (after,), _ = smooth(make_plant(), [line], 4 * way[None])
        first = np.diff(after[:2], axis=0)[0]
        assert (first / np.linalg.norm(first)) @ way > np.cos(np.radians(15))
        np.testing.assert_allclose(after[[0, -1]], line[[0, -1]], atol=1e-9)

    def test_a_slow_start_heads_where_it_likes(self, make_plant):
        line = along([[2, 5], [9, 5]])
        (after,), _ = smooth(make_plant(), [line], np.array([[0.0, 0.1]]))
        np.testing.assert_allclose(after[:, 1], 5, atol=1e-6)

    def test_without_bending_points_are_only_spaced_evenly(self, make_plant):
        path = along(CORNERS["stairs"], 600) + np.array([0.5, 0.2])
        (after,), _ = smooth(make_plant(visited=lambda c: c[..., 0] > 9), [path[::7]], 4 * self.REST, bending=())
        np.testing.assert_allclose(after[[0, -1]], path[::7][[0, -1]])
        assert max(np.linalg.norm(path - point, axis=1).min() for point in after) < 0.04
        gaps = np.linalg.norm(np.diff(after, axis=0), axis=1)
        assert gaps.max() < 1.5 * gaps.min()

    def test_points_know_where_they_came_from(self, make_plant):
        """Tokens that are four times as dense in the second half: half the way is a fifth of the points."""
        path = np.vstack([along([[1, 5], [5, 5]], 11), along([[5, 5], [9, 5]], 41)[1:]])
        (after,), (share,) = smooth(make_plant(), [path], self.REST)
        assert (np.diff(share) > 0).all()
        assert share[[0, -1]] == pytest.approx([0, 1])
        np.testing.assert_allclose(np.interp(share, np.linspace(0, 1, 51), path[:, 0]), after[:, 0], atol=1e-4)

    def test_a_start_outside_visited_space_stays_where_it_is(self, make_plant):
        plant = make_plant(visited=lambda c: c[..., 0] > 3)
        (after,), _ = smooth(plant, [along([[2.5, 5], [8, 5]])], self.REST)
        np.testing.assert_allclose(after[0], [2.5, 5])
        assert plant.depth(after)[0][-30:].min() > 0

    def test_paths_of_a_batch_are_those_of_each_alone(self, make_plant):
        """To rounding among paths of up to 3.7 units, which all have as many points."""
        ends = np.random.default_rng(0).uniform(4, 6, (6, 2))
        paths = [along([[5, 5], e, [5.5, 4.6]], 30 + i) for i, e in enumerate(ends)]
        headings = np.random.default_rng(1).normal(0, 2, (6, 2))
        plant = make_plant()
        together, shares = smooth(plant, paths, headings)
        for i, path in enumerate(paths):
            alone, share = smooth(plant, [path], headings[i : i + 1])
            np.testing.assert_allclose(together[i], alone[0], atol=1e-9)
            np.testing.assert_allclose(shares[i], share[0], atol=1e-12)

    def test_beside_a_longer_one_a_path_has_more_points_and_is_about_the_same(self, make_plant):
        corners = CORNERS["a corner"]
        plant = make_plant(visited=lambda c: corridor(corners, 0.4)(c) | (c[..., 1] > 8))
        short, long = plan_of(along(corners, 40)), plan_of(along([[1, 9], [9, 9], [1, 9.2], [9, 9.4]], 40))
        (alone,), (beside, _) = courses(plant, [short]), courses(plant, [short, long])
        assert beside.seconds == pytest.approx(alone.seconds, rel=0.05)


class TestDegeneratePaths:
    def test_a_point_seen_twice_changes_nothing(self, make_plant):
        path = along(CORNERS["a corner"], 60)
        (once, often), _ = smooth(make_plant(), [path, np.repeat(path, 3, axis=0)], np.zeros((2, 2)))
        np.testing.assert_allclose(often, once, atol=1e-6)

    def test_two_points_are_a_line(self, make_plant):
        (after,), _ = smooth(make_plant(), [np.array([[1.0, 1], [4, 5]])], np.zeros((1, 2)))
        np.testing.assert_allclose(after, along([[1, 1], [4, 5]], len(after)), atol=1e-9)

    @pytest.mark.parametrize("axes", [1, 2, 3])
    @pytest.mark.parametrize("tokens", [2, 9])
    @pytest.mark.parametrize("speed", [0.0, 2.0])
    def test_standing_still(self, make_plant, axes, tokens, speed):
        plan = plan_of(np.full((tokens, axes), 5.0), velocity=[speed] * axes)
        if tokens == 9:
            plan = replace(plan, arrivals=np.zeros(1, np.int64))
        (course,) = courses(make_plant(axes, voxel=0.25), [plan])
        asked = course.reference(np.arange(5))
        for values in (course.positions, course.velocities, course.plan_steps, *vars(asked).values()):
            assert np.isfinite(values).all()
        assert course.seconds < 0.1 + 2 * speed / FORCE
        np.testing.assert_allclose(asked.position, 5, atol=0.05 + 0.3 * speed)
        np.testing.assert_allclose(asked.position[-1], 5, atol=0.05 + 0.3 * speed)

    def test_a_goal_a_hair_away(self, make_plant):
        (course,) = courses(make_plant(), [plan_of(along([[5, 5], [5, 5.0001]], 9))])
        assert course.seconds < 0.1
        np.testing.assert_allclose(course.positions[-1], [5, 5.0001], atol=1e-6)


class TestCourses:
    @pytest.fixture
    def course(self, make_plant) -> Course:
        corners = CORNERS["two corners"]
        return courses(make_plant(visited=corridor(corners, 0.4)), [plan_of(along(corners, 40))])[0]

    def test_velocities_lead_to_the_positions(self, course):
        moved = course.positions[:-1] + DT * course.velocities[1:]
        np.testing.assert_allclose(moved, course.positions[1:], atol=1e-12)

    def test_it_asks_for_itself(self, course):
        asked = course.reference(np.arange(course.steps + 1))
        np.testing.assert_array_equal(asked.position, course.positions)
        np.testing.assert_array_equal(asked.velocity, course.velocities)
        spec = course.plan.spec
        np.testing.assert_array_equal(asked.observation[:, spec.position_indices], course.positions)
        np.testing.assert_array_equal(asked.observation[:, spec.velocity_indices], course.velocities)

    def test_past_its_end_it_rests_at_the_goal(self, course):
        asked = course.reference(course.steps + np.array([1, 2, 50, 10_000]))
        np.testing.assert_allclose(asked.position, np.tile(course.plan.positions[0, -1], (4, 1)), atol=1e-6)
        np.testing.assert_array_equal(asked.velocity, 0)
        assert np.linalg.norm(course.velocities[-1]) < 0.2

    def test_a_plan_grows_old_as_its_course_is_followed(self, course):
        ages = np.array([course.plan_age(step) for step in range(course.steps + 50)])
        assert ages[0] == 0
        assert (np.diff(ages) >= 0).all()
        assert ages[course.steps :] == pytest.approx(course.plan.steps)

    def test_plan_and_course_are_in_the_same_place_at_those_ages(self, make_plant):
        """On a straight line nothing is bent: only the pace differs."""
        (course,) = courses(make_plant(), [plan_of(along([[1, 5], [9, 5]], 40))])
        own = course.plan.reference(course.plan_steps).position
        np.testing.assert_allclose(own, course.positions, atol=0.05)

    def test_a_slowed_plan_makes_the_same_course(self, course, make_plant):
        corners = CORNERS["two corners"]
        slow = replace(course.plan, tempo=0.5)
        (again,) = courses(make_plant(visited=corridor(corners, 0.4)), [slow])
        assert again.seconds == pytest.approx(course.seconds, rel=0.01)
        assert again.plan_age(again.steps) == pytest.approx(2 * course.plan.steps)

    def test_not_bent_it_takes_longer_and_goes_where_the_plan_goes(self, course, make_plant):
        (straight,) = courses(make_plant(), [course.plan], bent=False)
        line = along(CORNERS["two corners"], 2000)
        off = [max(np.linalg.norm(line - p, axis=1).min() for p in c.positions) for c in (straight, course)]
        assert off[0] < 0.1 < off[1]
        assert straight.seconds > 1.2 * course.seconds

    def test_inside_it_does_not_stray(self, course):
        assert course.stray == 0


class TestTheQuickest:
    WALL = staticmethod(lambda c: (np.abs(c[..., 0] - 5) > 0.5) | (c[..., 1] > 8))
    """A wall of width 1 from the bottom to y = 8."""

    THROUGH = along([[2, 2], [8, 2]], 40)
    AROUND = along([[2, 2], [2, 9], [8, 9], [8, 2]], 40)
    FAR_AROUND = along([[2, 2], [2, 9], [8, 9], [2, 9.4], [8, 9.7], [8, 2]], 40)

    def test_a_way_through_unvisited_space_strays(self, make_plant):
        plant = make_plant(visited=self.WALL)
        through, around = courses(plant, [plan_of(self.THROUGH), plan_of(self.AROUND)])
        assert around.stray < 0.01
        assert through.stray > STRAY * plant.config.voxel
        assert through.seconds < around.seconds

    @pytest.mark.parametrize("thickness", [0.3, 0.5, 1.0, 3.0])
    def test_no_wall_is_jumped(self, make_plant, thickness):
        plant = make_plant(visited=lambda c: np.abs(c[..., 0] - 5) > thickness / 2)
        (course,) = courses(plant, [plan_of(self.THROUGH)])
        assert course.stray > STRAY * plant.config.voxel

    def test_blocked_candidates_come_last_and_others_by_time(self, make_plant):
        plan = plan_of(self.THROUGH, self.FAR_AROUND, self.AROUND)
        (ranked,) = quickest_first(make_plant(visited=self.WALL), [plan])
        np.testing.assert_array_equal(ranked.trajectories, plan.trajectories[[2, 1, 0]])
        assert (np.diff(ranked.scores) < 0).all()
        (free,) = quickest_first(make_plant(), [plan])
        np.testing.assert_array_equal(free.trajectories[0], plan.trajectories[0])

    def test_scores_are_the_seconds(self, make_plant):
        plant, plan = make_plant(), plan_of(self.AROUND, self.THROUGH)
        (ranked,) = quickest_first(plant, [plan])
        own = courses(plant, [plan.candidate(1), plan.candidate(0)])
        np.testing.assert_allclose(ranked.scores, [-c.seconds for c in own])

    def test_each_plan_is_ranked_by_itself(self, make_plant):
        plant = make_plant(visited=self.WALL)
        plans = [plan_of(self.THROUGH, self.AROUND), plan_of(self.AROUND, self.THROUGH, self.FAR_AROUND)]
        ranked = quickest_first(plant, plans)
        assert [len(plan.trajectories) for plan in ranked] == [2, 3]
        for plan in ranked:
            np.testing.assert_allclose(plan.positions[0], self.AROUND, atol=1e-5)


class TestFollowing:
    @pytest.mark.parametrize("answer", [1.0, 0.998, 0.99])
    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    @pytest.mark.parametrize(("reserve", "off"), [(RESERVE, 1e-2), (0.95, 2e-4)])
    def test_the_plant_itself_stays_on_course(self, make_plant, monkeypatch, answer, corners, reserve, off):
        """Closely where a twentieth of the force is left for it; units are metres."""
        monkeypatch.setattr(racing, "RESERVE", reserve)
        plant = make_plant(answer=answer, visited=corridor(corners, 0.4))
        (course,) = courses(plant, [plan_of(along(corners, 40))])
        seen = Plantlike(plant, corners[0], [0, 0]).follow(course)
        assert np.linalg.norm(seen - course.positions[1:], axis=1).max() < off

    def test_it_stays_at_the_goal(self, make_plant):
        (course,) = courses(make_plant(), [plan_of(along([[1, 5], [6, 5]], 20))])
        seen = Plantlike(make_plant(), [1, 5], [0, 0]).follow(course, course.steps + 100)
        np.testing.assert_allclose(seen[course.steps + 20 :], np.tile([6.0, 5.0], (80, 1)), atol=1e-3)

    @pytest.mark.parametrize("axes", [1, 3])
    def test_on_one_axis_and_on_three(self, make_plant, axes):
        plant = make_plant(axes, answer=0.99, voxel=0.25)
        (course,) = courses(plant, [plan_of(along([np.full(axes, 2.0), np.linspace(5, 8, axes)], 20))])
        seen = Plantlike(plant, np.full(axes, 2.0), np.zeros(axes)).follow(course)
        assert np.linalg.norm(seen - course.positions[1:], axis=1).max() < 1e-3

    def test_a_push_aside_is_made_good(self, make_plant):
        plant = make_plant(answer=0.99)
        (course,) = courses(plant, [plan_of(along([[1, 5], [8, 5]], 20))])
        seen = Plantlike(plant, [1.0, 5.1], [0, 0]).follow(course)
        off = np.abs(seen[:, 1] - 5)
        assert off[-1] < 1e-3
        assert off.max() <= 0.11

    def test_environments_side_by_side_are_each_driven_alone(self, make_plant):
        rng = np.random.default_rng(0)
        controller = RacingController(make_plant(), (2, 0), (3, 1))
        observations = rng.normal(size=(5, 4))
        now, ahead = (Reference(*(rng.normal(size=(5, n)) for n in (4, 2, 2, 2))) for _ in range(2))
        together = controller.act(observations, now, ahead)
        for i in range(5):
            own = [Reference(*(v[i : i + 1] for v in vars(r).values())) for r in (now, ahead)]
            np.testing.assert_array_equal(controller.act(observations[i : i + 1], *own)[0], together[i])
        want = ahead.velocity + 0.3 * (now.position - observations[:, [2, 0]]) / DT
        np.testing.assert_allclose(together, np.clip((want - observations[:, [3, 1]]) / 0.1, -1, 1), rtol=1e-5)

    @pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS.keys())
    def test_where_actions_set_velocities(self, make_plant, corners):
        """Positions are all that is observed; each action is a velocity, no faster than actions can make it."""
        plant = make_plant(answer=0.0, push=TOP, cap=TOP, visited=corridor(corners, 0.4))
        both = plan_of(along(corners, 40))
        spec = replace(both.spec, observation_names=both.spec.position, velocity=())
        plan = replace(both, spec=spec, trajectories=both.trajectories[..., [0, 1, 2, 3, -1]])
        (course,) = courses(plant, [plan])
        controller = RacingController(plant, (0, 1), ())
        position, seen = np.array(corners[0], float), []
        for step in range(course.steps):
            now, ahead = (course.reference(np.array([s])) for s in (step, step + 1))
            (action,) = controller.act(position[None], now, ahead)
            assert np.abs(action).max() <= 1
            position = position + TOP * action * DT
            seen.append(position)
        np.testing.assert_allclose(seen, course.positions[1:], atol=1e-6)
        assert course.stray == 0
