"""How fast the training loop is beside a plain PyTorch loop over Diffuser's own U-Net of equal width, on one machine.

The plain loop is the one of Diffuser's published code: windows from a Dataset through a DataLoader, noise prediction,
Adam, and averaged weights by a loop over parameters every ten updates.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from diffusers import UNet1DModel
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from diffplan.envs.jobs import fast_in_half
from diffplan.envs.tasks import find_task
from diffplan.planner.episodes import Episodes
from diffplan.planner.normalizer import Normalizer
from diffplan.planner.objectives import denoising
from diffplan.planner.schedulers import make_scheduler
from diffplan.planner.spec import TrajectorySpec
from diffplan.planner.training import TrainConfig, TrainState, train
from diffplan.planner.unet import TemporalUNet
from diffplan.planner.windows import Windows

from .speed import device_name

TASK, HORIZON, BATCHES, LEVELS = "maze2d-umaze", 32, (64, 512), 32
ROUNDS, TURN_SECONDS, FIRST = 5, {"cpu": 6.0, "cuda": 1.0}, 8  # updates that are not timed
AVERAGED_EVERY, PLAIN_DECAY, PLAIN_RATE = 10, 0.995, 2e-4  # as in Diffuser's code

Numbers = dict[str, Any]


class Pieces(Dataset[Tensor]):
    """Windows (H, D) of whole episodes, normalised beforehand, as Diffuser's SequenceDataset has them."""

    def __init__(self, episodes: Episodes, spec: TrajectorySpec, horizon: int) -> None:
        rows = [np.asarray(episodes.actions), np.asarray(episodes.observations)]
        data = np.concatenate([*rows, np.zeros((len(rows[0]), 1), np.float32)], axis=1)
        self.data = (data - data.mean(0)) / np.maximum(data.std(0), 1e-6)
        self.span, self.stride = horizon * spec.stride, spec.stride
        ends = [range(int(a), int(b) - self.span) for a, b in zip(episodes.offsets, episodes.offsets[1:], strict=False)]
        self.begins = [i for span in ends for i in span]

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> Any:
        begin = self.begins[index]
        return self.data[begin : begin + self.span : self.stride]


def diffusers_unet(columns: int, horizon: int, width: int = 32) -> UNet1DModel:
    """Diffuser's temporal U-Net as the diffusers library has it, with three levels of width, 2 width, 4 width."""
    return UNet1DModel(
        sample_size=horizon,
        in_channels=columns,
        out_channels=columns,
        layers_per_block=1,
        block_out_channels=(width, 2 * width, 4 * width),
        down_block_types=("DownResnetBlock1D",) * 3,
        up_block_types=("UpResnetBlock1D",) * 2,
        mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock",
        norm_num_groups=8,
        use_timestep_embedding=True,
        flip_sin_to_cos=False,
        freq_shift=1.0,
        act_fn="mish",
        extra_in_channels=0,
        time_embedding_type="positional",
        downsample_each_block=False,
    )


def plain_loop(episodes: Episodes, spec: TrajectorySpec, device: torch.device, batch: int) -> Iterator[Tensor]:
    """Updates of the plain loop, each its loss."""
    model = diffusers_unet(spec.width, HORIZON).to(device)
    average, levels = copy.deepcopy(model), make_scheduler("ddpm", train_steps=LEVELS).alphas_cumprod.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=PLAIN_RATE)
    loader = DataLoader(Pieces(episodes, spec, HORIZON), batch_size=batch, shuffle=True, num_workers=1, drop_last=True)
    step = 0
    while True:
        for clean in loader:
            clean = clean.to(device).transpose(1, 2)  # (B, D, H)
            t = torch.randint(LEVELS, (batch,), device=device)
            noise, level = torch.randn_like(clean), levels[t].reshape(-1, 1, 1)
            noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
            noisy[:, len(spec.action_names) : -1, 0] = clean[:, len(spec.action_names) : -1, 0]
            loss = F.mse_loss(model(noisy, t).sample, noise)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % AVERAGED_EVERY == 0:
                for own, new in zip(average.parameters(), model.parameters(), strict=True):
                    own.data = own.data * PLAIN_DECAY + (1 - PLAIN_DECAY) * new.data
            step += 1
            yield loss.detach()


