"""The stem, 1x1 convolution, BatchNorm, ReLU and 2x2 max-pool of the image, image by image.

Shapes: image [N, 3, H, W], channels last; weight [C, 3]; y [N, C, H / 2, W / 2].
The statistics of the convolution's output follow from those of the image: with mu its mean and V its
covariance, 3 numbers and 3 x 3, the mean is weight mu and the variance diag(weight V weight^T).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.norm import Affine, Norm, accumulation_type
from sancli.ops.reference.trunk import channels_last, pool_backward


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [3] and covariance [3, 3] of the channels, in float64: float32 gave ten times the error."""
    pixels = channels_last(image).permute(0, 2, 3, 1).reshape(-1, image.shape[1])
    mean = pixels.mean(0, dtype=torch.float64)
    centred = (chunk.double() - mean for chunk in pixels.split(2**17))
    covariance = sum((chunk.T @ chunk for chunk in centred), torch.zeros_like(mean.outer(mean)))
    return mean, covariance / len(pixels)


def statistics(
    image: Tensor, weight: Tensor, mean: Tensor | None, var: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the convolution's output, [C]: those given, copied, or else the batch's."""
    dtype = accumulation_type(image.dtype)
    if mean is not None and var is not None:
        return mean.to(dtype, copy=True), var.to(dtype, copy=True)
    centre, covariance = moments(image)
    weight = weight.double()
    return (weight @ centre).to(dtype), ((weight @ covariance) * weight).sum(1).to(dtype)


def folded(weight: Tensor, norm: Affine, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Convolution and BatchNorm as one convolution: weight [C, 3, 1, 1] and bias."""
    scale, shift = norm.fold()
    return (weight * scale[:, None])[:, :, None, None].to(dtype), shift.to(dtype)


def stem(image: Tensor, weight: Tensor, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
    """san::stem."""
    norm = Norm(*given)
    mean, var = statistics(image, weight, norm.mean, norm.var)
    kernel, bias = folded(weight, norm.known(mean, var), image.dtype)
    images = channels_last(image).split(1)  # at full size, all of them would be the largest tensor of all
    y = torch.cat([F.max_pool2d(F.conv2d(one, kernel, bias).relu_(), 2) for one in images])
    return channels_last(y), mean, var


def stem_backward(
    grad: Tensor, image: Tensor, weight: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """san::stem_backward: gradients of image (empty unless `image_grad`), weight, gamma and beta."""
    *known, batch, image_grad = rest
    image, grad, norm = channels_last(image), channels_last(grad), Affine(*known)
    grad_image, grad_kernel, grad_shift = conv_backward(
        grad, image, *folded(weight, norm, image.dtype), image_grad
    )
    scale, _ = norm.fold()
    wide = weight.to(scale.dtype)
    grad_gamma, grad_beta, grad_mean, grad_var = norm.fold_backward((grad_kernel * wide).sum(1), grad_shift)
    grad_weight = grad_kernel * scale[:, None]
    if batch:
        centre, covariance = moments(image)
        grad_mean, grad_var, wide = grad_mean.double(), grad_var.double(), wide.double()
        grad_weight += grad_mean.outer(centre) + 2 * grad_var[:, None] * (wide @ covariance)
        if image_grad:
            spread = wide.T @ (grad_var[:, None] * wide) * 2
            linear = wide.T @ grad_mean - spread @ centre
            count = image.numel() // image.shape[1]
            grad_image += F.conv2d(
                image, (spread / count)[:, :, None, None].to(image.dtype), (linear / count).to(image.dtype)
            )
    return grad_image, grad_weight.to(weight.dtype), grad_gamma, grad_beta


def conv_backward(
    grad: Tensor, image: Tensor, kernel: Tensor, bias: Tensor, image_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of image, kernel [C, 3] and bias, from that of max_pool(relu(conv(image)))."""
    dtype, grad_images = accumulation_type(image.dtype), []
    grad_kernel = torch.zeros_like(kernel[:, :, 0, 0], dtype=dtype)
    grad_bias = torch.zeros_like(bias, dtype=dtype)
    for one, grad_one in zip(image.split(1), grad.split(1), strict=True):
        y = F.conv2d(one, kernel, bias).relu_()
        grad_y = torch.ops.aten.threshold_backward(pool_backward(grad_one, y), y, 0)
        wanted = [image_grad, True, True]
        grad_x, of_kernel, of_bias = torch.ops.aten.convolution_backward(
            grad_y, one, kernel, [len(kernel)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, wanted
        )
        grad_kernel += of_kernel[:, :, 0, 0]
        grad_bias += of_bias
        grad_images += [grad_x] if image_grad else []
    return torch.cat(grad_images) if image_grad else image.new_empty(0), grad_kernel, grad_bias
