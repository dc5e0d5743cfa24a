"""Wishes in words: what they become, and those that are refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffplan.envs.requests import Request
from diffplan.envs.rollouts import Ride
from diffplan.envs.runs import load_planner
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
    surroundings,
)
from diffplan.planner.guides import Box, Disc, SpeedLimit, Spot, avoid, effort, speed, via
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.returns import ReturnModel

START, GOAL = "-1,-1", "1,1"


@pytest.fixture(scope="module")
def task() -> Task:
    return find_task("maze2d")


@pytest.fixture(scope="module")
def bare(run_folder) -> TrajectoryPlanner:
    """The tiny run's planner, its return model taken away."""
    planner = load_planner(run_folder)[0]
    planner.register_modules(returns=None)
    return planner


@pytest.fixture(scope="module")
def judging(run_folder) -> TrajectoryPlanner:
    return load_planner(run_folder)[0]


def straight(task: Task, *ends: tuple[float, float]) -> Plan:
    """Plans along straight lines through points, one candidate each pair, at rest speeds that fit."""
    count, horizon = len(ends) // 2, 12
    paths = np.zeros((count, horizon, task.spec.width), dtype=np.float32)
    for k in range(count):
        a, b = np.array(ends[2 * k]), np.array(ends[2 * k + 1])
        paths[k][:, task.spec.position_columns] = np.linspace(a, b, horizon)
        paths[k][:, task.spec.velocity_columns] = (b - a) / ((horizon - 1) * task.spec.token_seconds)
    zeros = np.zeros(count)
    return Plan(task.spec, paths, np.full(count, horizon - 1), zeros, zeros, zeros)


COVERING = {
    "a disc on --avoid": {"avoid": ["1,1,0.3"]},
    "a box on --avoid": {"avoid": ["0.9,1,0.4,0.2"]},
    "a disc on --guide": {"guides": ["avoid:x=1,y=1.2,radius=0.25@5"]},
    "a box on --guide": {"guides": ["avoid:x=1,y=1,width=0.2,height=0.6@5"]},
    "the second of two": {"avoid": ["0,1,0.1", "1,1,0.3"]},
}


class TestWhatIsCovered:
    @pytest.mark.parametrize("words", COVERING.values(), ids=COVERING.keys())
    @pytest.mark.parametrize("what", ["goal", "start", "via"])
    def test_a_request_is_refused(self, task, bare, words, what):
        asked = {"start": START, "goal": "cell:3,3"} | {what: GOAL}
        asked["via"] = [asked.pop("via")] if "via" in asked else []
        with pytest.raises(
            ValueError, match=r"avoid at .* covers the start, goal or via 1,1 \(the agent has a radius of 0.1\); move"
        ):
            Request.parse(task, bare, **asked, **words)

    @pytest.mark.parametrize("words", COVERING.values(), ids=COVERING.keys())
    @pytest.mark.parametrize("what", ["goal", "start"])
    def test_a_ride_is_refused(self, task, bare, words, what):
        with pytest.raises(ValueError, match="covers the start, goal or via 1,1"):
            Ride.parse(task, bare, **({"start": START, "goal": "-1,1"} | {what: GOAL}), **words)

    def test_a_rides_own_goal_counts_too(self, task, bare):
        x, y = task.maze.center(task.goal_cell)
        with pytest.raises(ValueError, match="covers"):
            Ride.parse(task, bare, avoid=[f"{x},{y},0.3"])

    def test_sizes_are_said(self, task, bare):
        for words, size in (("1,1,0.3", r"radius 0\.3"), ("1,1,0.4,0.2", r"0\.4 by 0\.2")):
            with pytest.raises(ValueError, match=rf"avoid at 1,1 \({size}\)"):
                parse_wishes(task, bare, avoid=[words], keep=[(1.0, 1.0)])

    @pytest.mark.parametrize("offset", [-1e-6, 1e-6])
    @pytest.mark.parametrize("words", ["0,1,0.5", "0,1,1,0.2"])
    def test_the_edge_is_exact(self, task, bare, words, offset):
        """Half a metre and the agent's radius from the middle of a disc of half a metre, and of a box a metre wide."""
        point = (0.5 + task.agent_radius + offset, 1.0)
        if offset < 0:
            with pytest.raises(ValueError, match="covers"):
                parse_wishes(task, bare, avoid=[words], keep=[point])
        else:
            assert parse_wishes(task, bare, avoid=[words], keep=[point]) is not None

    def test_a_guide_without_weight_covers_nothing(self, task, bare):
        made = parse_wishes(task, bare, guides=["avoid:x=1,y=1,radius=0.3@0"], keep=[(1.0, 1.0)])
        assert obstacles(made) == []


class TestWhatARunOrTaskLacks:
    def test_a_run_without_a_return_model_says_how_to_add_one(self, task, bare):
        with pytest.raises(
            ValueError, match=r"'return@3' cannot be used here.*no return model.*train maze2d-umaze --only returns"
        ):
            parse_wishes(task, bare, guides=["return@3"])

    def test_returns_of_another_tasks_rewards_are_refused(self, judging):
        with pytest.raises(ValueError, match=r"trained for the rewards of maze2d-umaze, not of multi2d-umaze"):
            parse_wishes(find_task("multi2d"), judging, guides=["return"])

    def test_its_own_are_used(self, task, judging):
        made = parse_wishes(task, judging, guides=["return@0.5"])
        assert made.describe() == ("return@0.5",)
        assert isinstance(judging.returns, ReturnModel)
        assert surroundings(task, judging).returns is judging.returns

    def test_a_task_without_a_map_has_no_walls(self, task, bare):
        flat = Task("flat", "none", "me/flat-v0", task.spec)
        with pytest.raises(ValueError, match=r"'wall:margin=0.2' cannot be used here: task flat has no map of walls"):
            parse_wishes(flat, bare, guides=["wall:margin=0.2"])
        assert parse_wishes(task, bare, guides=["wall:margin=0.2"]).describe() == ("wall:margin=0.2@1",)

    def test_walls_are_the_tasks_own(self, task, bare):
        wall = parse_wishes(task, bare, guides=["wall:margin=0.25@1"])
        free, close = (
            wall.score(task.spec, torch.from_numpy(straight(task, (-1.0, y), (0.9, y)).trajectories)).item()
            for y in (1.0, 1.35)
        )
        assert free == pytest.approx(0, abs=1e-6)
        assert close < -0.1