def own_loop(episodes: Episodes, spec: TrajectorySpec, device: torch.device, batch: int) -> Iterator[Tensor]:
    """Updates as `diffplan train` makes them, each its loss."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    half = "bf16" if fast_in_half(device) else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=half)
    config = TrainConfig(steps=10**9, batch_size=batch)
    windows, normalizer = Windows(episodes, spec, horizon=HORIZON, device=device), Normalizer.fit(episodes, spec)
    state = TrainState.begin(TemporalUNet(spec.width).to(device), config)
    objective = denoising(windows, normalizer, make_scheduler(train_steps=LEVELS).alphas_cumprod, config)
    for update in train(state, objective, config, accelerator=accelerator):
        yield update.info["loss"]


def training_speed(device: torch.device, *, rounds: int = ROUNDS) -> Generator[str, None, Numbers]:
    """Windows per second of both loops, in turns, yielding a line for each batch size; the report at the end."""
    spec, episodes = find_task(TASK).spec, wandering()
    report: Numbers = {"task": TASK, "device": device_name(device), "cpu_threads": torch.get_num_threads(), "rows": []}
    for batch in BATCHES if device.type == "cuda" else BATCHES[:1]:
        loops = {name: loop(episodes, spec, device, batch) for name, loop in (("plain", plain_loop), ("own", own_loop))}
        for loop in loops.values():
            _advance(loop, FIRST, device)
        times: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(rounds):
            for name, loop in loops.items():
                times[name].append(_turn(loop, device))
        row: Numbers = {"batch": batch}
        for name, seconds in times.items():
            row[name] = {
                "update_ms_median": round(1000 * statistics.median(seconds), 3),
                "update_ms_all": [round(1000 * s, 3) for s in seconds],
                "windows_per_second": round(batch / statistics.median(seconds)),
            }
        row["times_faster"] = round(row["plain"]["update_ms_median"] / row["own"]["update_ms_median"], 2)
        report["rows"].append(row)
        yield f"batch {batch}: {row['times_faster']} times the plain loop's windows per second"
    return report


def wandering(episodes: int = 200, steps: int = 500) -> Episodes:
    """Episodes of a point that wanders: how fast data is loaded does not depend on what it shows."""
    rng = np.random.default_rng(0)
    velocity = np.cumsum(rng.normal(0, 0.1, (episodes, steps, 2)), axis=1)
    position = np.cumsum(0.01 * velocity, axis=1)
    seen = np.concatenate([position, velocity], axis=-1).reshape(-1, 4).astype(np.float32)
    acted = rng.uniform(-1, 1, (episodes * steps, 2)).astype(np.float32)
    return Episodes(seen, acted, np.arange(episodes + 1) * steps)


def _turn(loop: Iterator[Tensor], device: torch.device) -> float:
    """Mean seconds of an update, over a turn."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < TURN_SECONDS[device.type]:
        _advance(loop, 10, device)
        count += 10
    return (time.perf_counter() - began) / count


def _advance(loop: Iterator[Tensor], count: int, device: torch.device) -> None:
    for _ in range(count):
        next(loop)
    if device.type == "cuda":
        torch.cuda.synchronize()


def _loop_words(loop: Numbers) -> str:
    return f"{loop['windows_per_second']:,} windows/s ({loop['update_ms_median']:.1f} ms an update)"


def training_rows(report: Numbers) -> list[list[str]]:
    """Table, header first."""
    header = ["batch", "plain loop, Diffuser's U-Net", "diffplan", "times faster"]
    rows = [
        [
            str(row["batch"]),
            *(_loop_words(row[name]) for name in ("plain", "own")),
            f"{row['times_faster']:.2f}",
        ]
        for row in report["rows"]
    ]
    return [header, *rows]
