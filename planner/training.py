"""The training loop: a generator over updates, resumable to the bit.

Every update draws its batch, noise and pins from a generator seeded by (seed, update, process), so a resumed run
needs no random state: weights, optimiser moments and the number of the next update are everything.

Shape letters: B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .diffusion import Prediction, check_prediction
from .engine import trying_kernels
from .files import whole_file

WARM_UPS = 3  # updates before one is recorded as a CUDA graph: libraries choose their kernels
AHEAD = 2  # updates that wait for a GPU: enough to keep it busy, and few, so that the clock of `minutes` is true


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train.

    Args:
        steps: updates; None leaves the bound to `minutes`. With both, whichever is reached first ends the run.
        minutes: of training time, over all sessions of a resumed run.
        batch_size: windows per update and process.
        learning_rate: peak of the schedule: linear warm-up, then cosine decay to zero over the bound.
        warmup: updates of linear warm-up.
        weight_decay: of AdamW.
        ema_decay: of the averaged weights, which are the ones that plan.
        clip_norm: largest gradient norm.
        action_weight: weight of the action columns in the loss; observations count 1.
        first_action_weight: weight of the first token's actions, which are what is executed where plans are renewed at
            every step, or in plans of states alone of the states that they lead to; None weighs them like the others.
        token_discount: weight of a token's entries in the loss, relative to the token before (Janner et al. 2022, in
            their published code); 1 weighs all alike.
        prediction: what the network says: "x0", "eps" or "v".
        seed: of batches, noise and pins.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    ema_decay: float = 0.998
    clip_norm: float = 1.0
    action_weight: float = 0.1
    first_action_weight: float | None = None
    token_discount: float = 1.0
    prediction: Prediction = "x0"
    seed: int = 0

    def __post_init__(self) -> None:
        check_prediction(self.prediction)
        if self.steps is None and self.minutes is None:
            raise ValueError("give steps, minutes, or both")
        for name in ("steps", "minutes", "batch_size", "learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be a positive number")
        for name, most in (
            ("warmup", math.inf),
            ("weight_decay", math.inf),
            ("action_weight", math.inf),
            ("first_action_weight", math.inf),
            ("ema_decay", 1),
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < most:
                raise ValueError(f"{name}={value} must be at least 0" + (" and below 1" if most == 1 else ""))
        if not 0 < self.token_discount <= 1:
            raise ValueError(f"token_discount={self.token_discount} must be above 0 and at most 1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")

    def fraction(self, step: int, seconds: float) -> float:
        """How much of the run is done, 0 to 1, by whichever bound is nearer."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def rate_at(self, step: int, fraction: float) -> float:
        """Learning rate of update `step`."""
        return (
            self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * 0.5 * (1 + math.cos(math.pi * fraction))
        )


@dataclass
class TrainState:
    """Everything that a run carries from one update to the next."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def begin(cls, model: nn.Module, config: TrainConfig) -> TrainState:
        """A new run; the averaged weights begin as the model's."""
        ema = copy.deepcopy(model).requires_grad_(False).eval()
        on_gpu = next(model.parameters()).is_cuda
        rate = torch.tensor(config.learning_rate, device="cuda") if on_gpu else config.learning_rate
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True, capturable=on_gpu
        )
        return cls(model, ema, optimizer)

    def tensors(self) -> dict[str, Tensor]:
        """All arrays, under unique names."""
        named = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for key, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{key}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        return {k: v.detach().contiguous().cpu() for k, v in named.items()}

    def save(self, path: Path) -> None:
        """Write atomically: a reader finds the old file or the new one, never a part."""
        meta = {"diffplan": json.dumps({"step": self.step, "seconds": self.seconds})}
        with whole_file(path) as scratch:
            save_file(self.tensors(), scratch, metadata=meta)

    def load(self, path: Path) -> None:
        """Continue from a file that `save` wrote.

        Raises:
            ValueError: the file is truncated, foreign, or of another network; nothing is changed then.
        """
        try:
            with safe_open(path, framework="pt") as file:
                meta = json.loads((file.metadata() or {})["diffplan"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a mapping
        except Exception as error:
            raise ValueError(f"{path} is no training state of diffplan, or is damaged ({error})") from error
        if not isinstance(meta, dict) or not isinstance(meta.get("step"), int) or "seconds" not in meta:
            raise ValueError(f"{path} is no training state of diffplan: its metadata has no step and seconds")
        want = {k: v.shape for k, v in self.tensors().items() if not k.startswith("optimizer.")}
        got = {k: v.shape for k, v in tensors.items() if not k.startswith("optimizer.")}
        if want != got:
            raise ValueError(
                f"{path} belongs to another network: {len(set(want.items()) ^ set(got.items()))} "
                "weights differ in name or shape"
            )
        moments = _moments(tensors, list(self.model.parameters()), path)
        part = {p: {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)} for p in ("model.", "ema.")}
        self.model.load_state_dict(part["model."])
        self.ema.load_state_dict(part["ema."])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])


