"""Parameters in the order that a kernel reads them: one gather, whatever the order.

An order is a function of views, paddings and copies. What it does to the numbers 1, 2, 3... is kept, so that
each later call costs two or three launches, not one for each of its steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def arranged(x: Tensor, dtype: torch.dtype, order: Callable[..., Tensor], *args: Any) -> Tensor:
    """order(x, *args), contiguous, in another type."""
    index, padded = _index(order, x.shape, x.device, *args)
    flat = x.reshape(-1).to(dtype)
    return torch.take(F.pad(flat, (1, 0)) if padded else flat, index)


@functools.cache
def _index(
    order: Callable[..., Tensor], shape: torch.Size, device: torch.device, *args: Any
) -> tuple[Tensor, bool]:
    """Where each number comes from; 0, and then counted from 1, if there are zeros to be filled in."""
    numbers = torch.arange(1, 1 + shape.numel(), dtype=torch.float64).view(shape)
    index = order(numbers, *args).contiguous().long()
    padded = bool((index == 0).any())
    return (index if padded else index - 1).to(device), padded
