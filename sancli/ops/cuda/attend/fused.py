"""Convolution and aggregation in one by kernels/attend*.cu: 16-bit types, the weights never in memory.

Shapes: hidden [N, G, H, W]; value [N, 8 G, H, W]; weight [G * K * K, G], offsets inside groups, as published.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.arrangement import arranged
from sancli.ops.cuda.attend.apart import by_offset, published
from sancli.ops.cuda.fragments import fragments
from sancli.ops.cuda.placement import placed, sizes, squares
from sancli.ops.trunk import maps

SOURCE, SIDE, SLICE, APART, HALF, THREADS = "attend.cu", 8, 8, 8, 2, 64
BLOCKS = 512
"""Of the gradient of hidden, about: numbers of the shape alone decide how it is cut, so results repeat."""


def fits(hidden: Tensor, value: Tensor, kernel_size: int) -> bool:
    """Whether there are kernels for type, card and shape."""
    least = {torch.float16: (7, 5), torch.bfloat16: (8, 0)}.get(value.dtype)
    if least is None or loader.capability(value.device) < least:
        return False
    groups, channels = hidden.shape[1], value.shape[1]
    if groups not in (8, 16, 32, 64) or channels != 8 * groups or min(value.shape[2:]) <= kernel_size // 2:
        return False
    return (
        kernel_size > 1
        and kernel_size % 2 == 1
        and max(_shared(groups, kernel_size)) <= loader.shared_limit(value.device)
    )


def _shared(groups: int, kernel_size: int) -> tuple[int, int, int]:
    """Bytes of shared memory of the three kernels, in their order."""
    wide, pitch = SIDE + kernel_size - 1, max(16, groups) + APART
    shares, turned = 8 * wide * (wide + 1) * SLICE, SIDE**2 * ((kernel_size + 1) * SLICE + APART)
    parts = SIDE**2 * pitch, wide**2 * pitch, SIDE**2 * pitch + turned
    forward, value, hidden = (HALF * (shares + size) for size in parts)
    return forward, value, hidden


def attend(hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """[N, M, H, W]."""
    out, groups = maps(value, *value.shape[1:]), hidden.shape[1]
    loader.launch(
        SOURCE, f"attend_forward<{loader.ctype(out.dtype)}, {kernel_size}, {groups}>",
        (squares(out, SIDE), groups // SLICE), (THREADS,),
        *placed(hidden, 8), *placed(value, 8), *_made_of(weight, bias, kernel_size, out.dtype), out,
        *sizes(*out.shape[2:]), shared=_shared(groups, kernel_size)[0],
    )  # fmt: skip
    return out


def attend_backward(
    grad: Tensor, hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, value, weight and bias."""
    grad_value, groups = maps(value, *value.shape[1:]), hidden.shape[1]
    loader.launch(
        SOURCE, f"attend_backward_value<{loader.ctype(value.dtype)}, {kernel_size}, {groups}>",
        (squares(value, SIDE), groups // SLICE), (THREADS,),
        *placed(grad, 8), *placed(hidden, 8), *_made_of(weight, bias, kernel_size, value.dtype), grad_value,
        *sizes(*value.shape[2:]), shared=_shared(groups, kernel_size)[1],
    )  # fmt: skip
    grad_hidden, grad_weight, grad_bias = _hidden_backward(grad, hidden, value, weight, kernel_size)
    return grad_hidden, grad_value, grad_weight, grad_bias


def _made_of(weight: Tensor, bias: Tensor, kernel_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Fragments of [K * K, hidden, groups], and the bias by offset."""
    return (
        arranged(weight, dtype, _forward_order, kernel_size),
        arranged(bias, torch.float32, by_offset, kernel_size),
    )


def _hidden_backward(
    grad: Tensor, hidden: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    images, groups, height, width = hidden.shape
    k, slices, total = kernel_size, groups // SLICE, squares(value, SIDE)
    shares = min(total, max(1, BLOCKS // slices))
    sums = hidden.new_empty(shares, slices, k, k + 1, SLICE, groups, dtype=torch.float32)
    grad_bias = hidden.new_empty(sums.shape[:-1], dtype=torch.float32)
    grad_hidden = hidden.new_empty(slices, images, height, width, groups, dtype=torch.float32)
    loader.launch(
        "attend_hidden.cu", f"attend_backward_hidden<{loader.ctype(value.dtype)}, {k}, {groups}>",
        (shares, slices), (THREADS,),
        *placed(grad, 8), *placed(hidden, 8), *placed(value, 8),
        arranged(weight, value.dtype, _backward_order, k), grad_hidden, sums, grad_bias,
        *sizes(total), np.int64(images * height * width), *sizes(height, width),
        shared=_shared(groups, k)[2],
    )  # fmt: skip
    added = grad_hidden[0] if slices == 1 else grad_hidden.sum(0)
    of_weight, of_bias = (arranged(x.sum(0), x.dtype, _published) for x in (sums, grad_bias))
    return added.to(hidden.dtype).permute(0, 3, 1, 2), of_weight, of_bias


def _forward_order(weight: Tensor, kernel_size: int) -> Tensor:
    last = by_offset(weight, kernel_size).unflatten(0, (kernel_size**2, -1))
    return fragments(last.transpose(1, 2))


def _backward_order(weight: Tensor, kernel_size: int) -> Tensor:
    """Of slices of 8 groups, lines of offsets, and in these pairs, an offset of 0 behind the last."""
    last = by_offset(weight, kernel_size).view(kernel_size, kernel_size, -1, SLICE, weight.shape[1])
    return fragments(F.pad(last.permute(2, 0, 1, 3, 4), (0, 0, 0, 0, 0, 1)).flatten(2, 3))


def _published(sums: Tensor) -> Tensor:
    """Of [slices, K, K + 1, 8, ...]."""
    kernel_size = sums.shape[1]
    by_offsets = sums[:, :, :kernel_size].permute(1, 2, 0, 3, *range(4, sums.dim())).flatten(0, 3)
    return published(by_offsets, kernel_size)
