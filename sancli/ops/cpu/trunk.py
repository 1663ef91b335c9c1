"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool: kernels/cpu/trunk.cpp and pool.cpp.

The convolution itself stays torch's. Shapes as in sancli/ops/reference/trunk.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cpu.library import Kernels, kernels
from sancli.ops.layout import parameter, real_type, storage, used
from sancli.ops.norm import Affine
from sancli.ops.reference import trunk as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def bn_relu_conv1x1(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_conv1x1."""
    library = kernels(x, gamma, beta, mean, var)
    if library is None:
        return plain.bn_relu_conv1x1(x, gamma, beta, mean, var, eps, weight, bias)
    real = real_type(x)
    norm = Affine(gamma, beta, used(gamma, mean, real), used(gamma, var, real), eps)
    y = F.conv2d(norm_relu(library, channels_last(x), norm, batch=mean is None), weight, bias)
    return channels_last(y), norm.mean, norm.var


def bn_relu_conv1x1_backward(
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
    """san::bn_relu_conv1x1_backward."""
    library = kernels(grad, x, gamma, beta, mean, var)
    if library is None:
        return plain.bn_relu_conv1x1_backward(grad, x, gamma, beta, mean, var, eps, weight, batch)
    x, norm = channels_last(x), Affine(gamma, beta, mean, var, eps)
    y = norm_relu(library, x, norm, batch=False)
    grad_y, grad_weight, grad_bias = plain.conv1x1_backward(channels_last(grad), y, weight)
    del y
    grad_x, grad_gamma, grad_beta = norm_relu_backward(library, channels_last(grad_y), x, norm, batch=batch)
    return grad_x, grad_gamma, grad_beta, grad_weight, grad_bias


def known_norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """san::norm_relu."""
    library = kernels(x, gamma, beta, mean, var)
    if library is None:
        return plain.known_norm_relu(x, gamma, beta, mean, var, eps)
    real = real_type(x)
    norm = Affine(gamma, beta, parameter(mean, real), parameter(var, real), eps)
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


def bn_relu_pool(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor | None, var: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool."""
    library, (images, channels, height, width) = kernels(x, gamma, beta, mean, var), x.shape
    if library is None or min(height, width) < 2:
        return plain.bn_relu_pool(x, gamma, beta, mean, var, eps)
    x, real = channels_last(x), real_type(x)
    mean_used, var_used = used(gamma, mean, real), used(gamma, var, real)
    y = maps(x, channels, height // 2, width // 2)
    library.call(
        "san_norm_relu_pool", storage(x), images, height, width, channels, mean is None,
        x, parameter(gamma, real), parameter(beta, real), mean_used, var_used, eps, y,
    )  # fmt: skip
    return y, mean_used, var_used


def bn_relu_pool_backward(
    grad: Tensor, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float, batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool_backward."""
    library, (images, channels, height, width) = kernels(grad, x, gamma, beta, mean, var), x.shape
    if library is None:
        return plain.bn_relu_pool_backward(grad, x, gamma, beta, mean, var, eps, batch)
    x, real = channels_last(x), real_type(x)
    gamma_used, beta_used = parameter(gamma, real), parameter(beta, real)
    grad_x, grad_gamma, grad_beta = (
        torch.empty_like(x),
        torch.empty_like(gamma_used),
        torch.empty_like(beta_used),
    )
    library.call(
        "san_norm_relu_pool_backward", storage(x), images, height, width, channels, batch,
        channels_last(grad), x, gamma_used, beta_used, mean, var, eps, grad_x, grad_gamma, grad_beta,
    )  # fmt: skip
    return grad_x, grad_gamma.to(gamma.dtype), grad_beta.to(beta.dtype)


for operator in (bn_relu_conv1x1, bn_relu_conv1x1_backward, bn_relu_pool, bn_relu_pool_backward):
    implement(operator.__name__, operator, "CPU")
implement("norm_relu", known_norm_relu, "CPU")
