"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool, in operators that save only their input.

Shapes: x [N, C, H, W]; weight [O, C, 1, 1]; statistics [C].
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.norm import Norm, accumulation_type, autocast_type
from sancli.ops.reference import trunk as plain
from sancli.ops.registry import differentiable, first_derivative_only, register


def maps(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """An empty [N, channels, height, width], channels last, of the type of `like`."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def statistics_like(x: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Empty mean and variance [channels] of the type that they are kept in."""
    dtype = accumulation_type(x.dtype)
    return x.new_empty(channels, dtype=dtype), x.new_empty(channels, dtype=dtype)


def _bn_relu_conv1x1_shapes(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return maps(x, len(weight), *x.shape[2:]), *statistics_like(x, len(gamma))


def _bn_relu_conv1x1_backward_shapes(
    grad: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    weight: Tensor,
    batch: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_weight = weight.new_empty(weight.shape)
    return (
        maps(x, *x.shape[1:]),
        torch.empty_like(gamma),
        torch.empty_like(beta),
        grad_weight,
        weight.new_empty(len(weight)),
    )


def _bn_relu_pool_shapes(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor | None, var: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return maps(x, x.shape[1], x.shape[2] // 2, x.shape[3] // 2), *statistics_like(x, len(gamma))


def _bn_relu_pool_backward_shapes(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float, batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return maps(x, *x.shape[1:]), torch.empty_like(gamma), torch.empty_like(beta)


register(
    "bn_relu_conv1x1(Tensor x, Tensor gamma, Tensor beta, Tensor? mean, Tensor? var, float eps, Tensor"
    " weight,"
    " Tensor? bias) -> (Tensor y, Tensor mean_used, Tensor var_used)",
    plain.bn_relu_conv1x1,
    _bn_relu_conv1x1_shapes,
)
register(
    "bn_relu_conv1x1_backward(Tensor grad, Tensor x, Tensor gamma, Tensor beta, Tensor mean, Tensor var,"
    " float eps,"
    " Tensor weight, bool batch) -> (Tensor x, Tensor gamma, Tensor beta, Tensor weight, Tensor bias)",
    plain.bn_relu_conv1x1_backward,
    _bn_relu_conv1x1_backward_shapes,
)
register(
    "bn_relu_pool(Tensor x, Tensor gamma, Tensor beta, Tensor? mean, Tensor? var, float eps)"
    " -> (Tensor y, Tensor mean_used, Tensor var_used)",
    plain.bn_relu_pool,
    _bn_relu_pool_shapes,
)
register(
    "bn_relu_pool_backward(Tensor grad, Tensor x, Tensor gamma, Tensor beta, Tensor mean, Tensor var,"
    " float eps,"
    " bool batch) -> (Tensor, Tensor, Tensor)",
    plain.bn_relu_pool_backward,
    _bn_relu_pool_backward_shapes,
)

register(
    "norm_relu(Tensor x, Tensor gamma, Tensor beta, Tensor mean, Tensor var, float eps) -> Tensor",
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
        x, gamma, beta, mean, var, weight = ctx.saved_tensors
        grad_x, grad_gamma, grad_beta, grad_weight, grad_bias = torch.ops.san.bn_relu_conv1x1_backward(
            grad, x, gamma, beta, mean, var, ctx.eps, weight, ctx.batch
        )
        return (
            grad_x,
            grad_gamma,
            grad_beta,
            None,
            None,
            None,
            grad_weight,
            grad_bias if ctx.has_bias else None,
        )


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
        x, gamma, beta, mean, var = ctx.saved_tensors
        grads = torch.ops.san.bn_relu_pool_backward(grad, x, gamma, beta, mean, var, ctx.eps, ctx.batch)
        return *grads, None, None, None


def bn_relu_conv1x1(
    x: Tensor, norm: Norm, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The 1x1 convolution of relu(batch_norm(x)), and the mean and biased variance that were used."""
    dtype = autocast_type(x)  # custom operators are not autocast
    bias = None if bias is None else bias.to(dtype)
    args = x.to(dtype), *norm, weight.to(dtype), bias
    y, mean, var = differentiable(_BnReluConv1x1, torch.ops.san.bn_relu_conv1x1, *args)
    return y, mean, var


def bn_relu_pool(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """The 2x2 max-pool of relu(batch_norm(x)), and the mean and biased variance that were used."""
    y, mean, var = differentiable(_BnReluPool, torch.ops.san.bn_relu_pool, x, *norm)
    return y, mean, var


def norm_relu(x: Tensor, norm: Norm) -> Tensor:
    """relu(batch_norm(x)) with known statistics, for inference: it has no gradient."""
    y: Tensor = torch.ops.san.norm_relu(x, *norm)
    return y
