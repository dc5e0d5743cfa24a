"""Wishes of a task with three positions and two bodies: what --avoid may say, and whether a plan keeps to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from diffplan.envs import tasks
from diffplan.envs.outlines import corners, patch_of
from diffplan.envs.records import plan_of, plan_record
from diffplan.envs.render import plan_picture
from diffplan.envs.tasks import Task, find_task
from diffplan.envs.wishes import (
    AVOID_CLEARANCE,
    AVOID_WEIGHT,
    clear_of,
    feasible_for,
    marks_in,
    marks_of,
    obstacles,
    parse_place,
    parse_wishes,
    places_at,
)
from diffplan.planner.guides import Ball, Block, Box, Disc, Region, Spot, avoid, goal, region, via, workspace
from diffplan.planner.plan import Plan

AWAY = (9.0, 9.0, 9.0)


@pytest.fixture(scope="module")
def task(space) -> Task:
    return Task("arm", "no environment", "no/data-v0", space, avoid_clearance=0.02)


def straight(task: Task, *bodies: Sequence[Sequence[float]]) -> Plan:
    """A plan of one candidate: the object and the gripper each from one place to another."""
    path = np.zeros((1, 9, task.spec.width), dtype=np.float32)
    for columns, (begin, end) in zip(task.spec.body_columns, bodies, strict=False):
        path[0][:, columns] = np.linspace(begin, end, 9)
    path[0][:, task.spec.velocity_columns] = np.subtract(bodies[0][1], bodies[0][0]) / (8 * task.spec.token_seconds)
    return Plan(task.spec, path, np.array([8]), np.zeros(1), np.zeros(1), np.zeros(1))


class TestPlaces:
    def test_avoid_has_the_tasks_own_clearance(self, task, planner):
        made = parse_wishes(task, planner, avoid=["1.3,0.7,0.5,0.1", "1,0,0.4,0.2,0.1,0.3"])
        ball = avoid(1.3, 0.7, radius=0.1, z=0.5, margin=0.02)
        block = avoid(1, 0, width=0.2, height=0.1, z=0.4, depth=0.3, margin=0.02)
        assert made.describe() == (AVOID_WEIGHT * (ball + block)).describe()
        assert made.marks == (Ball(1.3, 0.7, 0.1, 0.5), Block(1, 0, 0.2, 0.1, 0.4, 0.3))
        wider = replace(task, agent_radius=0.05, avoid_clearance=0.1)
        assert "margin=0.15@" in parse_wishes(wider, planner, avoid=["1,0,0.4,0.2"]).describe()[0]

    def test_mazes_keep_to_what_was(self):
        assert find_task("maze2d").avoid_clearance == AVOID_CLEARANCE == 0.1

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("1,1,0.2", r"must be X,Y,Z,RADIUS or X,Y,Z,WIDTH,HEIGHT,DEPTH in metres, such as 1\.3,0\.7,0\.5,0\.1 or"),
            ("1,1,1,1,1", "must be X,Y,Z,RADIUS"),
            ("1,1,1,1,1,1,1", "must be X,Y,Z,RADIUS"),
            ("1,1,high,0.2", "must be X,Y,Z,RADIUS"),
            ("1,1,0.5,0", "positive sizes"),
            ("1,1,0.5,0.1,-0.1,0.2", "positive sizes"),
            ("1,1,nan,0.2", "finite numbers"),
        ],
    )
    def test_what_is_no_place_is_refused(self, task, planner, text, says):
        with pytest.raises(ValueError, match=says):
            parse_wishes(task, planner, avoid=[text])

    def test_four_numbers_are_a_box_of_the_plane_or_a_ball(self):
        assert parse_place("1,2,0.3,0.4").marks == (Box(1, 2, 0.3, 0.4),)
        assert parse_place("1,2,0.3,0.4", axes=3).marks == (Ball(1, 2, 0.4, 0.3),)

    @pytest.mark.parametrize("text", ["avoid:x=0,y=1,z=0,radius=0.2", "workspace:z_max=1", "via:x=0,y=1,z=1@300"])
    def test_z_is_refused_in_a_maze(self, planner, text):
        with pytest.raises(
            ValueError, match="needs three position columns, the task has 2: x, y; leave out what it says"
        ):
            parse_wishes(find_task("maze2d"), planner, guides=[text], keep=[(0.0, 0.0)])


class TestWhatIsCovered:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("1,0,0.5,0.2", r"avoid at 1,0,0\.5 \(radius 0\.2\)"),
            ("1,0,0.5,0.2,0.3,0.4", r"avoid at 1,0,0\.5 \(0\.2 by 0\.3 by 0\.4\)"),
        ],
    )
    def test_a_point_in_it_is_named(self, task, planner, text, words):
        with pytest.raises(ValueError, match=words + r" covers the start, goal or via 1\.05,0,0\.6; move it"):
            parse_wishes(task, planner, avoid=[text], keep=[AWAY, (1.05, 0.0, 0.6)])
        assert parse_wishes(task, planner, avoid=[text], keep=[AWAY, (1.05, 0.0, 0.9)]) is not None

    def test_the_start_of_every_body_is_a_point(self, task, planner):
        observation = np.arange(10.0) / 10
        assert places_at(task, observation) == [(0.4, 0.5, 0.6), (0.0, 0.1, 0.2)]
        with pytest.raises(ValueError, match=r"covers the start, goal or via 0,0\.1,0\.2"):
            parse_wishes(task, planner, avoid=["0,0.1,0.2,0.05"], keep=places_at(task, observation))
        assert places_at(find_task("hopper-medium"), np.zeros(11)) == []


class TestFeasible:
    PLACES = (
        Ball(0.0, 0.0, 0.2, 0.5),
        Block(0.0, 0.0, 0.3, 0.4, 0.5, 0.2),
        Disc(0.0, 0.0, 0.2),
        Box(0.0, 0.0, 0.2, 0.4),
    )
    THROUGH = ((-1.0, 0.0, 0.5), (1.0, 0.0, 0.5))
    ABOVE = ((-1.0, 0.0, 0.75), (1.0, 0.0, 0.75))
    BESIDE = ((-1.0, 1.0, 0.5), (1.0, 1.0, 0.5))

    @pytest.mark.parametrize("place", PLACES)
    def test_the_object_and_the_gripper_must_both_keep_out(self, task, place):
        through, beside = self.THROUGH, self.BESIDE
        for bodies, clear in (((through, beside), False), ((beside, through), False), ((beside, beside), True)):
            assert clear_of(task, straight(task, *bodies), 0, [place]) == clear

    @pytest.mark.parametrize("place", PLACES)
    def test_what_passes_above_is_clear_of_what_has_a_height(self, task, place):
        plan = straight(task, self.ABOVE, self.ABOVE)
        assert clear_of(task, plan, 0, [place]) == isinstance(place, (Ball, Block))
        assert not clear_of(replace(task, agent_radius=0.2), plan, 0, [place])

    def test_candidates_are_told_apart(self, task, planner):
        one, other = straight(task, self.BESIDE, self.BESIDE), straight(task, self.BESIDE, self.THROUGH)
        both = replace(
            one,
            **{
                name: np.concatenate([getattr(one, name), getattr(other, name)])
                for name in ("trajectories", "arrivals", "scores", "consistency", "implausibility")
            },
        )
        guide = parse_wishes(task, planner, avoid=["0,0,0.5,0.2"])
        assert feasible_for(task, guide)(both).tolist() == [True, False]
        assert feasible_for(task, workspace(z_max=0.1))(both).tolist() == [True, True]


class TestMarks:
    GUIDE = (
        avoid(1, 0, radius=0.4, z=0.5)
        + avoid(1, 0, width=0.1, height=0.2, z=0.5, depth=0.3)
        + via(0, 1, 0.2)
        + goal(0, 2, 0.3)
        + region(0, 3, radius=0.1, z=0.4)
        + workspace(z_max=1)
    )
    WANT = (
        Ball(1, 0, 0.4, 0.5),
        Block(1, 0, 0.1, 0.2, 0.5, 0.3),
        Spot(0, 1, 0.2),
        Spot(0, 2, 0.3),
        Region(0, 3, 0.4, 0.1),
    )

    def test_of_a_guide(self):
        assert marks_of(self.GUIDE) == self.WANT
        assert obstacles(self.GUIDE) == list(self.WANT[:2])

    def test_descriptions_are_read_back(self):
        assert marks_in(self.GUIDE.describe()) == self.WANT
        assert marks_in(["avoid:x=1,y=0,z=1e9,radius=0.1@5", "via:x=0,y=1@3"]) == (Spot(0, 1),)

    @pytest.mark.parametrize(
        ("mark", "footprint"),
        [
            (Ball(1, 2, 0.4, 9), Disc(1, 2, 0.4)),
            (Block(1, 2, 0.1, 0.2, 9, 0.3), Box(1, 2, 0.1, 0.2)),
            (Spot(1, 2, 9), Spot(1, 2)),
        ],
    )
    def test_from_above_they_are_their_footprints(self, mark, footprint):
        assert corners(mark) == corners(footprint)
        assert str(patch_of(mark)) == str(patch_of(footprint))

    def test_a_picture_can_be_drawn(self, task, space):
        plan = straight(task, TestFeasible.THROUGH, TestFeasible.ABOVE)
        assert plan_picture(task, plan, start=(0, 0, 0), goal=(1, 0, 0.5), marks=self.WANT).ndim == 3
        plane = replace(space, position=space.position[:2], velocity=space.velocity[:2], bodies=())
        flat = (Disc(1, 0, 0.4), Box(1, 0, 0.1, 0.2), Spot(0, 1), Spot(0, 2), Region(0, 3, None, 0.1))
        seen, want = (
            plan_picture(replace(task, spec=plane), replace(plan, spec=plane), start=(0, 0), goal=(1, 0), marks=marks)
            for marks in (self.WANT, flat)
        )
        np.testing.assert_array_equal(seen, want)


def test_a_plan_comes_back_with_its_bodies(task, monkeypatch):
    monkeypatch.setattr(tasks, "_TASKS", {"arm": task})
    plan = straight(task, TestFeasible.THROUGH, TestFeasible.ABOVE)
    words = {"start": [0.0] * 10, "goal": [0.0] * 3, "seed": 0, "versions": {}, "command": ""}
    again = plan_of(plan_record(task, plan, **words))
    assert again.spec == task.spec
    np.testing.assert_allclose(again.paths(), plan.paths(), atol=1e-5)
