"""Choosing among candidates without a map: how sure is the denoiser that a plan is like its data?

Shape letters: B = P * K batch (problems times candidates), H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .constants import picked
from .sampling import CleanPredictor, Draw, drawing
from .spec import TrajectorySpec
from .windows import arrival, consistency, worst_before_arrival

Selection = Literal["fastest", "balanced", "plausible", "unprompted", "earliest", "preferred", "first"]

JUDGED_AT = (0.5, 0.625)  # noise levels, as shares of the training steps
JUDGED_UNPROMPTED_AT, DRAWS_UNPROMPTED = (0.125, 0.25), 4
GUIDE_SHARE = 10.0  # of a guide's score beside doubt, so that a wish decides among those that would do


class Verdict(NamedTuple):
    """Per candidate (B,): arrival token, worst self-consistency (position units), implausibility (normalised)."""

    arrivals: Tensor
    consistency: Tensor
    implausibility: Tensor


def check_selection(select: str) -> None:
    """Refuse an unknown way to choose."""
    if select not in get_args(Selection):
        raise ValueError(f"unknown selection {select!r}; known: {', '.join(get_args(Selection))}")


def judge(
    spec: TrajectorySpec,
    trajectories: Tensor,
    predict: CleanPredictor,
    clean: Tensor,
    pinned: Tensor,
    values: Tensor,
    generators: Sequence[torch.Generator],
    *,
    levels: int,
    select: Selection,
    draw: Draw | None = None,
) -> Verdict:
    """Look at candidates from three sides.

    Implausibility noises a plan to high levels, denoises it once, and takes the largest squared position error
    before arrival: what the network would not have drawn itself, a path through a wall above all, comes back
    elsewhere. "unprompted" does so without telling it where the plan has to end, at low noise levels: a goal that is
    farther than any in the data makes it sure of ways that it would never go by itself.

    Args:
        spec: the columns.
        trajectories: (B, H, D) in environment units.
        predict: the denoiser.
        clean, pinned, values: the same trajectories and their conditions, normalised.
        generators: one per problem.
        levels: training steps of the scheduler.
        select: "fastest", "earliest", "preferred" and "first" do not look at implausibility and skip its cost.
        draw: where noise comes from; None for the generators.
    """
    arrivals = arrival(spec, trajectories)
    worst = worst_before_arrival(spec, trajectories, consistency(spec, trajectories))
    draw = draw or drawing(generators, clean.shape[1:], clean.device)
    doubt = torch.zeros_like(worst)
    if select in ("balanced", "plausible", "unprompted"):
        columns = spec.position_columns or list(range(spec.width)[spec.observations])
        levels_at, draws = JUDGED_AT, 1
        if select == "unprompted":
            levels_at, draws, pinned = JUDGED_UNPROMPTED_AT, DRAWS_UNPROMPTED, pinned.clone()
            pinned[:, 1:] = False
        for share in levels_at:
            level = min(levels - 1, round(share * levels))
            t = torch.full((len(clean),), level, device=clean.device)
            alpha = predict.alphas_cumprod[level].sqrt()
            bias = torch.zeros_like(picked(clean, columns))
            for _ in range(draws):  # the mean over draws is what the network would change, whatever the noise
                noise = draw(len(clean) // len(generators))
                noisy = torch.where(pinned, clean, alpha * clean + (1 - alpha**2).sqrt() * noise)
                bias += picked(predict(noisy, t, pinned, values) - clean, columns) / draws
            off = bias.square().sum(-1)[:, 1:]  # of the token that each step leads to: a leap to the goal is one, too
            doubt = torch.maximum(doubt, worst_before_arrival(spec, trajectories, off))
    return Verdict(arrivals, worst, doubt)


def order(verdict: Verdict, select: Selection, *, candidates: int, bound: float, liked: Tensor | None = None) -> Tensor:
    """Scores (B,), higher is better, ranking the candidates of each problem.

    - "plausible" and "unprompted": the least implausible.
    - "earliest": the earliest arrival among those whose dynamics hold (consistency within `bound`).
    - "balanced": the earliest among the more plausible half.
    - "preferred": what the guide's score (B,) says, alone; without a guide the first sampled.
    - "first": the first sampled.
    - "fastest": likewise, until their courses are compared (see `racing`).

    With a guide, its score (B,) decides among those that would otherwise do.
    """
    check_selection(select)
    arrivals, worst, doubt = (v.reshape(-1, candidates).double() for v in verdict)
    if select == "preferred" and liked is not None:
        return liked.double()
    if select in ("first", "preferred", "fastest"):
        scores = -torch.arange(candidates, device=arrivals.device, dtype=torch.float64).expand_as(arrivals)
    elif select in ("plausible", "unprompted"):
        scores = -doubt
    elif select == "earliest":
        scores = -arrivals - 1e3 * torch.relu(worst - bound)
    else:
        half = doubt > doubt.median(dim=1, keepdim=True).values
        scores = -arrivals - 1e3 * half - doubt.clamp(max=1.0)
    if liked is not None and select != "first":
        scores = scores + GUIDE_SHARE * liked.reshape(-1, candidates).double()
    return scores.flatten()
