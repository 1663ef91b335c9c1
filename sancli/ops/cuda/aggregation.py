"""san::aggregation by kernels/aggregation.cu."""

import numpy as np
import torch
from torch import Tensor

import sancli.ops.aggregation  # noqa: F401 -- the schemas
from sancli.ops.cuda import loader
from sancli.ops.cuda.window import window
from sancli.ops.layout import laid_out
from sancli.ops.reference import aggregation as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps

SOURCE = "aggregation.cu"
THREADS = 256


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """san::aggregation. Weights of another type, as a softmax makes them under autocast, take `value`'s."""
    if not loader.usable(value, weight):
        return plain.aggregation(value, weight, kernel_size)
    value, weight = laid_out(value)[0], laid_out(weight.flatten(1, 2).to(value.dtype))[0]
    out = maps(value, *value.shape[1:])
    forward(value, weight, out, kernel_size)
    return out


def aggregation_backward(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """san::aggregation_backward."""
    if not loader.usable(grad, value, weight):
        return plain.aggregation_backward(grad, value, weight, kernel_size)
    dtype = value.dtype
    grad_value, grad_weight = maps(value, *value.shape[1:]), torch.empty_like(weight, dtype=dtype)
    grad, value, flat = (laid_out(x.to(dtype))[0] for x in (grad, value, weight.flatten(1, 2)))
    flat_grad = laid_out(grad_weight.flatten(1, 2))[0]
    backward_weight(grad, value, flat_grad, kernel_size)
    backward_value(grad, flat, grad_value, kernel_size)
    if flat_grad.data_ptr() != grad_weight.data_ptr():  # its layout is not the kernel's
        grad_weight.copy_(flat_grad.unflatten(1, weight.shape[1:3]))
    return grad_value, grad_weight.to(weight.dtype)


def forward(value: Tensor, weight: Tensor, out: Tensor, kernel_size: int) -> None:
    """Writes `out`; maps as `laid_out` gives them, `weight` [N, K * K * G, H, W]."""
    run("aggregation_forward", (value, weight, out), value, weight, kernel_size)


def backward_weight(grad: Tensor, value: Tensor, grad_weight: Tensor, kernel_size: int) -> None:
    """Writes `grad_weight`."""
    run("aggregation_backward_weight", (grad, value, grad_weight), value, grad_weight, kernel_size)


def backward_value(grad: Tensor, weight: Tensor, grad_value: Tensor, kernel_size: int) -> None:
    """Writes `grad_value`."""
    run("aggregation_backward_value", (grad, weight, grad_value), grad, weight, kernel_size)


def run(kernel: str, given: tuple[Tensor, ...], value: Tensor, weight: Tensor, kernel_size: int) -> None:
    """Writes the last map by the tiled kernel, or the naive one; the tile holds a window of `value`."""
    _, channels, height, width = value.shape
    groups = weight.shape[1] // kernel_size**2
    pointers = [part for x in given for part in (x, np.int32(laid_out(x)[1]))]
    size = np.int32(height), np.int32(width)
    if tile := window(kernel, kernel_size, groups, value, *given):
        name, blocks = f"{kernel}<{tile.name}>", (tile.blocks(value),)
        loader.launch(SOURCE, name, blocks, (tile.threads,), *pointers, *size, shared=tile.shared)
        return
    total, more = given[-1].numel(), (np.int32(x) for x in (kernel_size, groups, channels))
    name, blocks = f"{kernel}_naive<{loader.ctype(value.dtype)}>", (-(-total // THREADS),)
    loader.launch(SOURCE, name, blocks, (THREADS,), *pointers, *size, *more, np.int64(total))


implement("aggregation", aggregation, "CUDA")
implement("aggregation_backward", aggregation_backward, "CUDA")
