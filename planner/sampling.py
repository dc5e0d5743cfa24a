"""The reverse process: from noise to trajectories, one visible loop.

Shape letters: P problems, K candidates of each, B = P * K batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from .diffusion import Denoiser, Prediction, predict_clean, signal_and_noise
from .schedulers import Scheduler

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A guide as a step sees it: clean and noisy trajectories (B, H, D), normalised, and timesteps (B,), to scores (B,)."""

Draw = Callable[[int], Tensor]
"""Standard normal noise (P * K, H, D): K samples for each of P problems."""


@dataclass(frozen=True)
class Steering:
    """How a guide acts while trajectories are denoised.

    Attributes:
        at: what is at work at a progress from noise (0) to plan (1); None for nothing.
        gradient: climb the score's gradient.
        particles: resample the candidates of a problem by their scores as they become clear.
        gradient_cap: largest norm, over H and D, by which one clean trajectory may be moved in a step.
        smoothing: standard deviation in tokens over which a move is smoothed; 0 for none. The gradient through a
            network is jagged in time, trajectories are not: unsmoothed moves make plans that cannot be followed.
        carried: where what is at work changes from one progress to another, what is at work at both; None where nothing
            changes. Particles keep no credit for a wish that has ended.
    """

    at: Callable[[float], Score | None]
    gradient: bool = True
    particles: bool = False
    gradient_cap: float | None = None
    smoothing: float = 0.0
    carried: Callable[[float, float], Score | None] | None = None


@dataclass(frozen=True)
class Step:
    """One step of the film from noise to plan.

    Attributes:
        index: 0 for the first step taken.
        total: steps of the whole film.
        timestep: training timestep that was denoised.
        clean: predicted clean trajectories (B, H, D), normalised, pins exact.
        noisy: the next, less noisy sample (B, H, D); after the last step the result.
        pinned, values: (B, H, D) the conditions of each: particles take theirs along.
    """

    index: int
    total: int
    timestep: int
    clean: Tensor
    noisy: Tensor
    pinned: Tensor
    values: Tensor


@dataclass(frozen=True)
class CleanPredictor:
    """A denoiser of any kind, read as the predicted clean trajectory."""

    denoiser: Denoiser
    alphas_cumprod: Tensor
    prediction: Prediction = "x0"
    clip: float | None = None

    def __call__(self, noisy: Tensor, timestep: Tensor, pinned: Tensor, values: Tensor) -> Tensor:
        """(B, H, D) at timesteps (B,); free entries are clipped, pinned ones take their values."""
        clean = self.denoiser(noisy, timestep, pinned)
        if self.prediction != "x0":
            clean = predict_clean(clean, noisy, *signal_and_noise(self.alphas_cumprod, timestep), self.prediction)
        clean = clean if self.clip is None else clean.clamp(-self.clip, self.clip)
        return torch.where(pinned, values, clean)


