"""diffusers' noise schedulers through one typed door.

All of them integrate a predicted clean trajectory (`prediction_type="sample"`), whatever the network predicts.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Literal, TypeAlias, get_args

from diffusers.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

Sampler = Literal["ddpm", "ddim", "dpm++"]
Scheduler: TypeAlias = DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler
_CLASSES: dict[str, Any] = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}


def make_scheduler(sampler: Sampler = "ddim", *, train_steps: int = 32, betas: list[float] | None = None) -> Scheduler:
    """A scheduler over `train_steps` noise levels: squared-cosine ones (Nichol & Dhariwal 2021), or own `betas`.

    Clipping is left to the sampling loop, which knows what is pinned. Trailing spacing begins at the highest
    level: the other spacings leave the multistep solver without its last level.

    Raises:
        ValueError: an unknown sampler, or fewer than two noise levels.
    """
    if sampler not in _CLASSES:
        raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(get_args(Sampler))}")
    if train_steps < 2:
        raise ValueError(f"train_steps={train_steps} must be at least 2")
    common = {
        "num_train_timesteps": train_steps,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
        "trained_betas": betas,
    }
    if sampler == "dpm++":
        return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", final_sigmas_type="zero")
    return _CLASSES[sampler](**common, clip_sample=False)


def sampler_of(scheduler: Scheduler) -> Sampler:
    """Name of a scheduler's sampler."""
    for name, kind in _CLASSES.items():
        if isinstance(scheduler, kind):
            return name  # type: ignore[return-value]
    raise ValueError(f"{type(scheduler).__name__} is not one of {', '.join(c.__name__ for c in _CLASSES.values())}")


def for_one_plan(scheduler: Scheduler, sampler: Sampler | None, steps: int) -> Scheduler:
    """A fresh scheduler of the same noise levels, set to `steps`: multistep solvers keep state between steps.

    Raises:
        ValueError: steps outside 1 to the training steps, or steps of DDPM or DDIM that do not divide them
            (their jumps would not meet the noise levels that they are told).
    """
    levels = scheduler.config.num_train_timesteps
    name = sampler or sampler_of(scheduler)
    if not 1 <= steps <= levels:
        raise ValueError(f"steps={steps} must lie between 1 and the {levels} training steps")
    if name != "dpm++" and levels % steps:
        fits = [n for n in range(1, levels + 1) if levels % n == 0]
        raise ValueError(f"steps={steps} does not divide the {levels} noise levels; {name} takes {fits} (or use dpm++)")
    own = None if scheduler.config.beta_schedule == "squaredcos_cap_v2" else tuple(scheduler.betas.tolist())
    made = _set_to(name, levels, own, steps)
    return copy.deepcopy(made) if name == "dpm++" else copy.copy(made)  # the others keep no state


@functools.lru_cache(maxsize=64)
def _set_to(sampler: Sampler, levels: int, betas: tuple[float, ...] | None, steps: int) -> Scheduler:
    """Made once, and copied: the making takes milliseconds."""
    made = make_scheduler(sampler, train_steps=levels, betas=None if betas is None else list(betas))
    made.set_timesteps(steps)
    return made
