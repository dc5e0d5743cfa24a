"""Planning made ready: the same arithmetic on tensors of one shape, with no Python between its steps.

On a GPU one CUDA graph reaches from the question, copied in, to the answer, copied out. On a CPU the network is frozen
into a graph of its own, and the rest stays as it is.

Shape letters: P problems, K candidates, B batch, H horizon (tokens), D columns of a token.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .diffusion import Denoiser
from .sampling import Draw

Precision = Literal["float32", "bfloat16"]

Tensors = Mapping[str, Tensor]
Work = Callable[[Tensors, Draw], Sequence[Tensor]]
"""Tensors by name, and where noise comes from, to tensors: all of it on one device, without looking at a value."""

WARM_UPS = 3  # runs before a graph is recorded: libraries choose their kernels, constants are made


class Ready(Protocol):
    """Work that is ready for inputs of one shape."""

    def __call__(self, inputs: Tensors, draw: Draw, /) -> Sequence[Tensor]:
        """What the work makes of inputs on the CPU, on the CPU; `draw` makes its noise there, too."""
        ...


class Frozen:
    """A network as graphs of fixed shapes, made when first met; its weights are those that it had then.

    Where gradients are asked for the network itself answers.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._graphs: dict[tuple[int, ...], Denoiser] = {}

    def __call__(self, sample: Tensor, timestep: Tensor, pinned: Tensor | None = None) -> Tensor:
        if sample.requires_grad or pinned is None:
            answer: Tensor = self.network(sample, timestep, pinned)
            return answer
        shape = tuple(sample.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._made(sample, timestep, pinned.expand_as(sample))
        return self._graphs[shape](sample, timestep, pinned)

    @torch.no_grad()
    def _made(self, *example: Tensor) -> Denoiser:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that shapes become constants is what is wanted
            graph: Denoiser = torch.jit.freeze(torch.jit.trace(self.network.eval(), example, check_trace=False))
            for _ in range(WARM_UPS):
                graph(*example)
        return graph


def trying_kernels() -> Any:
    """Within, cuDNN tries which of its kernels are fastest for each new shape: for work that is recorded once."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)


def quickened(network: nn.Module, precision: Precision, compiled: bool) -> Denoiser:
    """A network for one way of planning: its own copy in another precision, compiled, or on a CPU frozen."""
    own = network
    if precision == "bfloat16":
        own = copy.deepcopy(network)
        for tensor in itertools.chain(own.parameters(), own.buffers()):
            tensor.data = tensor.data.bfloat16()
    if compiled:
        made: Denoiser = torch.compile(own, dynamic=False)
        return made
    return own if next(own.parameters()).is_cuda else Frozen(own)


class Graph:
    """Work recorded as a CUDA graph: inputs and noise are copied in, and what it makes is copied out, by the graph too.

    Args:
        work: what to do.
        inputs: an example of what to do it with, on any device.
        problems: P, of which `draw` gives so many samples each.
        noise: shape (H, D) of a sample of noise.
        device: a GPU.
        device_noise: draw noise on the GPU from this generator instead of copying it there.
        keep: what it makes stays on the GPU, and is overwritten by the next call.
    """

    def __init__(
        self,
        work: Work,
        inputs: Tensors,
        *,
        problems: int,
        noise: Sequence[int],
        device: torch.device,
        device_noise: torch.Generator | None = None,
        keep: bool = False,
    ) -> None:
        self.keep = keep
        counts: list[int] = []

        def drawn(each: int) -> Tensor:
            counts.append(each)
            return torch.randn((problems * each, *noise), generator=device_noise, device=device)

        on_device = {name: t.to(device) for name, t in inputs.items()}
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side), trying_kernels():
            for _ in range(WARM_UPS):
                counts.clear()
                work(on_device, drawn)
        torch.cuda.current_stream(device).wait_stream(side)
        self.counts = [] if device_noise is not None else list(counts)
        self.inputs = {name: torch.empty_like(t, device="cpu").pin_memory() for name, t in inputs.items()}
        self.noise = [torch.empty((problems * each, *noise)).pin_memory() for each in self.counts]
        self.graph = torch.cuda.CUDAGraph()
        if device_noise is not None:
            self.graph.register_generator_state(device_noise)
        with torch.cuda.graph(self.graph), trying_kernels():
            given = {name: t.to(device, non_blocking=True) for name, t in self.inputs.items()}
            waiting = iter([n.to(device, non_blocking=True) for n in self.noise])
            self.made = list(work(given, drawn if device_noise is not None else lambda each: next(waiting)))
            if not keep:
                self.outputs = [torch.empty_like(t, device="cpu").pin_memory() for t in self.made]
                for host, own in zip(self.outputs, self.made, strict=True):
                    host.copy_(own, non_blocking=True)

    def __call__(self, inputs: Tensors, draw: Draw) -> Sequence[Tensor]:
        for name, host in self.inputs.items():
            host.copy_(inputs[name])
        for host, each in zip(self.noise, self.counts, strict=True):
            host.copy_(draw(each))
        self.graph.replay()
        if self.keep:
            return self.made
        torch.cuda.current_stream().synchronize()
        return self.outputs
