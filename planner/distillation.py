"""One step for many: a student learns where its teacher's probability flow ends.

DDIM without noise (Song et al. 2021, arXiv 2010.02502) integrates the ordinary differential equation whose trajectories
lead from noise to data, one end for every beginning. A network that says that end at once, from any point on the way,
is a consistency function (Song et al. 2023, arXiv 2303.01469). It is learned here by regression on ends that the
teacher integrates (Luhman & Luhman 2021, arXiv 2101.02388) from the teacher's own weights on (Salimans & Ho 2022,
arXiv 2202.00512):

    level      31 --> 27 --> 23 -->  ..  --> 3 --> clean     the teacher's steps
               31 -----------------------------> clean     the student, half of the time
                          24 ------------------> clean     and from any other level

The levels between make replans from the plan before, and plans of two steps, questions that it knows, too.

Shape letters: B batch, H horizon (tokens), D columns of a token, T noise levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .diffusion import Prediction, signal_and_noise
from .normalizer import Normalizer
from .objectives import draw_pins, entry_weights
from .sampling import CleanPredictor
from .training import Objective, TrainConfig
from .windows import Windows

HIGHEST_SHARE = 0.5  # of the windows begin at the highest level, where plans of one step do
SCALES = (0.3, 1.0)  # of the noise, drawn evenly: plans are sampled at temperatures below 1


def distilling(
    teacher: CleanPredictor,
    windows: Windows,
    normalizer: Normalizer,
    config: TrainConfig,
    *,
    grid: Sequence[int],
) -> Objective:
    """To say where the teacher's probability flow ends, from noisy windows of any level.

    Args:
        teacher: integrates; it is not trained.
        windows: where questions come from: pins with values that belong together.
        normalizer: environment units to network units.
        config: batch and weights, as for training; `prediction` is what the student says.
        grid: noise levels that the teacher steps through, falling, as a DDIM scheduler's timesteps.

    The objective measures "loss" and "teacher_gap", the unweighted mean squared distance from the teacher's ends.
    """
    device = windows.device
    normalizer, alphas_cumprod = normalizer.to(device), teacher.alphas_cumprod.to(device)
    teacher = CleanPredictor(teacher.denoiser, alphas_cumprod, teacher.prediction, teacher.clip)
    weights = entry_weights(windows.spec, windows.horizon, config, state_only=windows.state_only).to(device)

    def objective(model: nn.Module, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        clean, length = windows.sample(config.batch_size, generator)
        clean = normalizer.normalize(clean)
        pinned = draw_pins(windows.spec, length, windows.horizon, generator, state_only=windows.state_only)
        timestep = draw_levels(len(clean), len(alphas_cumprod), generator)
        noisy = noised_softly(clean, pinned, alphas_cumprod, timestep, generator)
        with torch.autocast(device.type, enabled=False):  # what is learned from is exact
            end = flow_end(teacher, noisy, timestep, pinned, clean, grid=grid)
        student = CleanPredictor(model, alphas_cumprod, config.prediction)  # not clipped: it has to learn at the bounds
        error = (student(noisy, timestep, pinned, clean).float() - end).square()
        free = (~pinned).float()
        loss = (error * free * weights).sum() / (free * weights).sum()
        gap = (error.detach() * free).sum() / free.sum()
        return loss, {"loss": loss.detach(), "teacher_gap": gap}

    return objective


def student_prediction(teacher: Prediction) -> Prediction:
    """What a teacher's student says: the same, but for noise.

    A clean trajectory is read from noise by dividing by alpha_t, which at the highest level is next to nothing
    (Salimans & Ho 2022, section 4): the student of such a teacher learns to say the clean trajectory instead.
    """
    return "x0" if teacher == "eps" else teacher


def draw_levels(batch: int, levels: int, generator: torch.Generator) -> Tensor:
    """Noise levels (B,) to begin at: the highest for half of them, any for the others."""
    device = generator.device
    any_level = torch.randint(levels, (batch,), generator=generator, device=device)
    return torch.where(torch.rand(batch, generator=generator, device=device) < HIGHEST_SHARE, levels - 1, any_level)


def noised_softly(
    clean: Tensor, pinned: Tensor, alphas_cumprod: Tensor, timestep: Tensor, generator: torch.Generator
) -> Tensor:
    """Clean trajectories (B, H, D) with noise on their free entries, for each at a scale of its own (see `SCALES`)."""
    low, high = SCALES
    scale = low + (high - low) * torch.rand(len(clean), 1, 1, generator=generator, device=clean.device)
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    alpha, sigma = signal_and_noise(alphas_cumprod, timestep)
    return torch.where(pinned, clean, alpha * clean + sigma * scale * noise)


@torch.no_grad()
def flow_end(
    predict: CleanPredictor, noisy: Tensor, timestep: Tensor, pinned: Tensor, values: Tensor, *, grid: Sequence[int]
) -> Tensor:
    """Where the probability flow leads from noisy trajectories: clean ones (B, H, D), pins exact.

    Each row steps from its own level to the next lower one of the grid, and on along it to the end. All rows go through
    all steps, which leave those that begin lower alone: a CUDA graph knows no other way.

    Args:
        predict: the denoiser, its noise levels on the device of what is denoised.
        noisy: (B, H, D) normalised.
        timestep: (B,) level of each, at most the grid's first.
        pinned, values: (B, H, D) what is held, normalised.
        grid: levels, falling.
    """
    clean_level = predict.alphas_cumprod.new_ones(1)
    levels = torch.cat([clean_level, predict.alphas_cumprod])  # by timestep + 1: what is clean is level 0
    for high, low in pairwise((*grid, -1)):
        now = timestep.clamp(max=high)
        clean = predict(noisy, now, pinned, values).float()
        onto = torch.full_like(now, low + 1)
        moved = ddim_step(noisy, clean, *signal_and_noise(levels, now + 1), *signal_and_noise(levels, onto))
        due = (timestep > low).reshape(-1, 1, 1)
        noisy = torch.where(due & ~pinned, moved, noisy)
    return torch.where(pinned, values, noisy)


def ddim_step(
    noisy: Tensor, clean: Tensor, alpha: Tensor, sigma: Tensor, onto_alpha: Tensor, onto_sigma: Tensor
) -> Tensor:
    """The deterministic step (B, H, D) of DDIM from one level to another (Song et al. 2021, eq. 12 with sigma = 0)."""
    return onto_alpha * clean + onto_sigma * (noisy - alpha * clean) / sigma
