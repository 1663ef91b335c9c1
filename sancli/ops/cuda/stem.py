"""san::stem by kernels/stem.cu. Shapes as in sancli/ops/reference/stem.py."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.channels import PARTS, THREADS, WARP, cut, cut_pixels, integers, joined_bytes, joining
from sancli.ops.cuda.trunk import affine, usable
from sancli.ops.layout import of_one_type, parameter, real_type, with_room
from sancli.ops.norm import Affine, Norm
from sancli.ops.reference import stem as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps

SOURCE = "stem.cu"
COLOURS = 3
SUMS = COLOURS + 1
MOMENTS = 9
"""Sums of the distances of three colours, and of their six products."""


def stem(image: Tensor, weight: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::stem."""
    if not fitting(image, weight, *given[:4]):
        return plain.stem(image, weight, *given)
    image, dtype, (_, _, mean, var, _) = channels_last(image), real_type(image), given
    norm, own = affine(image, with_room(Norm(*given), dtype)), mean is None or var is None
    folded = fold(moments(image) if own else None, parameter(weight, dtype), norm, own=own)
    images, _, height, width = image.shape
    y = maps(image, len(weight), height // 2, width // 2)
    windows = images * (height // 2) * (width // 2)
    work = cut(windows, len(weight), y)
    loader.launch(
        SOURCE, work.kernel("stem", image), work.grid, work.block,
        image, *folded, y, *integers(height, width, windows, len(weight), work.share),
    )  # fmt: skip
    return y, norm.mean, norm.var


def stem_backward(
    grad: Tensor, image: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """san::stem_backward."""
    *known, batch, image_grad = rest
    if not fitting(image, grad, weight, *known[:4]) or not of_one_type(grad, image):
        return plain.stem_backward(grad, image, weight, *rest)
    grad, image = channels_last(grad), channels_last(image)
    real_weight, norm = parameter(weight, real_type(image)), affine(image, Affine(*known))
    of_image = moments(image) if batch else None
    folded = fold(of_image, real_weight, norm, own=False)
    sums = summed(grad, image, folded)
    *grads, of_statistics = parameter_gradients(sums, of_image, real_weight, norm)
    grad_image = image.new_empty(0)
    if image_grad:
        through = through_statistics(image, real_weight, of_statistics) if batch else None
        grad_image = image_gradient(grad, image, folded, through)
    typed = (x.to(like.dtype) for x, like in zip(grads, (weight, *known[:2]), strict=True))
    return grad_image, *typed  # type: ignore[return-value]  # three of them


def fitting(image: Tensor, *rest: Tensor | None) -> bool:
    """The kernels know images of three colours, large enough for a window."""
    return image.shape[1] == COLOURS and min(image.shape[2:]) >= 2 and usable(image, *rest)


class Folded(NamedTuple):
    """Convolution and BatchNorm as one."""

    kernel: Tensor
    """[4, C]: three colours and the bias."""
    centre: Tensor
    """[3]: what the kernel's distances are taken from."""


def moments(image: Tensor) -> Tensor:
    """Mean and covariance of the colours, 3 and 3 x 3 numbers in float64."""
    pixels = image.numel() // COLOURS
    work = cut_pixels(pixels)
    sums = image.new_empty(work.parts, MOMENTS, dtype=torch.float64)
    joined = image.new_empty(COLOURS + COLOURS**2, dtype=torch.float64)
    loader.launch(
        SOURCE, f"image_moments<{loader.ctype(image.dtype)}>", work.grid, work.block,
        image, sums, *integers(pixels, work.share), shared=work.shared(MOMENTS, sums),
    )  # fmt: skip
    loader.launch(
        SOURCE, f"join_image_moments<{loader.ctype(image.dtype)}>", (1,), work.block,
        image, sums, joined, *integers(pixels, work.parts), shared=work.shared(MOMENTS, sums),
    )  # fmt: skip
    return joined


def fold(of_image: Tensor | None, weight: Tensor, norm: Affine, *, own: bool) -> Folded:
    """Kernel and centre; where `own` is set, the norm's statistics become those of the image."""
    channels = len(weight)
    folded = Folded(weight.new_empty(SUMS, channels), weight.new_empty(COLOURS))
    loader.launch(
        SOURCE, f"stem_fold<{loader.ctype(weight.dtype)}>", (-(-channels // THREADS),), (THREADS,),
        of_image, weight, *norm[:4], np.float64(norm.eps), *folded, *integers(own, channels),
    )  # fmt: skip
    return folded


def summed(grad: Tensor, image: Tensor, folded: Folded) -> Tensor:
    """For each part and channel the sums of the gradient times the colours that it goes to, and of itself."""
    images, channels, rows, columns = grad.shape
    windows = images * rows * columns
    work = cut(windows, channels, grad, most=PARTS)
    sums = folded.kernel.new_empty(work.parts, SUMS, channels)
    loader.launch(
        SOURCE, work.kernel("stem_sums", grad), work.grid, work.block,
        grad, image, *folded, sums, *integers(*image.shape[2:], windows, channels, work.share),
        shared=work.shared(SUMS, sums),
    )  # fmt: skip
    return sums


def parameter_gradients(
    sums: Tensor, of_image: Tensor | None, weight: Tensor, norm: Affine
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of weight, gamma and beta; and those of mean and variance, [2, C] in float64."""
    parts, _, channels = sums.shape
    grads = [torch.empty_like(x) for x in (weight, norm.gamma, norm.beta)]
    of_statistics = weight.new_empty(2, channels, dtype=torch.float64)
    grid, block = joining(channels)
    loader.launch(
        SOURCE, f"stem_gradients<{loader.ctype(sums.dtype)}>", grid, block,
        sums, of_image, weight, norm.gamma, norm.mean, norm.var, np.float64(norm.eps), *grads, of_statistics,
        *integers(channels, parts), shared=joined_bytes(SUMS, sums),
    )  # fmt: skip
    return *grads, of_statistics  # type: ignore[return-value]  # three and one


def through_statistics(image: Tensor, weight: Tensor, of_statistics: Tensor) -> Tensor:
    """What a pixel's gradient takes from mean and variance, [4, 3]: by colours' distances, and without."""
    (of_mean, of_var), wide = of_statistics, weight.double()
    spread = wide.T @ (2 * of_var[:, None] * wide)
    return (torch.cat([spread, (of_mean @ wide)[None]]) / (image.numel() // COLOURS)).to(weight.dtype)


def image_gradient(grad: Tensor, image: Tensor, folded: Folded, through: Tensor | None) -> Tensor:
    """The gradient of the image, where it is wanted."""
    (images, _, height, width), warps = image.shape, THREADS // WARP
    cells, grad_image = images * -(-height // 2) * -(-width // 2), torch.empty_like(image)
    loader.launch(
        SOURCE, f"stem_image_gradient<{loader.ctype(image.dtype)}>", (-(-cells // warps),), (WARP, warps),
        grad, image, *folded, through, grad_image, *integers(height, width, cells, grad.shape[1]),
    )  # fmt: skip
    return grad_image


implement("stem", stem, "CUDA")
implement("stem_backward", stem_backward, "CUDA")
