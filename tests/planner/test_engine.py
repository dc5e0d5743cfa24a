"""Plans that were made ready are the plans that they would have been."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffplan.planner.constants import constant, picked
from diffplan.planner.engine import Frozen, quickened
from diffplan.planner.guides import Guide, via
from diffplan.planner.pipeline import TrajectoryPlanner
from diffplan.planner.plan import Plan

START, GOAL = [0.1, -0.2, 0.3, 0.0], [0.7, 0.9]
EAST = Guide.of(lambda spec, path: -path[:, 3, 2], "east")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
WAYS = {
    "as it comes": {},
    "one step": {"candidates": 1, "steps": 1, "select": "first"},
    "deterministic": {"eta": 0.0},
    "multistep": {"sampler": "dpm++", "steps": 3},
    "guided": {"guide": 3.0 * EAST, "candidates": 3},
    "chosen by a guide": {"guide": EAST, "guidance": "candidates"},
    "past a point": {"guide": 10.0 * via(0.3, 0.3)},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=DEVICES)
def planner(make_planner, request) -> TrajectoryPlanner:
    return make_planner().to(request.param)


def ask(planner: TrajectoryPlanner, seeds=(5,), **options) -> list[Plan]:
    starts = [[0.1 * i, *START[1:]] for i in range(len(seeds))]
    problems = [planner.problem(start, GOAL) for start in starts]
    return planner.plan_many(problems, generators=[seeded(s) for s in seeds], **options)


def same(one: list[Plan], other: list[Plan]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.trajectories, b.trajectories, atol=2e-4)
        np.testing.assert_allclose(a.scores, b.scores, atol=2e-4)
        assert a.guides == b.guides


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 3])
def test_they_are_the_same_plans(planner, way, count):
    seeds = range(count)
    before = ask(planner, seeds, **WAYS[way])
    planner.prepare(count, **WAYS[way])
    assert len(planner._ready) == 1
    same(before, ask(planner, seeds, **WAYS[way]))
    same(before, ask(planner, seeds, **WAYS[way]))  # a second use finds nothing of the first


@pytest.mark.parametrize("way", ["as it comes", "guided"])
def test_replans_are_too(planner, way):
    options = WAYS[way] | {"warm_steps": 2}
    (first,) = ask(planner, **options)
    before = ask(planner, previous=[(first, 2.0)], **options)
    planner.prepare(replanning=True, **options)
    same(before, ask(planner, previous=[(first, 2.0)], **options))


def test_what_was_passed_is_seen_by_prepared_plans(planner):
    """A guide that asks for what was passed is told at each call, not when it was made ready."""
    guide, here = 10.0 * via(0.3, 0.3), [np.array([[0.3, 0.3, 0.0, 0.0]])]
    planner.prepare(guide=guide)  # of plans that passed nothing: another shape of question
    same(ask(planner, guide=guide, past=here), ask(planner, guide=guide, past=here))
    assert not np.allclose(
        ask(planner, guide=guide, past=here)[0].trajectories, ask(planner, guide=guide)[0].trajectories, atol=1e-3
    )


def test_other_questions_are_answered_as_before(planner):
    planner.prepare(candidates=2)
    assert len(ask(planner, candidates=3)[0].trajectories) == 3


@pytest.mark.parametrize("options", [{"sampler": "ddpm", "temperature": 1.0}, {"guide": EAST, "guidance": "particles"}])
def test_what_draws_its_own_noise_cannot_be_prepared(planner, options):
    with pytest.raises(ValueError, match=r"ddpm or by particles cannot be prepared; use ddim or dpm"):
        planner.prepare(**options)


def test_moving_a_planner_forgets_what_was_prepared(planner):
    planner.prepare()
    planner.to("cpu")
    assert not planner._ready


@pytest.mark.parametrize("steps", [1, 4])
def test_plans_by_the_thousand_start_and_end_where_they_should(planner, steps):
    sample = planner.sampler(50, candidates=2, steps=steps)
    starts = torch.randn(50, 4, generator=seeded(0)).to(planner.device)
    goals = torch.randn(50, 2, generator=seeded(1)).to(planner.device)
    made = sample(starts, goals)
    spec = planner.spec
    assert made.shape == (50, 2, planner.horizon, spec.width)
    torch.testing.assert_close(made[:, :, 0, spec.observations], starts[:, None].expand(-1, 2, -1))
    torch.testing.assert_close(made[:, :, -1, spec.position_columns], goals[:, None].expand(-1, 2, -1))
    assert (made[:, :, -1, spec.arrived] == 1).all()
    assert (made[:, 0] != made[:, 1]).any()


def test_a_thousandth_plan_is_a_plan(planner):
    """The same noise gives what `plan` gives."""
    options = {"candidates": 3, "steps": 4, "select": "first"}
    want = planner.plan(planner.problem(START, GOAL), generator=seeded(7), **options)
    if planner.device.type == "cuda":
        pytest.skip("noise is drawn on the GPU there")
    sample = planner.sampler(1, generator=seeded(7), candidates=3, steps=4)
    made = sample(torch.tensor([START]), torch.tensor([GOAL]))[0]
    np.testing.assert_allclose(made.numpy(), want.trajectories, atol=1e-5)


def test_a_frozen_network_says_what_the_network_says(planner):
    network = planner.denoiser
    frozen = Frozen(network)
    x, t = torch.randn(3, planner.horizon, planner.spec.width, device=planner.device), torch.tensor([0, 3, 7])
    pinned = torch.rand(x.shape, device=planner.device) < 0.3
    with torch.no_grad():
        for size in (3, 2, 3):
            given = x[:size], t[:size].to(planner.device), pinned[:size]
            torch.testing.assert_close(frozen(*given), network(*given), atol=1e-5, rtol=1e-4)


def test_a_frozen_network_has_gradients(planner):
    x = torch.randn(1, planner.horizon, planner.spec.width, device=planner.device, requires_grad=True)
    pinned = torch.zeros_like(x, dtype=torch.bool)
    frozen, t = Frozen(planner.denoiser), torch.zeros(1, dtype=torch.long, device=planner.device)
    (own,) = torch.autograd.grad(planner.denoiser(x, t, pinned).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(frozen(x, t, pinned).sum(), x)[0], own)


def test_half_precision_is_near(planner):
    half = quickened(planner.denoiser, "bfloat16", compiled=False)
    x, t = torch.randn(2, planner.horizon, planner.spec.width, device=planner.device), torch.tensor([3])
    pinned = torch.zeros_like(x, dtype=torch.bool)
    with torch.no_grad():
        own, low = (net(x, t.to(planner.device), pinned) for net in (planner.denoiser, half))
    assert low.dtype == torch.float32 and next(planner.denoiser.parameters()).dtype == torch.float32
    assert 0 < (own - low).abs().max() < 0.1 * own.abs().max()


@pytest.mark.parametrize("columns", [[], [2], [1, 2, 3], [3, 1], [0, 4]])
def test_columns_are_picked_in_order(columns):
    values = torch.randn(2, 3, 5)
    assert torch.equal(picked(values, columns), values[..., columns])


def test_constants_are_made_once_for_each_kind():
    like = torch.zeros(1)
    assert constant([1, 2], like) is constant((1.0, 2.0), like)
    assert constant([1, 2], like.double()).dtype == torch.float64