class TestPlaces:
    def test_avoid_has_its_weight_and_keeps_the_whole_agent_out(self, task, bare):
        made = parse_wishes(task, bare, avoid=["0,1,0.2", "1,0,0.2,0.1"])
        margin = task.agent_radius + AVOID_CLEARANCE
        want = AVOID_WEIGHT * (avoid(0, 1, 0.2, margin=margin) + avoid(1, 0, width=0.2, height=0.1, margin=margin))
        assert made.describe() == want.describe()
        assert made.marks == (Disc(0, 1, 0.2), Box(1, 0, 0.2, 0.1))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("1,1", r"must be X,Y,RADIUS or X,Y,WIDTH,HEIGHT"),
            ("1,1,1,1,1", r"must be X,Y,RADIUS"),
            ("", r"avoid '' must be"),
            ("1,1,big", r"avoid '1,1,big' must be"),
            ("1,1,0", "positive sizes"),
            ("1,1,-0.2", "positive sizes"),
            ("1,1,0.2,0", "positive sizes"),
            ("1,1,-0.2,0.3", "positive sizes"),
            ("nan,1,0.2", "finite numbers"),
            ("1,inf,0.2", "finite numbers"),
            ("1,1,0.2,nan", "finite numbers"),
        ],
    )
    def test_what_is_no_place_is_refused(self, text, says):
        with pytest.raises(ValueError, match=says):
            parse_place(text)

    def test_everything_adds_up(self, task, bare):
        made = parse_wishes(task, bare, avoid=["0,1,0.2"], guides=["speed:max=3@2", "effort@0.1"])
        assert [line.partition(":")[0].partition("@")[0] for line in made.describe()] == ["speed", "effort", "avoid"]
        assert parse_wishes(task, bare) is None


class TestMarks:
    def test_of_a_guide(self):
        guide = 5.0 * avoid(1, 0, 0.4) + via(0, 1) + speed(3) + effort() + 0.0 * via(9, 9)
        assert marks_of(guide) == (Disc(1, 0, 0.4), Spot(0, 1), SpeedLimit(3))
        assert obstacles(guide) == [Disc(1, 0, 0.4)]
        assert (marks_of(None), obstacles(None)) == ((), [])

    def test_descriptions_are_read_back(self, task, bare):
        guide = parse_wishes(task, bare, avoid=["0.1234567,1,0.2", "1,0,0.2,0.1"], guides=["via:x=0,y=1@3"])
        assert marks_in(guide.describe()) == guide.marks

    def test_what_cannot_be_made_from_words_has_no_look(self):
        assert marks_in(["return@3", "wall:margin=0.2@1", "my_own_cost@1", "", "via:x=0,y=1@2"]) == (Spot(0, 1),)


class TestFeasible:
    """Along the upper corridor of the U, past places in it and beside it."""

    PLACES = ("avoid:x=0,y=1,radius=0.2", "avoid:x=0,y=1,width=0.3,height=0.2")

    @pytest.fixture
    def plans(self, task) -> Plan:
        return straight(task, (-1.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (-0.4, 1.0), (-1.0, 1.0), (-1.0, -1.0))

    @pytest.fixture
    def guide(self, task, bare) -> Callable:
        return lambda *specs: parse_wishes(task, bare, guides=list(specs))

    def test_without_a_guide_it_is_the_tasks_own(self, task, plans):
        assert feasible_for(task)(plans).tolist() == task.feasible(plans).tolist() == [True, True, False]

    @pytest.mark.parametrize("place", PLACES)
    def test_places_count_beside_walls(self, task, plans, guide, place):
        assert feasible_for(task, guide(place))(plans).tolist() == [False, True, False]

    def test_other_guides_refuse_nothing(self, task, plans, guide):
        assert feasible_for(task, guide("via:x=0,y=1@9", "speed:max=0.1"))(plans).tolist() == [True, True, False]

    @pytest.mark.parametrize("edge", [0.099, 0.101])
    @pytest.mark.parametrize("box", [False, True])
    def test_the_whole_agent_keeps_out(self, task, plans, edge, box):
        """Its centre passes the edge at a distance: its radius is a tenth of a metre."""
        place = Box(0, 1 + edge + 0.15, 0.5, 0.3) if box else Disc(0, 1 + edge + 0.2, 0.2)
        assert clear_of(task, plans, 0, [place]) == (edge > task.agent_radius)
        assert clear_of(task, plans, 0, [])

    def test_between_tokens_too(self, task):
        """Two tokens on either side of a thin box."""
        plan = straight(task, (-1.0, 1.0), (1.0, 1.0))
        gap = np.diff(plan.positions[0][:, 0])[0]
        assert gap > 0.15
        middle = float(plan.positions[0, 5, 0] + gap / 2)
        assert not clear_of(replace(task, agent_radius=0.0), plan, 0, [Box(middle, 1.0, 0.04, 0.3)])
