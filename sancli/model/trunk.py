"""Between nn.BatchNorm2d, which holds the state, and the operators, which hold none.

Operators say which statistics they used; updating the running ones is done here.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sancli import ops
from sancli.ops import Norm


def norm_of(bn: nn.BatchNorm2d, count: int) -> Norm:
    """What an operator is told of `bn`, which sees `count` values a channel.

    Raises:
        ValueError: One value a channel in training, which would be its own mean. As torch does.
    """
    if not uses_batch(bn):
        return Norm(bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.eps)
    if bn.training and count == 1:
        raise ValueError(
            "expected more than 1 value per channel when training, got a batch of 1 on a 1x1 map"
        )
    return Norm(bn.weight, bn.bias, None, None, bn.eps)


def uses_batch(bn: nn.BatchNorm2d) -> bool:
    """Whether `bn` normalises with the batch's own statistics; frozen and evaluated ones do not."""
    return bn.training or bn.running_mean is None


@torch.no_grad()
def track(bn: nn.BatchNorm2d, statistics: tuple[Tensor, Tensor], count: int) -> None:
    """Updates running statistics as BatchNorm does in training: by mean and unbiased variance."""
    if not bn.training or bn.running_mean is None or bn.running_var is None or bn.num_batches_tracked is None:
        return
    mean, var = statistics
    bn.num_batches_tracked.add_(1)
    share: Any = 1 / bn.num_batches_tracked if bn.momentum is None else bn.momentum  # None: plain average
    bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), share)
    bn.running_var.lerp_((var * (count / (count - 1))).to(bn.running_var.dtype), share)


def pixels(x: Tensor) -> int:
    """How many values a channel of `x` [N, C, H, W] has."""
    return x.shape[0] * x.shape[2] * x.shape[3]


def bn_relu_conv1x1(x: Tensor, bn: nn.BatchNorm2d, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The 1x1 convolution of relu(bn(x))."""
    y, mean, var = ops.bn_relu_conv1x1(x, norm_of(bn, pixels(x)), weight, bias)
    track(bn, (mean, var), pixels(x))
    return y


def bn_relu_pool(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """The 2x2 max-pool of relu(bn(x))."""
    y, mean, var = ops.bn_relu_pool(x, norm_of(bn, pixels(x)))
    track(bn, (mean, var), pixels(x))
    return y


def stem(image: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Tensor:
    """The 2x2 max-pool of relu(bn(conv(image))), conv being 1x1."""
    y, mean, var = ops.stem(image, conv.weight.flatten(1), norm_of(bn, pixels(image)))
    track(bn, (mean, var), pixels(image))
    return y
