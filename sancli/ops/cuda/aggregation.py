"""san::aggregation by kernels/aggregation.cu."""

import numpy as np
import torch
from torch import Tensor

import sancli.ops.aggregation  # noqa: F401 -- the schemas
from sancli.ops.cpu.maps import laid_out, of_one_type
from sancli.ops.cuda import loader
from sancli.ops.reference import aggregation as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps

SOURCE = "aggregation.cu"
THREADS = 256


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """san::aggregation."""
    if not loader.usable(value, weight) or not of_one_type(value, weight):
        return plain.aggregation(value, weight, kernel_size)
    out = maps(value, *value.shape[1:])
    flat = weight.flatten(1, 2)
    naive("aggregation_forward_naive", out.numel(), (value, flat, out), value, weight, kernel_size)
    return out


def aggregation_backward(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """san::aggregation_backward."""
    if not loader.usable(grad, value, weight) or not of_one_type(grad, value, weight):
        return plain.aggregation_backward(grad, value, weight, kernel_size)
    grad_value, grad_weight = maps(value, *value.shape[1:]), torch.empty_like(weight)
    flat = weight.flatten(1, 2)
    flat_grad = maps(flat, *flat.shape[1:])
    given = value, weight, kernel_size
    naive("aggregation_backward_weight_naive", flat_grad.numel(), (grad, value, flat_grad), *given)
    naive("aggregation_backward_value_naive", grad_value.numel(), (grad, flat, grad_value), *given)
    return grad_value, grad_weight.copy_(flat_grad.unflatten(1, weight.shape[1:3]))


def naive(
    kernel: str, total: int, tensors: tuple[Tensor, ...], value: Tensor, weight: Tensor, kernel_size: int
) -> None:
    """One thread for each of `total` numbers of the last of the tensors."""
    _, channels, height, width = value.shape
    pointers = (part for x in tensors for part in pointer(x))
    loader.launch(
        SOURCE, f"{kernel}<{loader.ctype(value.dtype)}>", (-(-total // THREADS),), (THREADS,), *pointers,
        *np.array([height, width, kernel_size, weight.shape[2], channels], np.int32), np.int64(total),
    )  # fmt: skip


def pointer(x: Tensor) -> tuple[Tensor, np.int32]:
    """A map and its stride from pixel to pixel."""
    x, stride = laid_out(x)
    return x, np.int32(stride)


implement("aggregation", aggregation, "CUDA")
implement("aggregation_backward", aggregation_backward, "CUDA")
