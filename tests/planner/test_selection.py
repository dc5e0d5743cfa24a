from __future__ import annotations

from typing import get_args

import pytest
import torch

from diffplan.planner.sampling import CleanPredictor
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.selection import Selection, Verdict, judge, order

# one problem of four candidates: arrival token, worst consistency, implausibility
ONE = Verdict(torch.tensor([5, 3, 4, 2]), torch.tensor([0.0, 0.5, 0.0, 0.05]), torch.tensor([0.1, 0.2, 0.3, 0.4]))


def ranking(select: str, verdict: Verdict = ONE, liked: torch.Tensor | None = None) -> list[int]:
    return order(verdict, select, candidates=4, bound=0.1, liked=liked).argsort(descending=True).tolist()


def test_each_selection_ranks_as_it_says():
    assert ranking("first") == ranking("fastest") == [0, 1, 2, 3]
    assert ranking("plausible") == ranking("unprompted") == [0, 1, 2, 3]
    assert ranking("earliest") == [3, 2, 0, 1]
    assert ranking("balanced") == [1, 0, 3, 2]


@pytest.mark.parametrize("select", get_args(Selection))
def test_problems_are_ranked_each_by_itself(select):
    other = Verdict(*(v.flip(0) * 3 for v in ONE))
    both = Verdict(*(torch.cat(pair) for pair in zip(ONE, other, strict=True)))
    parts = [order(v, select, candidates=4, bound=0.1) for v in (ONE, other)]
    assert torch.equal(order(both, select, candidates=4, bound=0.1), torch.cat(parts))


def test_a_guide_decides_among_those_that_would_do():
    like = torch.tensor([0.0, 0.0, 9.0, 0.0])
    assert ranking("earliest", liked=like)[0] == ranking("plausible", liked=like)[0] == 2
    assert ranking("first", liked=like) == [0, 1, 2, 3]
    assert ranking("balanced", liked=torch.tensor([9.0, 0.0, 0.0, 9.0])) == [0, 1, 3, 2]


def test_unknown_selection_is_refused():
    with pytest.raises(ValueError, match="'best'"):
        ranking("best")


DOUBTING = [("plausible", (16, 20)), ("unprompted", (4, 8))]
"""Selections, and the noise levels of 32 that they look at."""


def judged(spec, plans, network, levels, select, pinned=None):
    return judge(
        spec,
        plans,
        CleanPredictor(network, levels),
        plans,
        torch.zeros_like(plans, dtype=torch.bool) if pinned is None else pinned,
        plans,
        [torch.Generator().manual_seed(0)],
        levels=32,
        select=select,
    )


@pytest.mark.parametrize(("select", "looked_at"), DOUBTING)
def test_a_path_unlike_the_data_is_implausible(spec, exact_denoiser, select, looked_at):
    """The data are N(0, s^2): what strays by 3 comes back by 3 (1 - a^2 s^2 / (a^2 s^2 + 1 - a^2))."""
    levels = make_scheduler(train_steps=32).alphas_cumprod
    plans = torch.zeros(3, 6, spec.width)
    plans[..., spec.arrived] = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    plans[1, 2, spec.position_columns] = 3.0
    plans[2, 5, spec.position_columns] = 3.0  # after arrival, where it does not count
    verdict = judged(spec, plans, exact_denoiser(0.0, 0.1, levels), levels, select)
    shrink = [a * 0.01 / (a * 0.01 + 1 - a) for a in levels[list(looked_at)].tolist()]
    assert verdict.arrivals.tolist() == [3, 3, 3]
    assert verdict.implausibility[1] == pytest.approx(max(2 * (3 * (1 - f)) ** 2 for f in shrink), rel=0.1)
    assert verdict.implausibility[[0, 2]].max() < 0.5
    torch.testing.assert_close(verdict.consistency, torch.tensor([0.0, 18**0.5, 0.0]))


@pytest.mark.parametrize(("select", "looked_at"), DOUBTING)
@pytest.mark.parametrize("arrived_at", [1, 3, 5])
def test_a_leap_to_the_goal_is_implausible_however_soon(spec, exact_denoiser, select, looked_at, arrived_at):
    levels = make_scheduler(train_steps=32).alphas_cumprod
    plans = torch.zeros(2, 6, spec.width)
    plans[..., spec.arrived] = torch.where(torch.arange(6) >= arrived_at, 1.0, -1.0)
    plans[1, arrived_at:, spec.position_columns[0]] = 3.0
    verdict = judged(spec, plans, exact_denoiser(0.0, 0.1, levels), levels, select)
    assert verdict.implausibility[1] > 5 > 0.5 > verdict.implausibility[0]


@pytest.mark.parametrize(("select", "looked_at"), DOUBTING)
def test_only_the_unprompted_judgement_is_not_told_the_end(spec, select, looked_at, generator):
    levels = make_scheduler(train_steps=32).alphas_cumprod
    pinned = torch.rand(3, 6, spec.width, generator=generator) < 0.4
    plans, seen = torch.randn(3, 6, spec.width, generator=generator), []

    def watch(noisy, timestep, given):
        seen.append((given, set(timestep.tolist())))
        assert torch.equal(noisy[given], plans[given])
        return noisy

    judged(spec, plans, watch, levels, select, pinned)
    told = pinned.clone()
    if select == "unprompted":
        told[:, 1:] = False
    assert all(torch.equal(given, told) for given, _ in seen)
    assert {t for _, ts in seen for t in ts} == set(looked_at)


@pytest.mark.parametrize("select", ["earliest", "first", "fastest"])
def test_selections_that_do_not_doubt_skip_its_cost(spec, select):
    def never(*_):
        raise AssertionError("the denoiser was asked")

    verdict = judged(spec, torch.zeros(2, 6, spec.width), never, make_scheduler(train_steps=32).alphas_cumprod, select)
    assert verdict.implausibility.tolist() == [0, 0]
