"""What all guides have in common, and the type that they are values of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffplan.planner.guides import (
    Disc,
    Guide,
    Sight,
    all_guides,
    as_guide,
    avoid,
    effort,
    goal,
    learned_return,
    length,
    region,
    smooth,
    speed,
    via,
    wall,
    workspace,
)
from diffplan.planner.spec import TrajectorySpec

EXAMPLES = {
    "avoid a disc": lambda _: avoid(0.3, -0.2, radius=1.5),
    "avoid a box": lambda _: avoid(0.3, -0.2, width=3.0, height=2.0),
    "effort": lambda _: effort(),
    "goal": lambda _: goal(1.0, 2.0),
    "length": lambda _: length(),
    "region": lambda _: region(2.0, 2.0, radius=0.5),
    "return": lambda model: learned_return(model),
    "smooth": lambda _: smooth(),
    "speed": lambda _: speed(0.5),
    "via": lambda _: via(1.0, -1.0),
    "wall": lambda _: wall(lambda points: points[..., 0], margin=1.5),
    "workspace": lambda _: workspace(x_min=-0.5, y_max=0.5),
    "avoid a ball in space": lambda _: avoid(0.3, -0.2, radius=2.0, z=0.4),
    "avoid a block in space": lambda _: avoid(0.3, -0.2, width=3.0, height=2.0, z=0.4, depth=2.5),
    "avoid a column in space": lambda _: avoid(0.3, -0.2, radius=1.5),
    "effort in space": lambda _: effort(),
    "goal in space": lambda _: goal(1.0, 2.0, 0.5),
    "length in space": lambda _: length(),
    "region in space": lambda _: region(2.0, 2.0, radius=0.5, z=1.0),
    "smooth in space": lambda _: smooth(),
    "speed in space": lambda _: speed(0.5),
    "via in space": lambda _: via(1.0, -1.0, 0.5),
    "wall in space": lambda _: wall(lambda points: points[..., 0], margin=1.5),
    "workspace in space": lambda _: workspace(x_min=-0.5, z_min=-0.2, z_max=0.3),
}


def paths(spec, generator, count=3, tokens=6) -> Tensor:
    return torch.randn(count, tokens, spec.width, generator=generator, dtype=torch.float64)


def see(spec, path: Tensor, noisy: Tensor | None = None) -> Sight:
    """As a planner shows it at its last step, where noisy and clean are the same."""
    return Sight(spec, path, path if noisy is None else noisy, torch.zeros(len(path), dtype=torch.long))


def test_every_member_is_tested():
    assert {label.split()[0] for label in EXAMPLES} == all_guides().keys()


@pytest.mark.parametrize("label", EXAMPLES)
class TestEveryGuide:
    @pytest.fixture
    def frame(self, label, spec, space) -> TrajectorySpec:
        return space if label.endswith("in space") else spec

    @pytest.fixture
    def guide(self, label, make_returns) -> Guide:
        return EXAMPLES[label](make_returns().double())

    def test_each_path_is_scored_by_itself(self, label, guide, frame, generator):
        path = paths(frame, generator)
        scores = guide.value(see(frame, path))
        assert scores.shape == (3,)
        assert len(scores.unique()) == 3
        alone = torch.cat([guide.value(see(frame, path[i : i + 1])) for i in range(3)])
        torch.testing.assert_close(scores, alone)

    def test_climbing_the_gradient_improves_the_score(self, label, guide, frame, generator):
        path = paths(frame, generator).requires_grad_(True)
        before = guide.value(see(frame, path))
        (gradient,) = torch.autograd.grad(before.sum(), path)
        after = guide.value(see(frame, path + 1e-5 * gradient))
        assert (after > before).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gradients_are_finite_even_at_rest(self, label, frame, dtype, make_returns):
        path = torch.zeros(1, 6, frame.width, dtype=dtype)
        path[0, :, frame.position_columns] = torch.tensor([0.3, -0.2, 0.4], dtype=dtype)[: len(frame.position)]
        path.requires_grad_(True)
        score = EXAMPLES[label](make_returns().to(dtype)).value(see(frame, path))
        (gradient,) = torch.autograd.grad(score.sum(), path)
        assert score.dtype == dtype
        assert gradient.isfinite().all()

    def test_the_shortest_plan_has_a_score(self, label, guide, frame, generator):
        assert guide.value(see(frame, paths(frame, generator, tokens=2))).isfinite().all()

    def test_composition_is_linear(self, label, guide, frame, generator):
        other, sight = goal(1.0, 2.0), see(frame, paths(frame, generator))
        a, b = guide.value(sight), other.value(sight)
        torch.testing.assert_close((guide + other).value(sight), a + b)
        torch.testing.assert_close((2.5 * guide).value(sight), 2.5 * a)
        torch.testing.assert_close((guide * 2.5).value(sight), 2.5 * a)
        torch.testing.assert_close((3.0 * (guide + other)).value(sight), 3.0 * a + 3.0 * b)

    def test_during_limits_it_to_its_part(self, label, guide, frame, generator):
        sight, limited = see(frame, paths(frame, generator)), guide.during(0.25, 0.75)
        for progress in (0.25, 0.5, 0.75):
            torch.testing.assert_close(limited.value(sight, progress), guide.value(sight))
        for progress in (0.0, 0.24, 0.76, 1.0):
            assert (limited.value(sight, progress) == 0).all()

    def test_finished_candidates_are_judged_by_all_of_it(self, label, guide, frame, generator):
        sight = see(frame, paths(frame, generator))
        assert torch.equal(guide.during(0.25, 0.5).value(sight), guide.value(sight))

    def test_described_by_name_and_weight(self, label, guide):
        (line,) = (2.5 * guide).describe()
        assert line.startswith(label.split()[0])
        assert line.endswith("@2.5")

    def test_only_the_learned_return_reads_what_is_noisy(self, label, guide, frame, generator):
        path, noisy = paths(frame, generator), paths(frame, generator)
        alike = torch.equal(guide.value(see(frame, path, noisy)), guide.value(see(frame, path)))
        assert alike == (label != "return")
        if alike:
            assert torch.equal(guide.score(frame, path), guide.value(see(frame, path)))


class TestTheType:
    def test_during_twice_is_the_overlap(self, spec):
        both = goal(1, 1).during(0.2, 0.8).during(0.5, 1.0)
        path = torch.zeros(1, 2, spec.width)
        assert [both.score(spec, path, p).item() != 0 for p in (0.3, 0.5, 0.8, 0.9)] == [False, True, True, False]

    def test_at_keeps_what_is_at_work(self):
        guide = effort() + goal(1, 1).during(0.5, 1.0)
        assert guide.at(0.2) == Guide(guide.terms[:1])
        assert guide.at(0.5) == guide.at(1.0) == guide
        assert goal(1, 1).during(0.5, 1.0).at(0.1).terms == ()

    def test_addition_is_associative_and_keeps_the_order(self):
        a, b, c = effort(), goal(1, 1), length()
        assert (a + b) + c == a + (b + c)
        assert (a + b + c).describe() == ("effort@1", "goal:x=1,y=1@1", "length@1")

    def test_weights_multiply(self):
        assert (2 * (effort() * 3) * 0.5).describe() == ("effort@3",)

    def test_nothing_scores_zero_with_a_gradient(self, spec, generator):
        path = paths(spec, generator).requires_grad_(True)
        score = Guide(()).score(spec, path)
        (gradient,) = torch.autograd.grad(score.sum(), path)
        assert score.tolist() == [0, 0, 0]
        assert (gradient == 0).all()

    def test_terms_of_weight_zero_are_left_out(self):
        kept = goal(1, 1)
        assert (0 * effort() + kept + 0.0 * length()).without_zeros() == kept
        assert (0.0 * (effort() + length())).without_zeros() is None
        assert Guide(()).without_zeros() is None

    def test_marks_are_of_the_terms_that_have_a_look_and_weigh_something(self):
        guide = avoid(1, 2, radius=3) + effort() + 0 * goal(1, 1)
        assert guide.marks == (Disc(1, 2, 3),)

    @pytest.mark.parametrize(("begin", "end"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.1, 1.5), (float("nan"), 1)])
    def test_a_part_that_cannot_be_is_refused(self, begin, end):
        with pytest.raises(ValueError, match="during"):
            goal(0, 0).during(begin, end)


class TestCostsOfOnesOwn:
    def test_a_function_is_a_guide(self, spec, generator):
        def leftward(spec, path):
            return path[..., 0].sum(-1)

        path = paths(spec, generator)
        for guide in (Guide.of(leftward, "leftward"), as_guide(leftward)):
            torch.testing.assert_close(guide.score(spec, path), -path[..., 0].sum(-1))
            assert guide.describe() == ("leftward@1",)

    def test_a_guide_stays_itself(self):
        guide = effort()
        assert as_guide(guide) is guide

    def test_functions_are_added_from_both_sides(self, spec, generator):
        cost, path = (lambda spec, path: path[..., 0].sum(-1)), paths(spec, generator)
        want = effort().score(spec, path) - cost(spec, path)
        torch.testing.assert_close((effort() + cost).score(spec, path), want)
        torch.testing.assert_close((cost + effort()).score(spec, path), want)

    def test_a_callable_object_has_no_name_and_is_custom(self):
        class Cost:
            def __call__(self, spec, path):
                return path.sum((1, 2))

        assert as_guide(Cost()).describe() == ("custom@1",)

    @pytest.mark.parametrize("wrong", [None, 3.0, "effort@1", [effort()]])
    def test_what_is_neither_is_refused(self, wrong):
        with pytest.raises(TypeError, match="function of"):
            as_guide(wrong)
        with pytest.raises(TypeError, match="function of"):
            effort() + wrong
