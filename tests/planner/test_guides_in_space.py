"""Guides about places where a task has three positions and more than one body, against closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from diffplan.planner.episodes import Episodes
from diffplan.planner.guides import (
    Ball,
    Block,
    Box,
    Disc,
    Guide,
    Region,
    Sight,
    Spot,
    avoid,
    goal,
    region,
    speed,
    via,
    workspace,
)
from diffplan.planner.guides.places import POINTS_PER_TOKEN, way, ways
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan
from diffplan.planner.sampling import CleanPredictor
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.unet import TemporalUNet

FAR = 50.0  # metres, where a body is in nobody's way
IN_SPACE = {
    "ball": avoid(0.3, -0.2, radius=1.5, z=0.4, margin=0.1),
    "block": avoid(0.3, -0.2, width=3.0, height=2.0, z=0.4, depth=2.5),
    "column": avoid(0.3, -0.2, radius=1.5),
    "goal": goal(1.0, 2.0, 0.5),
    "region": region(2.0, 2.0, radius=0.5, z=1.0),
    "via": via(1.0, -1.0, 0.5),
    "speed": speed(0.5),
    "workspace": workspace(x_min=-0.5, z_min=-0.2, z_max=0.3),
}


def resting(spec: TrajectorySpec, position, grip=(FAR, FAR, FAR), tokens: int = 5) -> Tensor:
    """One path on which the object and the gripper rest."""
    path = torch.zeros(1, tokens, spec.width, dtype=torch.float64)
    for columns, place in zip(spec.body_columns, (position, grip), strict=False):
        path[0, :, columns] = torch.tensor(place, dtype=torch.float64)
    return path


def random_paths(spec: TrajectorySpec, generator: torch.Generator, count: int = 3, tokens: int = 6) -> Tensor:
    return torch.randn(count, tokens, spec.width, generator=generator, dtype=torch.float64)


def shares(tokens: int = 5) -> float:
    """What all points of a path count, in tokens."""
    return ((tokens - 1) * POINTS_PER_TOKEN + 1) / POINTS_PER_TOKEN


class TestClearances:
    def test_ball_is_the_distance_from_its_centre_less_the_radius(self, generator):
        points = torch.randn(50, 3, generator=generator, dtype=torch.float64)
        want = (points - torch.tensor([0.5, -1.0, 0.3])).norm(dim=-1) - 0.7
        torch.testing.assert_close(Ball(0.5, -1.0, 0.7, 0.3).clearance(points), want, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("point", "distance"),
        [
            ((0.0, 0.0, 0.0), -1.0),
            ((1.5, 0.0, 0.0), -0.5),
            ((0.0, 0.75, 1.0), -0.25),
            ((0.0, 0.0, 2.9), -0.1),
            ((2.0, 0.3, 1.0), 0.0),
            ((0.0, 0.0, 5.0), 2.0),
            ((0.0, -4.0, 7.0), 5.0),
            ((5.0, 5.0, 15.0), 13.0),
            ((-5.0, -5.0, -15.0), 13.0),
        ],
    )
    def test_block_closed_form(self, point, distance):
        """A block of 4 by 2 by 6 about (10, 20, 30): centre, sides, an edge, and corners 3, 4 and 12 metres away."""
        block, center = Block(10.0, 20.0, 4.0, 2.0, 30.0, 6.0), torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
        assert block.clearance(center + torch.tensor(point)).item() == pytest.approx(distance, abs=2e-6)

    def test_slopes_have_the_length_of_one(self, generator):
        """Signed distances, wherever they are smooth."""
        points = (4 * torch.rand(200, 3, generator=generator, dtype=torch.float64) - 2).requires_grad_(True)
        for place in (Ball(0.1, 0.2, 0.8, 0.3), Block(0.1, 0.2, 1.5, 0.8, 0.3, 2.0)):
            (slope,) = torch.autograd.grad(place.clearance(points).sum(), points)
            torch.testing.assert_close(slope.norm(dim=-1), torch.ones(200).double(), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("order", itertools.permutations(range(3)))
    def test_axes_are_alike(self, order, generator):
        points = torch.randn(40, 3, generator=generator, dtype=torch.float64)
        center, sides = (0.1, -0.2, 0.3), (0.5, 1.5, 1.0)
        (x, y, z), (width, height, depth) = ([v[i] for i in order] for v in (center, sides))
        turned = points[:, list(order)]
        ball, block = Ball(*center[:2], 0.8, center[2]), Block(*center[:2], *sides[:2], center[2], sides[2])
        torch.testing.assert_close(Ball(x, y, 0.8, z).clearance(turned), ball.clearance(points))
        torch.testing.assert_close(Block(x, y, width, height, z, depth).clearance(turned), block.clearance(points))

    def test_columns_reach_however_high(self, generator):
        points = torch.randn(40, 3, generator=generator, dtype=torch.float64)
        for place in (Disc(0.1, 0.2, 0.5), Box(0.1, 0.2, 0.5, 0.7)):
            assert torch.equal(place.clearance(points), place.clearance(points[:, :2]))
        tall = Block(0.1, 0.2, 0.5, 0.7, 0.0, 1e3)
        torch.testing.assert_close(tall.clearance(points), Box(0.1, 0.2, 0.5, 0.7).clearance(points))

    def test_it_is_a_kind_of_its_footprint_and_not_the_same(self):
        assert isinstance(Ball(1, 2, 3, 4), Disc)
        assert isinstance(Block(1, 2, 3, 4, 5, 6), Box)
        assert Ball(1, 2, 3, 0) != Disc(1, 2, 3)


class TestTheWays:
    def test_the_positions_is_the_first_and_bodies_go_straight(self, space, generator):
        path = random_paths(space, generator)
        object_way, grip_way = ways(space, path).unbind(1)
        assert torch.equal(object_way, way(space, path))
        grip = path[..., space.columns(*space.bodies[0])]
        torch.testing.assert_close(grip_way[:, ::POINTS_PER_TOKEN], grip)
        torch.testing.assert_close(grip_way[:, 2::POINTS_PER_TOKEN], (grip[:, 1:] + grip[:, :-1]) / 2)

    def test_they_are_where_the_plan_says(self, space, generator):
        path = random_paths(space, generator, tokens=5)
        path[..., space.arrived] = -1.0
        zeros = np.zeros(3)
        spec = replace(space, stride=POINTS_PER_TOKEN)
        plan = Plan(spec, path.numpy(), np.full(3, 4), zeros, zeros, zeros)
        want = np.stack([plan.paths(i) for i in range(3)])
        np.testing.assert_allclose(ways(spec, path).numpy(), want, atol=1e-12)


class TestAvoid:
    @pytest.mark.parametrize(("depth", "cost"), [(0.0, 1.0), (1.0, 0.25), (2.0, 0.0), (9.0, 0.0)])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_standing_in_a_ball(self, space, depth, cost, axis):
        """Depths of 1, 1/2 and 0 radii along any axis, for the object, the gripper, and both of them."""
        place = [1.0, 2.0, 3.0]
        place[axis] += depth
        ball, away = avoid(1, 2, radius=2, z=3), (FAR, FAR, FAR)
        for object_at, grip_at, bodies in ((place, away, 1), (away, place, 1), (place, place, 2), (away, away, 0)):
            got = -ball.score(space, resting(space, object_at, grip_at)).item()
            assert got == pytest.approx(bodies * cost * shares(), abs=2e-3)

    def test_standing_in_a_block(self, space):
        """0.1 m under the top of a block whose least side is 0.8 m: a quarter of half of it."""
        block = avoid(1, 2, width=2, height=1, z=3, depth=0.8)
        got = -block.score(space, resting(space, (1.2, 2.1, 3.3))).item()
        assert got == pytest.approx(shares() / 16, rel=1e-4)
        assert block.score(space, resting(space, (1.2, 2.1, 3.41))).item() == 0

    @pytest.mark.parametrize("direction", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (2 / 3, -1 / 3, 2 / 3)])
    def test_a_straight_line_through_a_ball(self, space, direction):
        """(1 / step) times the integral of (1 - |s| / r)^2: 2 r / 3 through the centre, whichever way."""
        center, line = torch.tensor([0.3, 0.2, 0.1]).double(), torch.tensor(direction).double()
        path = resting(space, (0.0, 0.0, 0.0), tokens=101)
        path[..., space.arrived] = -1.0
        path[0, :, space.position_columns] = center + torch.linspace(-5, 5, 101).double()[:, None] * line
        path[0, :, space.velocity_columns] = 0.1 * line / space.token_seconds
        cost = -avoid(0.3, 0.2, radius=1.5, z=0.1).score(space, path).item()
        assert cost * 0.1 == pytest.approx(2 * 1.5 / 3, rel=0.02)

    def test_a_column_is_the_disc_of_the_plane(self, space, generator):
        """Heights do not matter, and without bodies it is what it is for a task in the plane."""
        x, y, _ = space.position
        plane = replace(space, position=(x, y), velocity=space.velocity[:2], bodies=())
        path = random_paths(space, generator)
        higher = path.clone()
        higher[..., space.columns("object_z", "grip_z")] += 7.0
        for guide in (avoid(0.3, -0.2, radius=1.5, margin=0.2), avoid(0.3, -0.2, width=2.0, height=3.0)):
            score = guide.score(space, path)
            assert (score < 0).all()
            torch.testing.assert_close(guide.score(space, higher), score)
            torch.testing.assert_close(guide.score(replace(space, bodies=()), path), guide.score(plane, path))
            grip = replace(plane, position=space.bodies[0][:2], velocity=())
            torch.testing.assert_close(score, guide.score(plane, path) + guide.score(grip, path))

    def test_a_margin_is_kept_beyond_the_edge(self, space, generator):
        path = random_paths(space, generator)
        wider = avoid(0.1, 0.2, radius=1.5, z=0.3).score(space, path)
        torch.testing.assert_close(avoid(0.1, 0.2, radius=1.2, z=0.3, margin=0.3).score(space, path), wider)

    def test_it_looks_like_its_place(self):
        assert avoid(1, 2, radius=3, z=4).marks == (Ball(1, 2, 3, 4),)
        assert avoid(1, 2, width=3, height=4, z=5, depth=6).marks == (Block(1, 2, 3, 4, 5, 6),)

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"width": 1, "height": 1},
            {"width": 1, "height": 1, "depth": 0},
            {"radius": 1, "depth": 1},
            {"radius": 1, "width": 1, "height": 1, "depth": 1},
            {"depth": 1},
            {"radius": math.nan},
        ],
    )
    def test_places_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(ValueError, match="avoid"):
            avoid(0, 0, z=0, **wrong)

    def test_depth_without_z_is_refused(self):
        with pytest.raises(ValueError, match="depth takes z"):
            avoid(0, 0, width=1, height=1, depth=1)


class TestWorkspace:
    LIMITS: ClassVar = {"x_min": -1.0, "x_max": 1.0, "y_min": 0.0, "y_max": 2.0, "z_min": 0.5, "z_max": 1.0}

    @pytest.mark.parametrize(
        ("place", "squares"),
        [
            ((0.0, 1.0, 0.7), 0),
            ((1.0, 2.0, 1.0), 0),
            ((1.1, 1.0, 0.7), 1),
            ((0.0, -0.2, 0.7), 4),
            ((0.0, 1.0, 1.3), 9),
            ((-1.1, 2.2, 0.3), 1 + 4 + 4),
        ],
    )
    def test_squares_of_what_lies_beyond(self, space, place, squares):
        """In tenths of a metre; for the object, the gripper, and both."""
        inside, guide = (0.0, 1.0, 0.7), workspace(**self.LIMITS)
        for object_at, grip_at, bodies in ((place, inside, 1), (inside, place, 1), (place, place, 2)):
            got = -guide.score(space, resting(space, object_at, grip_at)).item()
            assert got == pytest.approx(bodies * squares / 100 * shares(), abs=1e-9)

    def test_each_limit_counts_by_itself(self, space, generator):
        path = random_paths(space, generator)
        each = sum(workspace(**{name: value}).score(space, path) for name, value in self.LIMITS.items())
        torch.testing.assert_close(workspace(**self.LIMITS).score(space, path), each)

    def test_between_tokens_too(self, spec):
        """Rates of +v and -v lift the middle of the way by v T / 4 over tokens that stand on the limit."""
        path = -torch.ones(1, 2, spec.width, dtype=torch.float64)
        path[0, :, spec.position_columns] = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
        path[0, :, spec.columns("vy")[0]] = torch.tensor([4.0, -4.0]).double() / spec.token_seconds
        heights = way(spec, path)[0, :, 1]
        assert heights.max().item() == pytest.approx(1.0)
        got = -workspace(y_max=0.0).score(spec, path).item()
        assert got == pytest.approx(heights.square().sum().item() / POINTS_PER_TOKEN)

    def test_it_has_no_look(self):
        assert workspace(x_max=1).marks == ()

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({}, "one limit at least: x_min, x_max, y_min, y_max, z_min, z_max"),
            ({"x_min": 1, "x_max": 1}, "x_min=1 must be less than x_max=1"),
            ({"z_min": 2, "z_max": 1}, "z_min=2 must be less than z_max=1"),
            ({"y_max": math.nan}, "y_max=nan"),
        ],
    )
    def test_limits_that_cannot_be_are_refused(self, wrong, says):
        with pytest.raises(ValueError, match=says):
            workspace(**wrong)


class TestPoints:
    def test_goal_is_the_distance_of_the_objects_end(self, space):
        path = resting(space, (3.0, 4.0, 12.0))
        path[0, -1, space.position_columns] = 0.0
        assert goal(3, 4, 12).score(space, path).item() == pytest.approx(-13)
        assert goal(3, 4).score(space, path).item() == pytest.approx(-5)

    @pytest.mark.parametrize(("away", "cost"), [(0.0, 0.0), (0.4, 0.0), (0.5, 0.0), (0.8, 0.09), (2.5, 4.0)])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_region_is_the_squared_distance_of_the_end_beyond_its_radius(self, space, away, cost, axis):
        path, end = resting(space, (9.0, 9.0, 9.0)), [1.0, 2.0, 3.0]
        end[axis] += away
        path[0, -1, space.position_columns] = torch.tensor(end).double()
        assert region(1, 2, radius=0.5, z=3).score(space, path).item() == pytest.approx(-cost, abs=1e-6)

    def test_region_in_the_plane(self, spec):
        path = torch.zeros(1, 3, spec.width, dtype=torch.float64)
        assert region(3, 4, radius=2).score(spec, path).item() == pytest.approx(-9)
        assert region(3, 4, radius=5.1).score(spec, path).item() == 0
        assert region(3, 4, radius=2).marks == (Region(3, 4, radius=2),)

    @pytest.mark.parametrize("radius", [0, -1, math.nan])
    def test_a_region_that_cannot_be_is_refused(self, radius):
        with pytest.raises(ValueError, match="radius"):
            region(0, 0, radius=radius)

    @pytest.mark.parametrize("place", [Region(1, 2, radius=0.5), Region(1, 2, 3.0, radius=0.5)])
    @pytest.mark.parametrize("start", [(5.0, 6.0, 7.0), (1.1, 1.9, 3.0)])
    @pytest.mark.parametrize("count", [1, 2, 9])
    def test_ends_of_a_region_lie_within_and_the_first_is_the_nearest(self, place, start, count):
        begin, axes = torch.tensor(start).double(), len(place.center)
        ends = place.ends(begin, count)
        assert ends.shape == (count, axes)
        off = ends - torch.tensor(place.center).double()
        assert off.norm(dim=-1).max() <= 0.8 * 0.5 + 1e-9
        gaps = (ends - begin[:axes]).norm(dim=-1)
        assert gaps[0] == gaps.min()
        out = max(0.0, (begin[:axes] - torch.tensor(place.center)).norm().item() - 0.4)
        assert gaps[0].item() == pytest.approx(out, abs=1e-9)

    @pytest.mark.parametrize("place", [Region(0, 0, radius=1.0), Region(0, 0, 0.0, radius=1.0)])
    def test_ends_of_a_region_cover_it_evenly(self, place):
        """Half of them lie in the half of the space that is nearest to the middle, and on either side of each axis."""
        axes = len(place.center)
        ends = place.ends(torch.full((3,), 9.0).double(), 1001)[1:] / 0.8
        assert (ends.norm(dim=-1) < 0.5 ** (1 / axes)).double().mean().item() == pytest.approx(0.5, abs=0.01)
        for axis in range(axes):
            assert (ends[:, axis] > 0).double().mean().item() == pytest.approx(0.5, abs=0.02)

    def test_via_is_the_softly_least_squared_distance(self, space):
        path = resting(space, (0.0, 0.0, 0.0), tokens=3)
        path[0, :, space.columns("object_z")[0]] = torch.tensor([0.0, 1.0, 3.0]).double()
        expected = math.log(sum(math.exp(-8 * d * d) for d in (2, 1, 1))) / 8
        assert via(0, 0, 2).score(space, path).item() == pytest.approx(expected, abs=1e-6)
        assert via(0, 0).score(space, path).item() == pytest.approx(math.log(3) / 8, abs=1e-6)

    def test_via_counts_what_was_passed_before_the_plan(self, space):
        path = resting(space, (5.0, 5.0, 5.0))
        past = torch.tensor([[[0.3, 0.4, 0.5]]]).double()
        done, missed = (via(0.3, 0.4, z).value(Sight(space, path, past=past)).item() for z in (0.5, 1.5))
        assert done == pytest.approx(0, abs=1e-6)
        assert missed == pytest.approx(-1, abs=1e-6)

    def test_it_looks_like_its_point(self):
        for guide in (goal(1, 2, 3), via(1, 2, 3)):
            assert guide.marks == (Spot(1, 2, 3),)
        assert region(1, 2, radius=0.1, z=3).marks == (Region(1, 2, 3, radius=0.1),)


@pytest.mark.parametrize("name", IN_SPACE)
class TestEveryGuideInSpace:
    def test_gradients_are_those_of_finite_differences(self, name, space, generator):
        guide, path = IN_SPACE[name], random_paths(space, generator, count=2, tokens=4)
        assert (guide.score(space, path) < 0).all()
        assert torch.autograd.gradcheck(lambda p: guide.score(space, p), path.requires_grad_(True), atol=1e-4)

    def test_what_has_no_place_does_not_matter(self, name, space, generator):
        path = random_paths(space, generator)
        other = path.clone()
        other[..., space.columns("fingers")] += 3.0
        other[..., space.actions] -= 2.0
        assert torch.equal(IN_SPACE[name].score(space, other), IN_SPACE[name].score(space, path))

    def test_the_gripper_counts_where_places_are_kept_and_not_where_points_are_sought(self, name, space, generator):
        path = random_paths(space, generator)
        alike = torch.equal(IN_SPACE[name].score(space, path), IN_SPACE[name].score(replace(space, bodies=()), path))
        assert alike == (name in ("goal", "region", "via"))

    def test_two_positions_are_too_few_where_it_speaks_of_z(self, name, spec):
        path = torch.zeros(1, 5, spec.width)
        if name in ("column", "speed"):
            assert IN_SPACE[name].score(spec, path).isfinite().all()
            return
        with pytest.raises(ValueError, match=r"z(_min)?=.* needs three position columns, the task has 2: x, y; leave"):
            IN_SPACE[name].score(spec, path)

    def test_a_check_says_so_before_anything_is_planned(self, name, spec, space):
        IN_SPACE[name].check(space)
        if name not in ("column", "speed"):
            with pytest.raises(ValueError, match="three position columns"):
                (speed(1) + 2.0 * IN_SPACE[name]).check(spec)


@pytest.mark.parametrize("order", itertools.permutations("xyz"))
@pytest.mark.parametrize(
    "make",
    [
        lambda x, y, z: avoid(x, y, radius=1.5, z=z),
        lambda x, y, z: goal(x, y, z),
        lambda x, y, z: via(x, y, z),
        lambda x, y, z: region(x, y, radius=0.2, z=z),
        lambda x, y, z: workspace(x_max=x, y_max=y, z_max=z),
    ],
    ids=["avoid", "goal", "via", "region", "workspace"],
)
def test_axes_are_alike(make: Callable[..., Guide], order, space, generator):
    """Called by other names, the same points in the same places cost the same."""
    at, path = {"x": 0.3, "y": -0.2, "z": 0.4}, random_paths(space, generator)
    position, velocity, grip = (tuple(f"{n}_{axis}" for axis in order) for n in ("object", "rate", "grip"))
    turned = replace(space, position=position, velocity=velocity, bodies=(grip,))
    want = make(*at.values()).score(space, path)
    assert (want < 0).all()
    torch.testing.assert_close(make(*(at[axis] for axis in order)).score(turned, path), want)


class TestPlanning:
    """With an untrained network, and with one that knows its data perfectly: each value is N(0, 0.3^2), normalised."""

    START = (0.2, 0.0, 0.1, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0)

    @pytest.fixture(scope="class")
    def planner(self, space) -> TrajectoryPlanner:
        rng = np.random.default_rng(0)
        observations = [np.cumsum(rng.normal(0, 0.2, (31, 10)), axis=0) for _ in range(8)]
        episodes = Episodes.from_arrays(observations, [rng.normal(size=(30, 3)) for _ in range(8)])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = TemporalUNet(columns=space.width, width=8, multipliers=(1, 2), blocks=1, kernel_size=3, octaves=1)
        return TrajectoryPlanner(
            network,
            Normalizer.fit(episodes, space),
            make_scheduler("ddim", train_steps=8),
            spec=space.to_config(),
            horizon=8,
            consistency_bound=0.1,
            sampling={"candidates": 16, "steps": 4, "select": "first"},
        )

    def ask(self, planner: TrajectoryPlanner, guide: Guide | None, **options) -> Plan:
        generator = torch.Generator().manual_seed(1)
        return planner.plan(planner.problem(self.START), generator=generator, guide=guide, **options)

    @staticmethod
    def inside(plan: Plan, place: Ball, body: int) -> np.ndarray:
        """Of the candidates, how many tokens of a body lie in a place."""
        points = torch.from_numpy(plan.trajectories[..., plan.spec.body_columns[body]])
        return (place.clearance(points)[:, 1:] < 0).sum(1).numpy()

    @pytest.fixture
    def knowing(self, planner, exact_denoiser, monkeypatch) -> TrajectoryPlanner:
        levels = planner.scheduler.alphas_cumprod
        monkeypatch.setattr(planner, "predict", CleanPredictor(exact_denoiser(0.0, 0.3, levels), levels))
        return planner

    def in_the_middle(self, planner: TrajectoryPlanner, body: int) -> Guide:
        """A ball where a body would mostly be."""
        points = self.ask(planner, None).trajectories[:, 3:6, planner.spec.body_columns[body]]
        x, y, z = np.median(points.reshape(-1, 3), axis=0).tolist()
        return avoid(x, y, radius=0.5, z=z, margin=0.1)

    @pytest.mark.parametrize("body", [0, 1])
    def test_an_untrained_networks_plans_leave_a_ball(self, planner, body):
        guide = self.in_the_middle(planner, body)
        free, kept = (self.ask(planner, g, guidance="gradient", gradient_cap=10.0) for g in (None, 100.0 * guide))
        before, after = (self.inside(p, guide.marks[0], body).mean() for p in (free, kept))
        assert after < 0.5 * before
        assert planner.score(guide, kept).mean() > planner.score(guide, free).mean()

    @pytest.mark.parametrize("body", [0, 1])
    def test_both_bodies_keep_out_where_the_network_knows_its_data(self, knowing, body):
        guide = self.in_the_middle(knowing, body)
        free, kept = (self.ask(knowing, g, guidance="gradient") for g in (None, 10.0 * guide))
        for each in (0, 1):
            before, after = (self.inside(p, guide.marks[0], each).mean() for p in (free, kept))
            assert before > 3
            assert after < 0.1 * before

    @pytest.mark.parametrize(
        "guide", [workspace(x_min=-0.5, x_max=0.5, z_max=0.0), region(1.0, 1.0, radius=0.2, z=1.0)]
    )
    def test_the_others_lead_there_too(self, knowing, guide):
        free, led = (self.ask(knowing, g, guidance="gradient") for g in (None, 10.0 * guide))
        assert knowing.score(guide, led).mean() > 0.05 * knowing.score(guide, free).mean()

    def test_the_start_stays_where_it_is(self, planner, space):
        kept = self.ask(planner, 100.0 * avoid(0, 0, radius=0.5, z=0.1), guidance="gradient")
        np.testing.assert_array_equal(kept.observations[:, 0], np.tile(np.float32(self.START), (16, 1)))

    def test_it_comes_back_with_its_bodies(self, planner, tmp_path):
        planner.save_pretrained(tmp_path)
        assert TrajectoryPlanner.from_pretrained(tmp_path).spec == planner.spec
