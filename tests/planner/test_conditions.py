from __future__ import annotations

import pytest
import torch

from diffplan.planner.conditions import (
    Conditions,
    apply_actions,
    arrive_at,
    pass_through,
    stack,
    start_at,
    visit_states,
)
from diffplan.planner.spec import TrajectorySpec

H = 6
START = [1.0, 2.0, 3.0, 4.0]


def same(a: Conditions, b: Conditions) -> bool:
    return torch.equal(a.mask, b.mask) and torch.equal(a.values, b.values)


def pinned(conditions: Conditions) -> dict[tuple[int, int], float]:
    return {(int(t), int(c)): float(conditions.values[t, c]) for t, c in conditions.mask.nonzero()}


def test_what_each_question_pins(spec):
    start = {(0, 2): 1.0, (0, 3): 2.0, (0, 4): 3.0, (0, 5): 4.0}
    assert pinned(Conditions.free(spec, H)) == {}
    assert pinned(start_at(spec, H, START)) == start
    assert pinned(arrive_at(spec, H, [7.0, 8.0])) == {(5, 2): 7.0, (5, 3): 8.0, (5, 6): 1.0}
    assert pinned(arrive_at(spec, H, {"vy": 0.5})) == {(5, 5): 0.5, (5, 6): 1.0}
    assert pinned(pass_through(spec, H, 3, [7.0, 8.0])) == {(3, 2): 7.0, (3, 3): 8.0}
    assert pinned(apply_actions(spec, H, torch.tensor([[1.0, 2.0]]))) == {(0, 0): 1.0, (0, 1): 2.0}
    assert pinned(visit_states(spec, H, torch.tensor([START]))) == start


def test_join_is_commutative_associative_and_idempotent(spec):
    a, b, c = start_at(spec, H, START), arrive_at(spec, H, [7, 8]), pass_through(spec, H, 3, [5, 6])
    assert same(a | b, b | a)
    assert same((a | b) | c, a | (b | c))
    assert same(a | a, a)
    assert same(a | Conditions.free(spec, H), a)
    assert pinned(a | b) == pinned(a) | pinned(b)


def test_a_clash_is_refused_with_its_place_and_both_values(spec):
    a, b = pass_through(spec, H, 3, [5.0, 6.0]), pass_through(spec, H, 3, [5.0, 9.0])
    with pytest.raises(ValueError, match=r"token 3, column 3 .* 6 and 9"):
        a | b


def test_pins_of_other_shapes_do_not_join(spec):
    with pytest.raises(ValueError, match="cannot join"):
        start_at(spec, H, START) | start_at(spec, H + 1, START)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(spec, bad):
    with pytest.raises(ValueError, match="finite"):
        start_at(spec, H, [bad, 0, 0, 0])


def test_values_where_nothing_is_pinned_are_forgotten(spec):
    values = torch.full((H, spec.width), float("nan"))
    assert same(Conditions(torch.zeros_like(values, dtype=torch.bool), values), Conditions.free(spec, H))


WRONG = {
    "too few observations": lambda s: start_at(s, H, START[:3]),
    "too many observations": lambda s: start_at(s, H, [*START, 5.0]),
    "half a goal": lambda s: arrive_at(s, H, [1.0]),
    "an unknown name": lambda s: arrive_at(s, H, {"z": 1.0}),
    "a token too late": lambda s: pass_through(s, H, H, [1.0, 2.0]),
    "a token too early": lambda s: pass_through(s, H, -H - 1, [1.0, 2.0]),
    "no such column": lambda s: Conditions.free(s, H).pin(0, [7], [1.0]),
    "one column, two values": lambda s: Conditions.free(s, H).pin(0, [2, 2], [1.0, 5.0]),
    "too many actions": lambda s: apply_actions(s, H, torch.zeros(H + 1, 2)),
    "wide actions": lambda s: apply_actions(s, H, torch.zeros(2, 3)),
    "narrow actions": lambda s: apply_actions(s, H, torch.zeros(2, 1)),
    "too many states": lambda s: visit_states(s, H, torch.zeros(H + 1, 4)),
    "narrow states": lambda s: visit_states(s, H, torch.zeros(2, 1)),
    "a mask of numbers": lambda s: Conditions(torch.zeros(H, 7), torch.zeros(H, 7)),
    "a mask of another shape": lambda s: Conditions(torch.zeros(H, 7, dtype=torch.bool), torch.zeros(H, 6)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(spec, name):
    with pytest.raises(ValueError):
        WRONG[name](spec)


def test_a_goal_about_no_column_pins_only_arrival():
    spec = TrajectorySpec(("a",), ("q",))
    assert pinned(arrive_at(spec, H, [])) == {(5, 2): 1.0}


def test_stack_keeps_the_order(spec):
    parts = [start_at(spec, H, START), arrive_at(spec, H, [7.0, 8.0])]
    mask, values = stack(parts)
    assert all(same(Conditions(mask[i], values[i]), part) for i, part in enumerate(parts))
