"""BatchNorm and ReLU in front of a 1x1 convolution or a 2x2 pool, by kernels/trunk.cu.

The convolution itself stays torch's; its bits repeat where torch.backends.cudnn.deterministic asks for that.
Shapes as in sancli/ops/reference/trunk.py.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.channels import MOST_PIXELS, PARTS, cut, integers, joined_bytes, joining, real
from sancli.ops.layout import of_one_type, parameter, real_type, with_room
from sancli.ops.norm import Affine, Norm
from sancli.ops.reference import trunk as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps

SOURCE = "trunk.cu"


def usable(x: Tensor, *rest: Tensor | None) -> bool:
    """Whether the kernels can do it; else plain PyTorch has to."""
    return x.numel() // max(1, x.shape[1]) <= MOST_PIXELS and loader.usable(x, *rest)


def bn_relu_conv1x1(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_conv1x1."""
    *given, weight, bias = rest
    if not usable(x, *given[:4]):
        return plain.bn_relu_conv1x1(x, *rest)
    x = channels_last(x)
    norm = normalisation(x, Norm(*given))
    return channels_last(F.conv2d(norm_relu(x, norm), weight, bias)), norm.mean, norm.var


def bn_relu_conv1x1_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """san::bn_relu_conv1x1_backward."""
    *known, weight, batch = rest
    if not usable(x, grad, *known[:4]) or not of_one_type(grad, x, weight):
        return plain.bn_relu_conv1x1_backward(grad, x, *rest)
    x, norm = channels_last(x), affine(x, Affine(*known))
    y = norm_relu(x, norm)
    grad_y, *of_conv = plain.conv1x1_backward(channels_last(grad), y, weight)
    del y
    grad_x, *of_norm = norm_relu_backward(channels_last(grad_y), x, norm, batch=batch)
    return grad_x, *(one.to(like.dtype) for one, like in zip(of_norm, known[:2], strict=True)), *of_conv


def known_norm_relu(x: Tensor, *known: Any) -> Tensor:
    """san::norm_relu."""
    if not usable(x, *known[:4]):
        return plain.known_norm_relu(x, *known)
    return norm_relu(channels_last(x), affine(x, Affine(*known)))