def _moments(tensors: dict[str, Tensor], parameters: list[nn.Parameter], path: Path) -> dict[int, dict[str, Tensor]]:
    """The optimiser's moments by parameter, refused where a shape is not its parameter's."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            if key != "step" and value.shape != parameters[int(index)].shape:
                raise ValueError(f"{path} is damaged: {name} has shape {tuple(value.shape)}")
            moments.setdefault(int(index), {})[key] = value
    return moments


@dataclass(frozen=True)
class Update:
    """One update: its number from 1, how much of the run is done, and measurements (tensors stay on the device)."""

    step: int
    fraction: float
    seconds: float
    learning_rate: float
    info: dict[str, Tensor] = field(repr=False)


Objective = Callable[[nn.Module, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""Draws a batch and looks at a model through it: the loss, and measurements."""


def train(
    state: TrainState, objective: Objective, config: TrainConfig, *, accelerator: Accelerator
) -> Iterator[Update]:
    """Train until the configured bound, yielding after every update; `state` is then complete and may be saved.

    The same loop runs on one CPU, one GPU, or several processes under `accelerate launch`. On one GPU all updates but
    the first few are replays of one CUDA graph: networks as small as these are done before Python has asked for them.
    """
    generator = torch.Generator(accelerator.device)
    update = _Updates(state, objective, config, accelerator, generator)
    fraction = _agree(config.fraction(state.step, state.seconds), accelerator)
    while fraction < 1:
        began = time.perf_counter()
        generator.manual_seed(update_seed(config.seed, state.step, accelerator.process_index))
        rate = config.rate_at(state.step, fraction)
        info = update(rate, min(config.ema_decay, (1 + state.step) / (10 + state.step)))
        state.step += 1
        state.seconds += time.perf_counter() - began
        fraction = (
            _agree(config.fraction(state.step, state.seconds), accelerator)
            if config.minutes
            else (config.fraction(state.step, 0.0))
        )
        yield Update(state.step, fraction, state.seconds, rate, info)


class _Updates:
    """Updates of a run, one at each call: eager ones, and on one GPU, once it is warm, replays of a recorded one."""

    def __init__(
        self,
        state: TrainState,
        objective: Objective,
        config: TrainConfig,
        accelerator: Accelerator,
        generator: torch.Generator,
    ) -> None:
        self.model = accelerator.prepare(state.model)
        self.state, self.objective, self.config = state, objective, config
        self.accelerator, self.generator = accelerator, generator
        self.parameters: list[Tensor] = list(state.model.parameters())
        self.averages: list[Tensor] = list(state.ema.parameters())
        self.share = torch.zeros((), device=accelerator.device)  # of the weights in their average
        recorded = accelerator.device.type == "cuda" and accelerator.num_processes == 1
        self.side = torch.cuda.Stream() if recorded else None
        self.warm, self.graph = 0, None if not recorded else torch.cuda.CUDAGraph()
        self.flying: deque[torch.cuda.Event] = deque()  # updates that the GPU was given and may not have done

    def __call__(self, rate: float, decay: float) -> dict[str, Tensor]:
        for group in self.state.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        if self.graph is None or self.side is None:
            return self._once(1 - decay)
        self.share.fill_(1 - decay)
        if self.warm < WARM_UPS:
            self.warm += 1
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side), trying_kernels():
                info = self._once(self.share)
            torch.cuda.current_stream().wait_stream(self.side)
            return info
        if self.warm == WARM_UPS:
            self.warm += 1
            self.graph.register_generator_state(self.generator)
            with torch.cuda.graph(self.graph), trying_kernels():
                self.info = self._once(self.share)
        if len(self.flying) > AHEAD:
            self.flying.popleft().synchronize()
        self.graph.replay()
        self.flying.append(torch.cuda.Event())
        self.flying[-1].record()
        return {name: value.clone() for name, value in self.info.items()}

    def _once(self, share: Tensor | float) -> dict[str, Tensor]:
        """Nothing here looks at a value: it would stop a GPU, and cannot be recorded. `share` is the averages' step."""
        with self.accelerator.autocast():
            loss, info = self.objective(self.model, self.generator)
        self.accelerator.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm, foreach=True)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        weights = [p.detach() for p in self.parameters]
        if isinstance(share, float):
            torch._foreach_lerp_(self.averages, weights, share)
        else:  # a lerp by a tensor would be a kernel for each weight
            ahead = torch._foreach_sub(weights, self.averages)
            torch._foreach_mul_(ahead, share)
            torch._foreach_add_(self.averages, ahead)
        return {**info, "gradient_norm": norm}


def update_seed(seed: int, step: int, process: int) -> int:
    """A seed of its own for every update and process."""
    return int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])


def _agree(fraction: float, accelerator: Accelerator) -> float:
    """The first process's clock decides for all, so that all stop at the same update."""
    if accelerator.num_processes == 1:
        return fraction
    from accelerate.utils import broadcast

    shared = torch.tensor([fraction], device=accelerator.device, dtype=torch.float64)
    return float(broadcast(shared).item())
