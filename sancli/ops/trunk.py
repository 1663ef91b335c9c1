"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool, in operators that save only their input.

Shapes: x [N, C, H, W]; weight [O, C, 1, 1]; statistics [C].
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.norm import KNOWN, NORM, Norm, accumulation_type, autocast_type
from sancli.ops.reference import trunk as plain
from sancli.ops.registry import differentiable, first_derivative_only, register
from sancli.ops.shapes import expect, expect_maps, expect_norm


def maps(like: Tensor, channels: int, height: int, width: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """An empty [N, channels, height, width], channels last, of the type of `like` or another."""
    shape, dtype = (like.shape[0], channels, height, width), dtype or like.dtype
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def statistics_like(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Empty mean and variance [channels] of the type that they are kept in."""
    dtype = accumulation_type(x.dtype)
    return x.new_empty(channels, dtype=dtype), x.new_empty(channels, dtype=dtype)


def _bn_relu_conv1x1_shapes(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    *_, weight, _ = rest
    return maps(x, len(weight), *x.shape[2:]), *statistics_like(x, x.shape[1])


def _bn_relu_conv1x1_backward_shapes(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *norm, weight, batch = rest
    of_weight = weight.new_empty(weight.shape), weight.new_empty(len(weight))
    return *_bn_relu_pool_backward_shapes(grad, x, *norm, batch), *of_weight


def _bn_relu_pool_shapes(x: Tensor, *norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    return maps(x, x.shape[1], x.shape[2] // 2, x.shape[3] // 2), *statistics_like(x, x.shape[1])


def _bn_relu_pool_backward_shapes(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return maps(x, *x.shape[1:]), torch.empty_like(gamma), torch.empty_like(beta)


register(
    f"bn_relu_conv1x1(Tensor x, {NORM}, Tensor weight, Tensor? bias)"
    " -> (Tensor y, Tensor mean_used, Tensor var_used)",
    plain.bn_relu_conv1x1,
    _bn_relu_conv1x1_shapes,
)
register(
    f"bn_relu_conv1x1_backward(Tensor grad, Tensor x, {KNOWN}, Tensor weight, bool batch)"
    " -> (Tensor x, Tensor gamma, Tensor beta, Tensor weight, Tensor bias)",
    plain.bn_relu_conv1x1_backward,
    _bn_relu_conv1x1_backward_shapes,
)
register(
    f"bn_relu_pool(Tensor x, {NORM}) -> (Tensor y, Tensor mean_used, Tensor var_used)",
    plain.bn_relu_pool,
    _bn_relu_pool_shapes,
)
register(
    f"bn_relu_pool_backward(Tensor grad, Tensor x, {KNOWN}, bool batch)"
    " -> (Tensor x, Tensor gamma, Tensor beta)",
    plain.bn_relu_pool_backward,
    _bn_relu_pool_backward_shapes,
)
register(
    f"norm_relu(Tensor x, {KNOWN}) -> Tensor",
    plain.known_norm_relu,
    lambda x, *norm: maps(x, *x.shape[1:]),
)


class _BnReluConv1x1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        gamma, beta, mean, _, eps, weight, bias = args
        y, mean_used, var_used = torch.ops.san.bn_relu_conv1x1(x, *args)
        ctx.save_for_backward(x, gamma, beta, mean_used, var_used, weight)
        ctx.mark_non_differentiable(mean_used, var_used)
        ctx.eps, ctx.batch, ctx.has_bias = eps, mean is None, bias is not None
        return y, mean_used, var_used

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *saved, weight = ctx.saved_tensors
        *grads, grad_weight, grad_bias = torch.ops.san.bn_relu_conv1x1_backward(
            grad, *saved, ctx.eps, weight, ctx.batch
        )
        return *grads, None, None, None, grad_weight, grad_bias if ctx.has_bias else None


class _BnReluPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        gamma, beta, mean, _, eps = args
        y, mean_used, var_used = torch.ops.san.bn_relu_pool(x, *args)
        ctx.save_for_backward(x, gamma, beta, mean_used, var_used)
        ctx.mark_non_differentiable(mean_used, var_used)
        ctx.eps, ctx.batch = eps, mean is None
        return y, mean_used, var_used

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grads = torch.ops.san.bn_relu_pool_backward(grad, *ctx.saved_tensors, ctx.eps, ctx.batch)
        return *grads, None, None, None


def bn_relu_conv1x1(
    x: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The 1x1 convolution of relu(batch_norm(x)), and the mean and biased variance that were used.

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(x=x)
    expect_norm("norm", norm, x.shape[1])
    expect("weight", weight, len(weight), x.shape[1], 1, 1, letters="[O, C, 1, 1]")
    expect("bias", bias, len(weight), letters="[O]")
    dtype = autocast_type(x)  # custom operators are not autocast
    bias = None if bias is None else bias.to(dtype)
    args = x.to(dtype), *norm, weight.to(dtype), bias
    y, mean, var = differentiable(_BnReluConv1x1, torch.ops.san.bn_relu_conv1x1, *args)
    return y, mean, var


def bn_relu_pool(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """The 2x2 max-pool of relu(batch_norm(x)), and the mean and biased variance that were used.

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(x=x)
    expect_norm("norm", norm, x.shape[1])
    y, mean, var = differentiable(_BnReluPool, torch.ops.san.bn_relu_pool, x, *norm)
    return y, mean, var


def norm_relu(x: Tensor, norm: Norm) -> Tensor:
    """relu(batch_norm(x)) with known statistics, for inference: it has no gradient.

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(x=x)
    expect_norm("norm", norm, x.shape[1])
    y: Tensor = torch.ops.san.norm_relu(x, *norm)
    return y
