"""Small constant tensors, made once for each device.

A copy from the host makes a GPU wait, and cannot be part of a CUDA graph (see `engine`): what is looked up or compared
with at every step has to be there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def constant(numbers: Sequence[float], like: Tensor) -> Tensor:
    """Numbers (n,) as a tensor of the type and on the device of another; not to be written to."""
    return _made(tuple(float(n) for n in numbers), like.dtype, like.device)


def picked(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Columns (..., n) of values (..., D): a view where they lie side by side, and a copy elsewhere."""
    first, count = (columns[0], len(columns)) if columns else (0, 0)
    if list(columns) == list(range(first, first + count)):
        return values[..., first : first + count]
    return values.index_select(-1, _made(tuple(columns), torch.long, values.device))


@lru_cache(maxsize=256)
def _made(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)
