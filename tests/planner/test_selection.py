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
    assert ranking("first") == [0, 1, 2, 3]
    assert ranking("plausible") == [0, 1, 2, 3]
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


def test_a_path_unlike_the_data_is_implausible(spec, exact_denoiser):
    """The data are N(0, 0.1^2): a plan that strays by 3 is doubted, unless it strays after arrival."""
    levels = make_scheduler(train_steps=32).alphas_cumprod
    plans = torch.zeros(3, 6, spec.width)
    plans[..., spec.arrived] = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    plans[1, 2, spec.position_columns] = 3.0
    plans[2, 5, spec.position_columns] = 3.0
    pinned = torch.zeros_like(plans, dtype=torch.bool)
    verdict = judge(
        spec,
        plans,
        CleanPredictor(exact_denoiser(0.0, 0.1, levels), levels),
        plans,
        pinned,
        plans,
        [torch.Generator().manual_seed(0)],
        levels=32,
        select="plausible",
    )
    assert verdict.arrivals.tolist() == [3, 3, 3]
    assert verdict.implausibility[1] == pytest.approx(18, rel=0.2)
    assert verdict.implausibility[[0, 2]].max() < 0.5
    torch.testing.assert_close(verdict.consistency, torch.tensor([0.0, 18**0.5, 0.0]))
