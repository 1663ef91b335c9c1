"""The stem, 1x1 convolution, BatchNorm, ReLU and 2x2 max-pool, in one operator that saves the image.

Shapes: image [N, 3, H, W]; weight [C, 3]; y [N, C, H / 2, W / 2]; statistics [C].
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.norm import KNOWN, NORM, Norm, autocast_type
from sancli.ops.reference import stem as plain
from sancli.ops.registry import differentiable, first_derivative_only, register
from sancli.ops.shapes import expect, expect_maps, expect_norm
from sancli.ops.trunk import maps, statistics_like


def _stem_shapes(image: Tensor, weight: Tensor, *norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    y = maps(image, len(weight), image.shape[2] // 2, image.shape[3] // 2)
    return y, *statistics_like(image, len(weight))


def _stem_backward_shapes(
    grad: Tensor, image: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, image_grad = rest
    grad_image = maps(image, *image.shape[1:]) if image_grad else image.new_empty(0)
    return grad_image, weight.new_empty(weight.shape), torch.empty_like(gamma), torch.empty_like(beta)


register(
    f"stem(Tensor image, Tensor weight, {NORM}) -> (Tensor y, Tensor mean_used, Tensor var_used)",
    plain.stem,
    _stem_shapes,
)
register(
    f"stem_backward(Tensor grad, Tensor image, Tensor weight, {KNOWN}, bool batch, bool image_grad)"
    " -> (Tensor image, Tensor weight, Tensor gamma, Tensor beta)",
    plain.stem_backward,
    _stem_backward_shapes,
)


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, *norm: Any) -> tuple[Tensor, Tensor, Tensor]:
        gamma, beta, mean, _, eps = norm
        y, mean_used, var_used = torch.ops.san.stem(image, weight, *norm)
        ctx.save_for_backward(image, weight, gamma, beta, mean_used, var_used)
        ctx.mark_non_differentiable(mean_used, var_used)
        ctx.eps, ctx.batch = eps, mean is None
        return y, mean_used, var_used

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        image_grad = ctx.needs_input_grad[0]
        grad_image, *grads = torch.ops.san.stem_backward(
            grad, *ctx.saved_tensors, ctx.eps, ctx.batch, image_grad
        )
        return grad_image if image_grad else None, *grads, None, None, None


def stem(image: Tensor, weight: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """max_pool(relu(batch_norm(conv1x1(image)))), and the mean and biased variance that were used.

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(image=image)
    expect("weight", weight, len(weight), image.shape[1], letters="[C, 3]")
    expect_norm("norm", norm, len(weight))
    image = image.to(autocast_type(image))  # custom operators are not autocast
    y, mean, var = differentiable(_Stem, torch.ops.san.stem, image, weight, *norm)
    return y, mean, var
