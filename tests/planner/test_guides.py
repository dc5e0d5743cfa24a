from __future__ import annotations

import math

import pytest
import torch

from diffplan.planner.guides import FAMILY, Guide, avoid, effort, goal, length, smooth, speed, via
from diffplan.planner.spec import TrajectorySpec

EXAMPLES = {
    "avoid": avoid(0.3, -0.2, 1.5),
    "effort": effort(),
    "goal": goal(1.0, 2.0),
    "length": length(),
    "smooth": smooth(),
    "speed": speed(0.5),
    "via": via(1.0, -1.0),
}


def paths(spec, generator, count=3, tokens=6):
    return torch.randn(count, tokens, spec.width, generator=generator, dtype=torch.float64)


def along(spec, positions) -> torch.Tensor:
    """One path through these positions, all else zero."""
    path = torch.zeros(1, len(positions), spec.width, dtype=torch.float64)
    path[0, :, spec.position_columns] = torch.tensor(positions, dtype=torch.float64)
    return path


def test_every_member_is_tested():
    assert EXAMPLES.keys() == FAMILY.keys()


@pytest.mark.parametrize("name", FAMILY)
class TestEveryGuide:
    def test_each_path_is_scored_by_itself(self, name, spec, generator):
        path = paths(spec, generator)
        scores = EXAMPLES[name].score(spec, path)
        assert scores.shape == (3,)
        alone = torch.cat([EXAMPLES[name].score(spec, path[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(scores, alone)

    def test_climbing_the_gradient_improves_the_score(self, name, spec, generator):
        path = paths(spec, generator).requires_grad_(True)
        before = EXAMPLES[name].score(spec, path)
        (gradient,) = torch.autograd.grad(before.sum(), path)
        after = EXAMPLES[name].score(spec, path + 1e-5 * gradient)
        assert (after > before).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradients_are_finite_even_at_rest(self, name, spec, dtype):
        path = torch.zeros(1, 6, spec.width, dtype=dtype)
        path[0, :, spec.position_columns] = torch.tensor([0.3, -0.2], dtype=dtype)
        path.requires_grad_(True)
        (gradient,) = torch.autograd.grad(EXAMPLES[name].score(spec, path).sum(), path)
        assert gradient.isfinite().all()

    def test_the_shortest_plan_has_a_score(self, name, spec, generator):
        assert EXAMPLES[name].score(spec, paths(spec, generator, tokens=2)).isfinite().all()

    def test_composition_is_linear(self, name, spec, generator):
        a, b, path = EXAMPLES[name], EXAMPLES["goal"], paths(spec, generator)
        torch.testing.assert_close((a + b).score(spec, path), a.score(spec, path) + b.score(spec, path))
        torch.testing.assert_close((2.5 * a).score(spec, path), 2.5 * a.score(spec, path))
        torch.testing.assert_close((a * 2.5).score(spec, path), (2.5 * a).score(spec, path))
        torch.testing.assert_close((3.0 * (a + b)).score(spec, path), (3.0 * a + 3.0 * b).score(spec, path))

    def test_during_limits_it_to_its_part(self, name, spec, generator):
        guide, path = EXAMPLES[name], paths(spec, generator)
        limited = guide.during(0.25, 0.75)
        for progress in (0.25, 0.5, 0.75):
            torch.testing.assert_close(limited.score(spec, path, progress), guide.score(spec, path))
        for progress in (0.0, 0.24, 0.76, 1.0):
            assert (limited.score(spec, path, progress) == 0).all()

    def test_described_by_name_and_weight(self, name):
        (line,) = (2.5 * EXAMPLES[name]).describe()
        assert line.startswith(name)
        assert line.endswith("@2.5")


def test_during_twice_is_the_overlap(spec):
    both = goal(1, 1).during(0.2, 0.8).during(0.5, 1.0)
    path = along(spec, [[0.0, 0.0]])
    assert [both.score(spec, path, p).item() != 0 for p in (0.3, 0.5, 0.8, 0.9)] == [False, True, True, False]


def test_avoid_closed_form(spec):
    """Depths of 2, 1 and 0 metres in a disc of radius 2."""
    path = along(spec, [[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [9.0, 9.0]])
    assert avoid(1, 1, 2).score(spec, path).item() == pytest.approx(-(1 + 0.25), abs=1e-3)


def test_goal_is_the_distance_of_the_end(spec):
    assert goal(3, 4).score(spec, along(spec, [[3.0, 4.0], [0.0, 0.0]])).item() == pytest.approx(-5)


def test_via_is_the_softly_least_squared_distance(spec):
    path = along(spec, [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    expected = math.log(sum(math.exp(-8 * d * d) for d in (2, 1, 1))) / 8
    assert via(2, 0).score(spec, path).item() == pytest.approx(expected, abs=1e-6)


def test_speed_closed_form(spec):
    path = torch.zeros(1, 4, spec.width)
    path[0, :2, spec.velocity_columns] = torch.tensor([3.0, 4.0])
    assert speed(3).score(spec, path).item() == pytest.approx(-(2**2) / 2, rel=1e-5)
    assert speed(5.1).score(spec, path).item() == 0


def test_effort_is_the_mean_square_action(spec):
    path = torch.zeros(1, 4, spec.width)
    path[0, 0, spec.actions] = torch.tensor([3.0, 4.0])
    assert effort().score(spec, path).item() == pytest.approx(-25 / 4)


def test_smooth_is_the_mean_square_acceleration(spec):
    t = spec.token_seconds * torch.arange(6, dtype=torch.float64)
    path = along(spec, torch.stack([1.5 * t**2 + t, -2 * t**2], dim=1).tolist())
    assert smooth().score(spec, path).item() == pytest.approx(-(3**2 + 4**2))


def test_length_counts_the_seconds_before_arrival(spec):
    path = torch.ones(1, 6, spec.width)
    path[0, :4, spec.arrived] = -1
    assert length().score(spec, path).item() == pytest.approx(-4 * spec.token_seconds)


def test_a_cost_of_ones_own(spec, generator):
    path = paths(spec, generator)
    mine = Guide.of(lambda spec, path: path[..., 0].sum(-1), "mine")
    torch.testing.assert_close(mine.score(spec, path), -path[..., 0].sum(-1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: avoid(0, 0, 0),
        lambda: avoid(0, 0, -1),
        lambda: speed(0),
        lambda: goal(0, 0).during(0.5, 0.5),
        lambda: goal(0, 0).during(-0.1, 0.5),
        lambda: goal(0, 0).during(0.1, 1.5),
    ],
)
def test_refusals(wrong):
    with pytest.raises(ValueError):
        wrong()


@pytest.mark.parametrize("guide", [avoid(0, 0, 1), goal(0, 0), via(0, 0)])
def test_tasks_without_two_positions_are_refused(guide):
    spec = TrajectorySpec(("a",), ("x", "v"), ("x",), ("v",))
    with pytest.raises(ValueError, match="two position columns"):
        guide.score(spec, torch.zeros(1, 5, spec.width))


def test_a_speed_limit_needs_velocities():
    spec = TrajectorySpec(("a",), ("x", "y"), ("x", "y"))
    with pytest.raises(ValueError, match="velocity"):
        speed(1.0).score(spec, torch.zeros(1, 5, spec.width))
