"""san::aggregation by kernels/cpu/aggregation.cpp."""

import torch
from torch import Tensor

from sancli.ops.cpu.library import kernels
from sancli.ops.layout import laid_out, storage
from sancli.ops.reference import aggregation as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """san::aggregation."""
    library = kernels(value, weight)
    if library is None or value.dtype != weight.dtype:
        return plain.aggregation(value, weight, kernel_size)
    out = maps(value, *value.shape[1:])
    library.call(
        "san_aggregation", storage(value), *sizes(value, weight, kernel_size),
        *laid_out(value), *laid_out(weight.flatten(1, 2)), *laid_out(out),
    )  # fmt: skip
    return out


def aggregation_backward(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """san::aggregation_backward."""
    library = kernels(grad, value, weight)
    if library is None or not grad.dtype == value.dtype == weight.dtype:
        return plain.aggregation_backward(grad, value, weight, kernel_size)
    grad_value, grad_weight = maps(value, *value.shape[1:]), torch.empty_like(weight)
    flat_weight, (flat, stride) = weight.flatten(1, 2), laid_out(grad_weight.flatten(1, 2))
    library.call(
        "san_aggregation_backward", storage(value), *sizes(value, weight, kernel_size),
        *laid_out(grad), *laid_out(value), *laid_out(flat_weight), *laid_out(grad_value), flat, stride,
    )  # fmt: skip
    if flat.data_ptr() != grad_weight.data_ptr():  # its layout is not the kernel's
        grad_weight.copy_(flat.unflatten(1, weight.shape[1:3]))
    return grad_value, grad_weight


def sizes(value: Tensor, weight: Tensor, kernel_size: int) -> tuple[int, ...]:
    """Images, height, width, K, G, M."""
    images, channels, height, width = value.shape
    return images, height, width, kernel_size, weight.shape[2], channels


implement("aggregation", aggregation, "CPU")
implement("aggregation_backward", aggregation_backward, "CPU")
