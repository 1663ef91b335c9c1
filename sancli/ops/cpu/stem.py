"""san::stem by kernels/cpu/stem.cpp. Shapes as in sancli/ops/reference/stem.py."""

import torch
from torch import Tensor

from sancli.ops.cpu.library import Kernels, kernels
from sancli.ops.layout import parameter, real_type, storage, used
from sancli.ops.reference import stem as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def stem(
    image: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """san::stem."""
    library = fitting(image, weight, gamma, beta, mean, var)
    if library is None:
        return plain.stem(image, weight, gamma, beta, mean, var, eps)
    image, real, (images, _, height, width) = channels_last(image), real_type(image), image.shape
    mean_used, var_used = used(gamma, mean, real), used(gamma, var, real)
    y = maps(image, len(weight), height // 2, width // 2)
    library.call(
        "san_stem", storage(image), images, height, width, len(weight), mean is None,
        image, *(parameter(x, real) for x in (weight, gamma, beta)), mean_used, var_used, eps, y,
    )  # fmt: skip
    return y, mean_used, var_used


def stem_backward(
    grad: Tensor,
    image: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    batch: bool,
    image_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """san::stem_backward."""
    library = fitting(image, weight, gamma, beta, mean, var)
    if library is None:
        return plain.stem_backward(grad, image, weight, gamma, beta, mean, var, eps, batch, image_grad)
    image, real, (images, _, height, width) = channels_last(image), real_type(image), image.shape
    given = [parameter(x, real) for x in (weight, gamma, beta)]
    grad_image = torch.empty_like(image) if image_grad else image.new_empty(0)
    grads = [torch.empty_like(x) for x in given]
    library.call(
        "san_stem_backward", storage(image), images, height, width, len(weight), batch,
        channels_last(grad), image, *given, mean, var, eps, grad_image if image_grad else None, *grads,
    )  # fmt: skip
    typed = (x.to(like.dtype) for x, like in zip(grads, (weight, gamma, beta), strict=True))
    return grad_image, *typed  # type: ignore[return-value]  # three of them


def fitting(image: Tensor, *rest: Tensor | None) -> Kernels | None:
    """The kernels know images of three colours, large enough for a window."""
    fits = image.shape[1] == 3 and min(image.shape[2:]) >= 2
    return kernels(image, *rest) if fits else None


implement("stem", stem, "CPU")
implement("stem_backward", stem_backward, "CPU")