def draw_noise(generators: Sequence[torch.Generator], each: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """`each` standard normal samples of `shape` from every generator: a problem's noise is its own in any batch."""
    parts = [torch.randn((each, *shape), generator=g, device=g.device) for g in generators]
    return torch.cat(parts).to(device)


def drawing(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Draw:
    """Noise (H, D) from the generators, one per problem."""
    return lambda each: draw_noise(generators, each, shape, device)


def denoise(
    predict: CleanPredictor,
    scheduler: Scheduler,
    pinned: Tensor,
    values: Tensor,
    *,
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    eta: float = 1.0,
    steering: Steering | None = None,
    warm: Tensor | None = None,
    skip: int = 0,
    draw: Draw | None = None,
) -> Iterator[Step]:
    """Sample trajectories under conditions, yielding every step.

    Args:
        predict: the network, read as a clean predictor.
        scheduler: set to its steps, and used for this plan alone (`schedulers.for_one_plan`).
        pinned: (B, H, D) bool.
        values: (B, H, D) normalised values of the pinned entries.
        generators: P of them, B a multiple of P.
        temperature: scales the standard deviation of all noise put in; below 1 gives likelier, less varied plans.
        eta: of DDIM (Song et al. 2021, eq. 16): 0 is deterministic, 1 has DDPM's variance.
        steering: a guide. Its gradient enters at x_t with weight sigma_t^2 / alpha_t, the same for every sampler (from
            Tweedie's formula: adding g to the score of x_t moves the predicted x_0 by sigma_t^2 / alpha_t * g).
            Particles are the candidates of one problem, resampled by how much their score has risen since they last
            were (Feynman-Kac steering with the difference potential, Singhal et al. 2025, arXiv 2501.06848).
        warm: (B, H, D) normalised trajectories to begin from instead of pure noise.
        skip: steps left out at the noisy end; `warm` is noised to the first level that remains.
        draw: where noise comes from, but DDPM's and particles'; None for the generators.

    Raises:
        ValueError: a temperature other than 1 with DDPM, whose noise is drawn inside diffusers; a skip out of range;
            particles without noise between the steps, which would stay copies of each other.
    """
    steps = scheduler.timesteps.tolist()
    _check(scheduler, steps, generators, pinned, temperature, eta, steering, skip=skip, warm=warm)
    each, device = len(pinned) // len(generators), values.device
    draw = draw or drawing(generators, values.shape[1:], device)
    noisy = temperature * draw(each)
    if warm is not None:
        level = predict.alphas_cumprod.to(device)[steps[skip]]
        noisy = level.sqrt() * warm + (1 - level).sqrt() * noisy
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skip)
    noisy = torch.where(pinned, values, noisy)
    credited = torch.zeros(len(noisy), device=device)
    total = len(steps) - skip
    for index, timestep in enumerate(steps[skip:]):
        t, progress = torch.full((len(noisy),), timestep, device=device), index / total
        score = None if steering is None else steering.at(progress)
        if steering is None or score is None:
            clean = predict(noisy, t, pinned, values)
        else:
            if steering.gradient:
                clean = _guided(predict, noisy, t, pinned, values, score, steering)
            else:
                clean = predict(noisy, t, pinned, values)
            if steering.particles:
                last = index == total - 1
                alike = None if steering.carried is None or last else steering.carried(progress, (index + 1) / total)
                now, surely = score(clean, noisy, t), last or alike is not None
                kept, credited = _resample(now, credited, generators, surely=surely)
                clean, noisy, pinned, values = clean[kept], noisy[kept], pinned[kept], values[kept]
                credited = credited if alike is None else alike(clean, noisy, t)
        if index == total - 1:  # no scheduler leaves any noise here
            noisy = clean
        else:
            noisy = _advance(scheduler, clean, timestep, noisy, generators, temperature, eta, draw)
        noisy = torch.where(pinned, values, noisy)
        yield Step(index, total, timestep, clean, noisy, pinned, values)


def _check(
    scheduler: Scheduler,
    steps: Sequence[int],
    generators: Sequence[torch.Generator],
    pinned: Tensor,
    temperature: float,
    eta: float,
    steering: Steering | None,
    *,
    skip: int,
    warm: Tensor | None,
) -> None:
    """Refuse what cannot be sampled; errors as for `denoise`."""
    if not 0 <= skip < len(steps) or (skip and warm is None):
        raise ValueError(f"skip={skip} needs a warm start and must be below the {len(steps)} steps")
    if isinstance(scheduler, DDPMScheduler) and temperature != 1:
        raise ValueError(
            f"ddpm samples at temperature 1 only, got {temperature}; use ddim, which with eta=1 is the same"
        )
    if (
        steering
        and steering.particles
        and not (isinstance(scheduler, DDPMScheduler) or (isinstance(scheduler, DDIMScheduler) and eta > 0))
    ):
        raise ValueError("particles need noise between the steps: use ddim with eta above 0, or ddpm")
    if len(pinned) % len(generators):
        raise ValueError(f"{len(pinned)} trajectories cannot be shared evenly by {len(generators)} generators")


def _advance(
    scheduler: Scheduler,
    clean: Tensor,
    timestep: int,
    noisy: Tensor,
    generators: Sequence[torch.Generator],
    temperature: float,
    eta: float,
    draw: Draw,
) -> Tensor:
    """One step of a diffusers scheduler: each kind asks for its noise in its own way."""
    each = len(noisy) // len(generators)
    extra: dict[str, object] = {}
    if isinstance(scheduler, DDIMScheduler):
        drawn = draw(each) if eta > 0 else None
        extra = {"eta": eta, "variance_noise": None if drawn is None else temperature * drawn}
    elif isinstance(scheduler, DDPMScheduler):
        extra = {"generator": [g for g in generators for _ in range(each)]}
    return scheduler.step(clean, timestep, noisy, return_dict=False, **extra)[0]


def _guided(
    predict: CleanPredictor,
    noisy: Tensor,
    t: Tensor,
    pinned: Tensor,
    values: Tensor,
    score: Score,
    steering: Steering,
) -> Tensor:
    """The clean prediction, moved up the guide's gradient."""
    with torch.enable_grad():
        x = noisy.detach().requires_grad_(True)
        clean = predict(x, t, pinned, values)
        gradient = torch.autograd.grad(score(clean, x, t).sum(), x)[0]
    alpha, sigma = signal_and_noise(predict.alphas_cumprod, t)
    move = torch.where(pinned, 0.0, sigma**2 / alpha * gradient)
    if steering.smoothing > 0:
        move = torch.where(pinned, 0.0, smoothed(move, steering.smoothing))
    if steering.gradient_cap is not None:
        norm = move.flatten(1).norm(dim=1).clamp(min=1e-12)
        move = move * (steering.gradient_cap / norm).clamp(max=1.0).reshape(-1, 1, 1)
    moved = clean.detach() + move
    return moved if predict.clip is None else torch.where(pinned, values, moved.clamp(-predict.clip, predict.clip))


def smoothed(moves: Tensor, tokens: float) -> Tensor:
    """Moves (B, H, D) averaged over time with a Gaussian window; what is constant in time stays as it is."""
    time = torch.arange(moves.shape[1], device=moves.device, dtype=moves.dtype)
    window = torch.exp(-0.5 * ((time[:, None] - time) / tokens).square())
    return (window / window.sum(1, keepdim=True)) @ moves


def _resample(
    scores: Tensor, credited: Tensor, generators: Sequence[torch.Generator], *, surely: bool = False
) -> tuple[Tensor, Tensor]:
    """Which particles (B,) go on, and the scores (B,) that they have been resampled for already.

    Systematic resampling by exp(score - what was credited before), in those problems where fewer than half of the
    particles would count, or surely.
    """
    problems, device = len(generators), scores.device
    risen = (scores - credited).reshape(problems, -1)
    shares = torch.softmax(risen, dim=1)  # (P, K)
    count = shares.shape[1]
    due = (1 / shares.square().sum(1, keepdim=True) < count / 2) | surely
    offsets = torch.stack([torch.rand((), generator=g, device=g.device) for g in generators]).to(device)
    own = torch.arange(count, device=device).expand(problems, -1)
    drawn = torch.searchsorted(shares.cumsum(1), (own + offsets[:, None]) / count).clamp(max=count - 1)
    chosen = torch.where(due, drawn, own)
    kept = (chosen + count * torch.arange(problems, device=device)[:, None]).flatten()
    return kept, torch.where(due.expand(-1, count).flatten(), scores[kept], credited)
