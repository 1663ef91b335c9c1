"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool, keeping nothing but the input.

Shapes: x [N, C, H, W], channels last; gamma, beta and the statistics [C].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.norm import Affine, Norm, accumulation_type

aten = torch.ops.aten


def statistics(x: Tensor, mean: Tensor | None, var: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance to normalise `x` with: those given, copied, or else its own."""
    dtype = accumulation_type(x.dtype)
    if mean is not None and var is not None:
        return mean.to(dtype, copy=True), var.to(dtype, copy=True)
    zero = x.new_zeros(x.shape[1], dtype=dtype)  # not used, but makes torch keep 16-bit statistics in fp32
    mean, var = torch.batch_norm_update_stats(x, zero, zero.clone(), 0.0)
    return mean, var


def affine(x: Tensor, norm: Norm) -> Affine:
    """The norm with the statistics that it uses for `x`."""
    return norm.known(*statistics(x, norm.mean, norm.var))


def norm_relu(x: Tensor, norm: Affine) -> Tensor:
    """relu((x - mean) / sqrt(var + eps) * gamma + beta)."""
    gamma, beta = norm.gamma.to(norm.mean.dtype), norm.beta.to(norm.mean.dtype)
    return torch.batch_norm(x, gamma, beta, norm.mean, norm.var, False, 0.0, norm.eps, False).relu_()


def known_norm_relu(x: Tensor, *norm: Any) -> Tensor:
    """san::norm_relu."""
    x = channels_last(x)
    return norm_relu(x, affine(x, Norm(*norm)))


def norm_relu_backward(
    grad: Tensor, y: Tensor, x: Tensor, norm: Affine, batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta.

    Args:
        grad: The gradient of `y`.
        y: What `norm_relu` made of `x`.
        x: [N, C, H, W].
        norm: As then.
        batch: Whether its statistics are those of `x`, and so depend on it.
    """
    grad = aten.threshold_backward(grad, y, 0)
    gamma, invstd = norm.gamma.to(norm.mean.dtype), torch.rsqrt(norm.var + norm.eps)
    grad_x, grad_gamma, grad_beta = aten.native_batch_norm_backward(
        grad, x, gamma, norm.mean, norm.var, norm.mean, invstd, batch, norm.eps, [True, True, True]
    )
    return grad_x, grad_gamma.to(norm.gamma.dtype), grad_beta.to(norm.beta.dtype)


def channels_last(x: Tensor) -> Tensor:
    """Itself where it already is."""
    return x.contiguous(memory_format=torch.channels_last)


def bn_relu_conv1x1(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_conv1x1."""
    *given, weight, bias = rest
    x = channels_last(x)
    norm = affine(x, Norm(*given))
    return channels_last(F.conv2d(norm_relu(x, norm), weight, bias)), norm.mean, norm.var


def bn_relu_conv1x1_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """san::bn_relu_conv1x1_backward: gradients of x, gamma, beta, weight and bias."""
    *known, weight, batch = rest
    x, norm = channels_last(x), Affine(*known)
    y = norm_relu(x, norm)
    grad_y, *of_conv = conv1x1_backward(channels_last(grad), y, weight)
    grad_x, *of_norm = norm_relu_backward(channels_last(grad_y), y, x, norm, batch)
    return channels_last(grad_x), *of_norm, *of_conv


def conv1x1_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    grad_x, grad_weight, grad_bias = aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True] * 3
    )
    return grad_x, grad_weight.contiguous(), grad_bias


def bn_relu_pool(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool."""
    x = channels_last(x)
    norm = affine(x, Norm(*given))
    return channels_last(F.max_pool2d(norm_relu(x, norm), 2)), norm.mean, norm.var


def bn_relu_pool_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool_backward: gradients of x, gamma and beta."""
    *known, batch = rest
    x, norm = channels_last(x), Affine(*known)
    y = norm_relu(x, norm)
    grad_y = pool_backward(channels_last(grad), y)
    grad_x, grad_gamma, grad_beta = norm_relu_backward(grad_y, y, x, norm, batch)
    return channels_last(grad_x), grad_gamma, grad_beta


def pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of x, from that of its 2x2 max-pool."""
    indices = aten.max_pool2d_with_indices(x, [2, 2])[1]  # int64: made here rather than kept since forward
    grad_x: Tensor = aten.max_pool2d_with_indices_backward(
        grad, x, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
    )
    return grad_x
