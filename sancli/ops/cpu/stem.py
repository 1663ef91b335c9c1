"""san::stem by kernels/cpu/stem.cpp. Shapes as in sancli/ops/reference/stem.py."""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.cpu.library import Kernels, kernels
from sancli.ops.layout import parameter, real_type, storage, with_room
from sancli.ops.norm import Affine, Norm
from sancli.ops.reference import stem as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def stem(image: Tensor, weight: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::stem."""
    library, norm = fitting(image, weight, *given[:4]), Norm(*given)
    if library is None:
        return plain.stem(image, weight, *given)
    image, real, (images, _, height, width) = channels_last(image), real_type(image), image.shape
    gamma, beta, mean, var, eps = with_room(norm, real)
    y = maps(image, len(weight), height // 2, width // 2)
    library.call(
        "san_stem", storage(image), images, height, width, len(weight), norm.mean is None,
        image, *(parameter(x, real) for x in (weight, gamma, beta)), mean, var, eps, y,
    )  # fmt: skip
    return y, mean, var


def stem_backward(
    grad: Tensor, image: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """san::stem_backward."""
    *known, batch, image_grad = rest
    library, norm = fitting(image, weight, *known[:4]), Affine(*known)
    if library is None:
        return plain.stem_backward(grad, image, weight, *rest)
    image, real, (images, _, height, width) = channels_last(image), real_type(image), image.shape
    owned = weight, norm.gamma, norm.beta
    given = [parameter(x, real) for x in owned]
    grad_image = torch.empty_like(image) if image_grad else image.new_empty(0)
    grads = [torch.empty_like(x) for x in given]
    library.call(
        "san_stem_backward", storage(image), images, height, width, len(weight), batch,
        channels_last(grad), image, *given, *norm[2:], grad_image if image_grad else None, *grads,
    )  # fmt: skip
    typed = (x.to(like.dtype) for x, like in zip(grads, owned, strict=True))
    return grad_image, *typed  # type: ignore[return-value]  # three of them


def fitting(image: Tensor, *rest: Tensor | None) -> Kernels | None:
    """The kernels know images of three colours, large enough for a window."""
    fits = image.shape[1] == 3 and min(image.shape[2:]) >= 2
    return kernels(image, *rest) if fits else None


implement("stem", stem, "CPU")
implement("stem_backward", stem_backward, "CPU")
