"""The weighted sum over a footprint: what every relation of the paper ends in.

    out[n, c, i] = sum over o of weight[n, o, c mod G, i] * value[n, c, i + o]

Shapes: value, out [N, M, H, W]; weight [N, K * K, G, H, W]. The border is reflected.
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.reference import aggregation as plain
from sancli.ops.registry import differentiable, first_derivative_only, register
from sancli.ops.shapes import expect, expect_maps, expect_shared
from sancli.ops.trunk import maps


def _aggregation_shapes(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    return maps(value, *value.shape[1:])


def _aggregation_backward_shapes(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    return maps(value, *value.shape[1:]), torch.empty_like(weight)


register(
    "aggregation(Tensor value, Tensor weight, int kernel_size) -> Tensor",
    plain.aggregation,
    _aggregation_shapes,
)
register(
    "aggregation_backward(Tensor grad, Tensor value, Tensor weight, int kernel_size) -> (Tensor, Tensor)",
    plain.aggregation_backward,
    _aggregation_backward_shapes,
)


class _Aggregation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
        ctx.save_for_backward(value, weight)
        ctx.kernel_size = kernel_size
        out: Tensor = torch.ops.san.aggregation(value, weight, kernel_size)
        return out

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grads = torch.ops.san.aggregation_backward(grad, *ctx.saved_tensors, ctx.kernel_size)
        return *grads, None


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """Sums each pixel's footprint of `value`, weighted: [N, M, H, W].

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(value=value)
    groups = weight.shape[2] if weight.ndim == 5 else 0
    sizes = value.shape[0], kernel_size**2, groups, *value.shape[2:]
    expect("weight", weight, *sizes, letters="[N, K * K, G, H, W]")
    expect_shared(value, groups)
    out: Tensor = differentiable(_Aggregation, torch.ops.san.aggregation, value, weight, kernel_size)
    return out