def bn_relu_pool(x: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool."""
    images, channels, height, width = x.shape
    if not usable(x, *given[:4]) or min(height, width) < 2:
        return plain.bn_relu_pool(x, *given)
    x = channels_last(x)
    norm, y = normalisation(x, Norm(*given)), maps(x, channels, height // 2, width // 2)
    windows = images * (height // 2) * (width // 2)
    work = cut(windows, channels, x, y)
    loader.launch(
        SOURCE, work.kernel("norm_relu_pool", x), work.grid, work.block,
        x, *numbers(norm), y, *integers(height, width, windows, channels, work.share),
    )  # fmt: skip
    return y, norm.mean, norm.var


def bn_relu_pool_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool_backward."""
    *known, batch = rest
    if not usable(x, grad, *known[:4]) or not of_one_type(grad, x):
        return plain.bn_relu_pool_backward(grad, x, *rest)
    images, channels, height, width = x.shape
    grad, x, norm = channels_last(grad), channels_last(x), affine(x, Affine(*known))
    windows, cells = images * (height // 2) * (width // 2), images * -(-height // 2) * -(-width // 2)
    work = cut(windows, channels, x, grad, most=PARTS)
    sums = norm.mean.new_empty(work.parts, 2, channels)
    loader.launch(
        SOURCE, work.kernel("pool_sums", x), work.grid, work.block,
        grad, x, *numbers(norm), sums, *integers(height, width, windows, channels, work.share),
        shared=work.shared(2, sums),
    )  # fmt: skip
    grads, of_batch = gradients(sums, norm, pixels=images * height * width)
    grad_x = torch.empty_like(x)
    work = cut(cells, channels, x, grad, grad_x)
    loader.launch(
        SOURCE, work.kernel("pool_gradient", x), work.grid, work.block,
        grad, x, *numbers(norm), *of_batch, grad_x,
        *integers(batch, height, width, cells, channels, work.share),
    )  # fmt: skip
    return grad_x, grads[0].to(known[0].dtype), grads[1].to(known[1].dtype)


def affine(x: Tensor, norm: Affine) -> Affine:
    """The norm, of the type that maps like `x` are computed in."""
    gamma, beta, mean, var = (parameter(t, real_type(x)) for t in norm[:4])
    return Affine(gamma, beta, mean, var, norm.eps)


def normalisation(x: Tensor, given: Norm) -> Affine:
    """The same with statistics of its own: copies of those given, or those of `x`."""
    norm = affine(x, with_room(given, real_type(x)))
    if given.mean is None or given.var is None:
        write_statistics(x, norm.mean, norm.var)
    return norm


def numbers(norm: Affine) -> tuple[Tensor | np.generic, ...]:
    """The norm as kernels take it."""
    return *norm[:4], real(norm.eps, norm.mean)


def write_statistics(x: Tensor, mean: Tensor, var: Tensor) -> None:
    """Mean and biased variance of each channel of `x`, into `mean` and `var`."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    work = cut(pixels, channels, x, most=PARTS)
    means, squares = mean.new_empty(2, work.parts, channels)
    loader.launch(
        SOURCE, work.kernel("channel_moments", x), work.grid, work.block,
        x, means, squares, mean, *integers(pixels, channels, work.share), shared=work.shared(3, mean),
    )  # fmt: skip
    grid, block = joining(channels)
    loader.launch(
        SOURCE, f"join_moments<{loader.ctype(mean.dtype)}>", grid, block,
        means, squares, mean, var, *integers(pixels, channels, work.share, work.parts),
        shared=joined_bytes(3, mean),
    )  # fmt: skip


def norm_relu(x: Tensor, norm: Affine) -> Tensor:
    """relu(norm(x)) of a map that is channels last."""
    y, channels = torch.empty_like(x), x.shape[1]
    pixels = x.numel() // channels
    work = cut(pixels, channels, x, y)
    loader.launch(
        SOURCE, work.kernel("norm_relu", x), work.grid, work.block,
        x, *numbers(norm), y, *integers(pixels, channels, work.share),
    )  # fmt: skip
    return y


def norm_relu_backward(
    grad: Tensor, x: Tensor, norm: Affine, *, batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, which takes the place of `grad`, gamma and beta. Both maps are channels last."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    work = cut(pixels, channels, x, grad, most=PARTS)
    sums = norm.mean.new_empty(work.parts, 2, channels)
    loader.launch(
        SOURCE, work.kernel("norm_relu_sums", x), work.grid, work.block,
        grad, x, *numbers(norm), sums, *integers(pixels, channels, work.share), shared=work.shared(2, sums),
    )  # fmt: skip
    grads, of_batch = gradients(sums, norm, pixels=pixels)
    work = cut(pixels, channels, x, grad)
    loader.launch(
        SOURCE, work.kernel("norm_relu_gradient", x), work.grid, work.block,
        grad, x, *numbers(norm), *of_batch, grad, *integers(batch, pixels, channels, work.share),
    )  # fmt: skip
    return grad, *grads


def gradients(
    sums: Tensor, norm: Affine, *, pixels: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Those of gamma and beta, from the sums of the parts; and what the gradient of x takes from them."""
    parts, _, channels = sums.shape
    grad_gamma, grad_beta, of_mean, of_distance = sums.new_empty(4, channels)
    grid, block = joining(channels)
    loader.launch(
        SOURCE, f"norm_gradients<{loader.ctype(sums.dtype)}>", grid, block,
        sums, norm.gamma, norm.var, real(norm.eps, sums), grad_gamma, grad_beta, of_mean, of_distance,
        *integers(pixels, channels, parts), shared=joined_bytes(2, sums),
    )  # fmt: skip
    return (grad_gamma, grad_beta), (of_mean, of_distance)


for operator in (bn_relu_conv1x1, bn_relu_conv1x1_backward, bn_relu_pool, bn_relu_pool_backward):
    implement(operator.__name__, operator, "CUDA")
implement("norm_relu", known_norm_relu, "CUDA")
