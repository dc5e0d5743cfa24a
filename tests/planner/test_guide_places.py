"""Guides about places, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffplan.planner.guides import Box, Disc, Sight, avoid, goal, region, via, workspace
from diffplan.planner.guides.marks import box_clearance
from diffplan.planner.guides.places import POINTS_PER_TOKEN, wall, way
from diffplan.planner.plan import Plan
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.windows import arrival


def through(spec: TrajectorySpec, positions) -> Tensor:
    """One path that stands still at each of these positions."""
    positions = torch.as_tensor(positions, dtype=torch.float64)
    path = torch.zeros(1, len(positions), spec.width, dtype=torch.float64)
    path[0, :, spec.position_columns] = positions
    return path


def straight(spec: TrajectorySpec, begin, end, tokens: int) -> Tensor:
    """One path at constant velocity from one position to another, not yet arrived."""
    begin, end = (torch.tensor(p, dtype=torch.float64) for p in (begin, end))
    path = -torch.ones(1, tokens, spec.width, dtype=torch.float64)
    path[0, :, spec.position_columns] = begin + (end - begin) * torch.linspace(0, 1, tokens).double()[:, None]
    path[0, :, spec.velocity_columns] = (end - begin) / ((tokens - 1) * spec.token_seconds)
    return path


def random_path(spec: TrajectorySpec, arrived_at: int, tokens: int = 7, count: int = 3) -> Tensor:
    path = torch.randn(count, tokens, spec.width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    path[..., spec.arrived] = torch.where(torch.arange(tokens) >= arrived_at, 1.0, -1.0)
    return path


class TestTheWay:
    def test_it_passes_through_the_tokens(self, spec):
        path = random_path(spec, arrived_at=4)
        points = way(spec, path)
        assert points.shape == (3, 6 * POINTS_PER_TOKEN + 1, 2)
        torch.testing.assert_close(points[:, ::POINTS_PER_TOKEN], path[..., spec.position_columns])

    @pytest.mark.parametrize("arrived_at", [0, 1, 4, 6, 7])
    @pytest.mark.parametrize("velocity", [("vx", "vy"), ()])
    def test_it_is_where_the_plan_says(self, spec, arrived_at, velocity):
        """`Plan.reference`, which the executor follows, a quarter of a token at a time."""
        spec = replace(spec, velocity=velocity)
        path = random_path(spec, arrived_at)
        zeros = np.zeros(3)
        plan = Plan(spec, path.numpy(), arrival(spec, path).numpy(), zeros, zeros, zeros)
        steps = spec.stride * np.arange(6 * POINTS_PER_TOKEN + 1) / POINTS_PER_TOKEN
        want = np.stack([plan.reference(steps, i).position for i in range(3)])
        np.testing.assert_allclose(way(spec, path).numpy(), want, atol=1e-12)

    def test_it_runs_straight_without_velocities(self, spec):
        spec = replace(spec, velocity=())
        points = way(spec, through(spec, [[0.0, 0.0], [4.0, 8.0]]))
        torch.testing.assert_close(points[0], torch.arange(5.0).double()[:, None] * torch.tensor([1.0, 2.0]).double())

    def test_once_arrived_it_runs_straight_whatever_velocities_say(self, spec):
        """From rest to rest, so that a share u of the time is a share 3 u^2 - 2 u^3 of the step."""
        path = random_path(spec, arrived_at=0)
        u = torch.arange(POINTS_PER_TOKEN).double()[:, None] / POINTS_PER_TOKEN
        position = path[..., spec.position_columns]
        want = position[:, :-1, None] + (3 * u**2 - 2 * u**3) * position.diff(dim=1)[:, :, None]
        torch.testing.assert_close(way(spec, path)[:, :-1], want.flatten(1, 2))

    def test_it_is_exact_for_constant_acceleration(self, spec):
        def motion(seconds):
            return torch.stack([0.3 * seconds**2 - seconds, 0.5 * seconds**2], dim=-1)

        path = -torch.ones(1, 5, spec.width, dtype=torch.float64)
        seconds = spec.token_seconds * torch.arange(5).double()
        path[0, :, spec.position_columns] = motion(seconds)
        path[0, :, spec.velocity_columns] = torch.stack([0.6 * seconds - 1, seconds], dim=-1)
        fine = spec.token_seconds * torch.arange(4 * POINTS_PER_TOKEN + 1).double() / POINTS_PER_TOKEN
        torch.testing.assert_close(way(spec, path)[0], motion(fine))


class TestAvoid:
    def test_standing_in_a_disc(self, spec):
        """Depths of 1, 1/2 and 0 radii at every point, each of which counts as a share of a token."""
        for depth, cost in ((0.0, 1.0), (1.0, 0.25), (2.0, 0.0), (9.0, 0.0)):
            path = through(spec, [[1.0, 1.0 + depth]] * 5)
            points = 4 * POINTS_PER_TOKEN + 1
            want = -cost * points / POINTS_PER_TOKEN
            assert avoid(1, 1, radius=2).score(spec, path).item() == pytest.approx(want, abs=1e-3)

    @pytest.mark.parametrize("tokens", [201, 41, 21])
    def test_a_straight_line_through_a_disc(self, spec, tokens):
        """(1 / step) times the integral of (1 - |s| / r)^2: 2 r / 3 through the centre."""
        path = straight(spec, (-5.0, 0.0), (5.0, 0.0), tokens)
        step = 10 / (tokens - 1)
        assert -avoid(0, 0, radius=1.5).score(spec, path).item() * step == pytest.approx(2 * 1.5 / 3, rel=0.02)
        assert avoid(0, 1.6, radius=1.5).score(spec, path).item() == 0

    @pytest.mark.parametrize("tokens", [201, 41, 21])
    @pytest.mark.parametrize(("width", "height"), [(3.0, 2.0), (2.0, 2.0)])
    def test_a_straight_line_through_a_box(self, spec, tokens, width, height):
        """Full depth, half the height, over width - height, and a wedge at either end: (w - h) + h / 3."""
        path = straight(spec, (-5.0, 0.7), (5.0, 0.7), tokens)
        cost = -avoid(0.1, 0.7, width=width, height=height).score(spec, path).item() * 10 / (tokens - 1)
        assert cost == pytest.approx(width - height + height / 3, rel=0.03)
        assert avoid(0.1, 0.7 + height, width=width, height=height).score(spec, path).item() == 0

    @pytest.mark.parametrize("guide", [avoid(0, 0, radius=0.6), avoid(0, 0, width=1.2, height=1.0)])
    def test_a_coarse_stride_does_not_step_over_it(self, spec, guide):
        """Tokens 4 metres apart, none of them inside, and a point of the way in the very middle."""
        path = straight(spec, (-6.0, 0.0), (6.0, 0.0), 4)
        assert guide.score(spec, path).item() == pytest.approx(-1 / POINTS_PER_TOKEN, abs=1e-3)

    def test_planned_velocities_bend_the_way_into_it(self, spec):
        """Between two tokens at height 0, rates of +v and -v lift the middle of the way by v T / 4."""
        path = straight(spec, (-1.0, 0.0), (1.0, 0.0), 2)
        disc = avoid(0, 3, radius=0.8)
        assert disc.score(spec, path).item() == 0
        path[0, :, spec.columns("vy")[0]] = torch.tensor([12.0, -12.0]) / spec.token_seconds
        assert disc.score(spec, path).item() == pytest.approx(-1 / POINTS_PER_TOKEN, abs=1e-3)

    @pytest.mark.parametrize("guide", [avoid(0.2, -0.1, radius=1), avoid(0.2, -0.1, width=2, height=3)])
    def test_its_gradient_leads_out_the_shortest_way(self, spec, guide):
        path = through(spec, [[0.7, -0.1]] * 3).requires_grad_(True)
        (gradient,) = torch.autograd.grad(guide.score(spec, path).sum(), path)
        x, y = gradient[0, :, spec.position_columns].sum(0)
        assert x > 0
        assert y.item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"width": 1},
            {"height": 1},
            {"radius": 1, "width": 1},
            {"radius": 1, "width": 1, "height": 1},
            {"radius": 0},
            {"radius": -1},
            {"radius": math.nan},
            {"width": 0, "height": 1},
            {"width": 1, "height": -1},
            {"radius": 1, "margin": -0.1},
            {"radius": 1, "margin": math.nan},
        ],
    )
    def test_places_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(ValueError, match="avoid"):
            avoid(0, 0, **wrong)

    def test_a_margin_is_kept_beyond_the_edge(self, spec):
        """Of a disc: as if it were larger. Of a box: the same beside its sides."""
        path = random_path(spec, arrived_at=5)
        wider = avoid(0.1, 0.2, radius=1.0).score(spec, path)
        assert (wider < 0).all()
        torch.testing.assert_close(avoid(0.1, 0.2, radius=0.7, margin=0.3).score(spec, path), wider)
        beside = straight(spec, (-1.0, 1.3), (1.0, 1.3), 11)
        box = avoid(0, 0, width=4, height=2, margin=0.5).score(spec, beside)
        torch.testing.assert_close(box, avoid(0, 0, width=5, height=3).score(spec, beside), atol=1e-5, rtol=0)
        assert box.item() < 0
        assert avoid(0, 0, width=4, height=2).score(spec, beside).item() == 0

    def test_it_looks_like_its_place(self):
        assert avoid(1, 2, radius=3).marks == (Disc(1, 2, 3),)
        assert avoid(1, 2, width=3, height=4).marks == (Box(1, 2, 3, 4),)


class TestClearances:
    @pytest.mark.parametrize(
        ("point", "distance"),
        [
            ((0.0, 0.0), -1.0),
            ((1.5, 0.0), -0.5),
            ((1.9, 0.9), -0.1),
            ((0.0, -0.75), -0.25),
            ((2.0, 0.3), 0.0),
            ((2.0, 1.0), 0.0),
            ((2.5, 0.9), 0.5),
            ((-1.0, 4.0), 3.0),
            ((5.0, 5.0), 5.0),
            ((-5.0, -5.0), 5.0),
        ],
    )
    def test_box_closed_form(self, point, distance):
        """A box of 4 by 2 about (10, 20): centre, sides, edges, and two corners 3 and 4 metres away."""
        center = torch.tensor([10.0, 20.0], dtype=torch.float64)
        got = box_clearance(torch.tensor(point) + center, center, torch.tensor([4.0, 2.0]))
        assert got.item() == pytest.approx(distance, abs=2e-6)
        assert Box(10.0, 20.0, 4.0, 2.0).clearance(torch.tensor(point) + center).item() == pytest.approx(
            distance, abs=2e-6
        )

    def test_box_is_the_distance_to_its_edge(self, generator):
        """Against the nearest of many points on the edge, signed by whether the point is inside."""
        points = 4 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 2
        s = torch.linspace(-1, 1, 2001, dtype=torch.float64)
        one, half = torch.ones_like(s), torch.tensor([1.2, 0.5], dtype=torch.float64)
        edge = torch.cat([torch.stack(p, -1) for p in ((s, one), (s, -one), (one, s), (-one, s))]) * half
        near = torch.cdist(points, edge).amin(1)
        sign = torch.where((points.abs() < half).all(-1), -1.0, 1.0)
        got = box_clearance(points, torch.zeros(2), 2 * half)
        torch.testing.assert_close(got, sign * near, atol=2e-3, rtol=0)

    def test_many_boxes_at_once(self, generator):
        points = torch.randn(5, 1, 2, generator=generator)
        centers, sizes = torch.randn(3, 2, generator=generator), 1 + torch.rand(3, 2, generator=generator)
        got = box_clearance(points, centers, sizes)
        assert got.shape == (5, 3)
        for j in range(3):
            box = Box(*centers[j].tolist(), *sizes[j].tolist())
            torch.testing.assert_close(got[:, j], box.clearance(points[:, 0]))

    def test_disc_is_the_distance_from_its_centre_less_the_radius(self, generator):
        points = torch.randn(50, 2, generator=generator, dtype=torch.float64)
        want = (points - torch.tensor([0.5, -1.0])).norm(dim=-1) - 0.7
        torch.testing.assert_close(Disc(0.5, -1.0, 0.7).clearance(points), want, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("place", [Disc(0.0, 0.0, 1.0), Box(0.0, 0.0, 1.0, 1.0)])
    def test_further_columns_are_not_looked_at(self, place):
        points = torch.tensor([[0.3, 0.1, 99.0]])
        assert torch.equal(place.clearance(points), place.clearance(points[:, :2]))


class TestWall:
    def test_beside_a_straight_wall(self, spec):
        """A wall at x = 0 and a margin of 2: clearances of 2, 1, 0 and -1 lack 0, 1/2, 1 and 3/2 margins."""
        for x, lack in ((2.0, 0.0), (1.0, 0.5), (0.0, 1.0), (-1.0, 1.5)):
            path = through(spec, [[x, 5.0]] * 3)
            want = -(lack**2) * (2 * POINTS_PER_TOKEN + 1) / POINTS_PER_TOKEN
            got = wall(lambda points: points[..., 0], margin=2).score(spec, path).item()
            assert got == pytest.approx(want)

    def test_away_from_a_wall_at_constant_speed(self, spec):
        """(1 / step) times the integral of (1 - s / margin)^2 is margin / (3 step)."""
        path = straight(spec, (0.0, 1.0), (4.0, 1.0), 101)
        got = wall(lambda points: points[..., 0], margin=1.5).score(spec, path).item()
        assert -got * 4 / 100 == pytest.approx(1.5 / 3, rel=0.02)

    def test_a_disc_with_its_radius_as_margin_is_avoid(self, spec):
        path, disc = random_path(spec, arrived_at=5), Disc(0.1, 0.2, 1.3)
        fence = wall(lambda points: disc.clearance(points) + disc.radius, margin=disc.radius)
        want = avoid(disc.x, disc.y, radius=disc.radius).score(spec, path)
        assert (want < 0).all()
        torch.testing.assert_close(fence.score(spec, path), want)

    @pytest.mark.parametrize("margin", [0, -1, math.nan])
    def test_a_margin_that_cannot_be_is_refused(self, margin):
        with pytest.raises(ValueError, match="margin"):
            wall(lambda points: points[..., 0], margin=margin)


class TestPoints:
    def test_goal_is_the_distance_of_the_end(self, spec):
        path = through(spec, [[3.0, 4.0], [0.0, 0.0]])
        assert goal(3, 4).score(spec, path).item() == pytest.approx(-5)

    def test_via_is_the_softly_least_squared_distance(self, spec):
        path = through(spec, [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
        expected = math.log(sum(math.exp(-8 * d * d) for d in (2, 1, 1))) / 8
        assert via(2, 0).score(spec, path).item() == pytest.approx(expected, abs=1e-6)

    def test_via_counts_what_was_passed_before_the_plan(self, spec, generator):
        """As if the past were a part of the path; once it has been there, the plan is pulled no longer."""
        path = random_path(spec, arrived_at=6)
        past = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
        whole = torch.cat([torch.zeros(3, 4, spec.width, dtype=torch.float64), path], dim=1)
        whole[:, :4, spec.position_columns] = past
        want = via(0.3, 0.4).score(spec, whole)
        torch.testing.assert_close(via(0.3, 0.4).value(Sight(spec, path, past=past)), want)

        def pull(past):
            far = through(spec, [[5.0, 5.0], [5.5, 5.0]]).requires_grad_(True)
            (gradient,) = torch.autograd.grad(via(0.3, 0.4).value(Sight(spec, far, past=past)).sum(), far)
            return gradient.norm().item()

        assert pull(torch.tensor([[[0.3, 0.4]]]).double()) < 1e-6 < 1 < pull(None)

    def test_via_does_not_care_when(self, spec):
        path = random_path(spec, arrived_at=6)
        torch.testing.assert_close(via(0.3, 0.4).score(spec, path), via(0.3, 0.4).score(spec, path.flip(1)))


@pytest.mark.parametrize(
    "guide",
    [
        avoid(0, 0, radius=1),
        avoid(0, 0, width=1, height=1),
        goal(0, 0),
        via(0, 0),
        wall(lambda points: points[..., 0], margin=1),
        region(0, 0, radius=1),
        workspace(x_max=1),
    ],
)
def test_tasks_without_two_positions_are_refused(guide):
    spec = TrajectorySpec(("a",), ("x", "v"), ("x",), ("v",))
    with pytest.raises(ValueError, match="two position columns"):
        guide.score(spec, torch.zeros(1, 5, spec.width))
