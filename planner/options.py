"""How plans are sampled and chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from .schedulers import Sampler
from .selection import Selection, check_selection

Guidance = Literal["both", "gradient", "candidates", "particles"]

MOST_CANDIDATES, MOST_LEGS = 1024, 16


@dataclass(frozen=True)
class Sampling:
    """How plans are sampled and chosen; every field can be overridden at each call.

    Args:
        candidates: K plans sampled for each problem, of which the best is chosen.
        steps: denoising steps.
        sampler: "ddim", "ddpm" or "dpm++".
        temperature: scale of all noise put in; lower gives likelier, less varied plans.
        eta: of DDIM; 1 adds DDPM's noise at each step, 0 none.
        select: how candidates are ranked (see `selection`).
        warm_steps: denoising steps of a replan that begins from the plan before.
        incumbent: at a replan, what is left of the plan before competes with the new candidates.
        spread: plans whose end is free are asked for durations spread evenly over the horizon, one per candidate; left
            to themselves most of them would be short, as most training windows are.
        legs: plans may be made of so many legs (see `stitching`): for goals farther than any recorded episode goes.
        guidance: what guides do. "gradient" bends each candidate while it is denoised, "candidates" lets the guide's
            score choose among them, "both" does both; "particles" resamples them while they are denoised, and chooses.
        gradient_cap: largest norm by which guides may move a plan in one step, in normalised units.
        smoothing: tokens over which a guide's moves are smoothed (see `sampling.Steering`).
        raced_candidates, raced_steps: in place of `candidates` and `steps` where an executor races plans: the network
            has to get the route right, and pace and shape are the plant's. None for no fewer.
    """

    candidates: int = 8
    steps: int = 8
    sampler: Sampler = "ddim"
    temperature: float = 0.7
    eta: float = 1.0
    select: Selection = "plausible"
    warm_steps: int = 4
    incumbent: bool = True
    spread: bool = True
    legs: int = 1
    guidance: Guidance = "both"
    gradient_cap: float = 1.0
    smoothing: float = 3.0
    raced_candidates: int | None = None
    raced_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("candidates", "raced_candidates"):
            count = getattr(self, name)
            if count is not None and not 1 <= count <= MOST_CANDIDATES:
                raise ValueError(f"{name}={count} must lie between 1 and {MOST_CANDIDATES}")
        if not 0 <= self.smoothing < math.inf:
            raise ValueError(f"smoothing={self.smoothing} must be a finite number of tokens, 0 or more")
        if self.warm_steps < 1:
            raise ValueError(f"warm_steps={self.warm_steps} must be at least 1")
        if not 1 <= self.legs <= MOST_LEGS:
            raise ValueError(f"legs={self.legs} must lie between 1 and {MOST_LEGS}")
        check_selection(self.select)
        if self.guidance not in get_args(Guidance):
            raise ValueError(f"unknown guidance {self.guidance!r}; known: {', '.join(get_args(Guidance))}")

    def fitting(self, *, guided: bool, raced: bool) -> Sampling:
        """As it can be: the fastest course knows nothing of guides, so the denoiser judges guided plans.

        Args:
            guided: whether a guide is at work.
            raced: whether there is a plant that courses can be laid with.

        Raises:
            ValueError: the fastest is asked for and nothing can tell which that is.
        """
        if self.select != "fastest":
            return self
        if guided:
            return replace(self, select="plausible")
        if not raced:
            raise ValueError(
                "select 'fastest' needs a plant fitted to the data, and this planner has none; "
                "train it again, or choose another way, such as plausible"
            )
        return self

    def racing(self) -> dict[str, Any]:
        """Options of plans that are raced and followed at once: as few candidates and steps as that takes."""
        few = {"candidates": self.raced_candidates, "steps": self.raced_steps}
        return {name: value for name, value in few.items() if value is not None and self.select == "fastest"}

    def changed(self, options: dict[str, Any]) -> Sampling:
        """With the options that are not None."""
        known = {f.name for f in fields(self)}
        for name in options:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; known: {', '.join(sorted(known))}")
        return replace(self, **{k: v for k, v in options.items() if v is not None})
