"""Convolution and aggregation one after the other, with the weights in memory: any size and type.

Shapes: hidden [N, G, H, W]; value [N, M, H, W]; weight [G * K * K, G], offsets inside groups, as published.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cuda import aggregation
from sancli.ops.reference.trunk import channels_last


def attend(hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """[N, M, H, W]."""
    made = weights(hidden, by_offset(weight, kernel_size), by_offset(bias, kernel_size), kernel_size)
    return aggregation.aggregation(value, made, kernel_size)


def attend_backward(
    grad: Tensor, hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, value, weight and bias."""
    weight, bias = by_offset(weight, kernel_size), by_offset(bias, kernel_size)
    made = weights(hidden, weight, bias, kernel_size)
    grad_value, grad_made = aggregation.aggregation_backward(grad, value, made, kernel_size)
    images, groups, height, width = hidden.shape
    rows = grad_made.permute(0, 3, 4, 1, 2).reshape(-1, len(bias))  # [N * H * W, K * K * G], as it lies
    grad_hidden = (rows @ weight.to(rows.dtype)).view(images, height, width, groups).permute(0, 3, 1, 2)
    grad_weight = rows.T @ pixels(hidden)
    grad_bias = rows.sum(0, dtype=torch.promote_types(rows.dtype, torch.float32))
    return grad_hidden, grad_value, published(grad_weight, kernel_size), published(grad_bias, kernel_size)


def weights(hidden: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """[N, K * K, G, H, W], groups innermost in memory; `weight` and `bias` by offset."""
    images, groups, height, width = hidden.shape
    made = F.linear(pixels(hidden), weight.to(hidden.dtype), bias.to(hidden.dtype))
    return made.view(images, height, width, kernel_size**2, groups).permute(0, 3, 4, 1, 2)


def pixels(hidden: Tensor) -> Tensor:
    """[N * H * W, G]."""
    return channels_last(hidden).permute(0, 2, 3, 1).reshape(-1, hidden.shape[1])


def by_offset(x: Tensor, kernel_size: int) -> Tensor:
    """[G * K * K, ...] in the published order, groups inside offsets."""
    moved: Tensor = x.unflatten(0, (-1, kernel_size**2)).transpose(0, 1).flatten(0, 1)
    return moved


def published(x: Tensor, kernel_size: int) -> Tensor:
    """The opposite."""
    moved: Tensor = x.unflatten(0, (kernel_size**2, -1)).transpose(0, 1).flatten(0, 1)
    return moved
