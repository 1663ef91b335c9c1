"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool: kernels/cpu/trunk.cpp and pool.cpp.

The convolution itself stays torch's. Shapes as in sancli/ops/reference/trunk.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cpu.library import Kernels, kernels
from sancli.ops.layout import parameter, real_type, storage, with_room
from sancli.ops.norm import Affine, Norm
from sancli.ops.reference import trunk as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def bn_relu_conv1x1(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_conv1x1."""
    *given, weight, bias = rest
    library = kernels(x, *given[:4])
    if library is None:
        return plain.bn_relu_conv1x1(x, *rest)
    norm = with_room(Norm(*given), real_type(x))
    y = F.conv2d(norm_relu(library, channels_last(x), norm, batch=given[2] is None), weight, bias)
    return channels_last(y), norm.mean, norm.var


def bn_relu_conv1x1_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """san::bn_relu_conv1x1_backward."""
    *known, weight, batch = rest
    library = kernels(grad, x, *known[:4])
    if library is None:
        return plain.bn_relu_conv1x1_backward(grad, x, *rest)
    x, norm = channels_last(x), Affine(*known)
    y = norm_relu(library, x, norm, batch=False)
    grad_y, *of_conv = plain.conv1x1_backward(channels_last(grad), y, weight)
    del y
    return *norm_relu_backward(library, channels_last(grad_y), x, norm, batch=batch), *of_conv


def known_norm_relu(x: Tensor, *known: Any) -> Tensor:
    """san::norm_relu."""
    library = kernels(x, *known[:4])
    if library is None:
        return plain.known_norm_relu(x, *known)
    gamma, beta, mean, var, eps = known
    norm = Affine(gamma, beta, parameter(mean, real_type(x)), parameter(var, real_type(x)), eps)
    return norm_relu(library, channels_last(x), norm, batch=False)


def norm_relu(library: Kernels, x: Tensor, norm: Affine, *, batch: bool) -> Tensor:
    """relu(norm(x)); where `batch` is set, the statistics are those of `x`, and are written into `norm`."""
    y, real = torch.empty_like(x), real_type(x)
    library.call(
        "san_norm_relu", storage(x), x.numel() // x.shape[1], x.shape[1], batch,
        x, parameter(norm.gamma, real), parameter(norm.beta, real), norm.mean, norm.var, norm.eps, y,
    )  # fmt: skip
    return y


def norm_relu_backward(
    library: Kernels, grad: Tensor, x: Tensor, norm: Affine, *, batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, which takes the place of `grad`, gamma and beta."""
    real = real_type(x)
    gamma, beta = parameter(norm.gamma, real), parameter(norm.beta, real)
    grad_gamma, grad_beta = torch.empty_like(gamma), torch.empty_like(beta)
    library.call(
        "san_norm_relu_backward", storage(x), x.numel() // x.shape[1], x.shape[1], batch,
        grad, x, gamma, beta, norm.mean, norm.var, norm.eps, grad, grad_gamma, grad_beta,
    )  # fmt: skip
    return grad, grad_gamma.to(norm.gamma.dtype), grad_beta.to(norm.beta.dtype)


def bn_relu_pool(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool."""
    library, (images, channels, height, width) = kernels(x, *given[:4]), x.shape
    if library is None or min(height, width) < 2:
        return plain.bn_relu_pool(x, *given)
    x, real = channels_last(x), real_type(x)
    norm, y = with_room(Norm(*given), real), maps(x, channels, height // 2, width // 2)
    library.call(
        "san_norm_relu_pool", storage(x), images, height, width, channels, given[2] is None,
        x, parameter(norm.gamma, real), parameter(norm.beta, real), *norm[2:], y,
    )  # fmt: skip
    return y, norm.mean, norm.var


def bn_relu_pool_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool_backward."""
    *known, batch = rest
    library, (images, channels, height, width) = kernels(grad, x, *known[:4]), x.shape
    if library is None:
        return plain.bn_relu_pool_backward(grad, x, *rest)
    x, real, norm = channels_last(x), real_type(x), Affine(*known)
    gamma, beta = parameter(norm.gamma, real), parameter(norm.beta, real)
    grad_x, grad_gamma, grad_beta = torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(beta)
    library.call(
        "san_norm_relu_pool_backward", storage(x), images, height, width, channels, batch,
        channels_last(grad), x, gamma, beta, *norm[2:], grad_x, grad_gamma, grad_beta,
    )  # fmt: skip
    return grad_x, grad_gamma.to(norm.gamma.dtype), grad_beta.to(norm.beta.dtype)


for operator in (bn_relu_conv1x1, bn_relu_conv1x1_backward, bn_relu_pool, bn_relu_pool_backward):
    implement(operator.__name__, operator, "CPU")
implement("norm_relu", known_norm_relu, "CPU")
