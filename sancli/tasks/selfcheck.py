"""One attention layer on this machine, against its definition in float64: what `san doctor` measures."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli.model.san import PatchwiseAttention

BEFORE_NORM = ("conv1.bias", "conv2.bias")  # a BatchNorm follows: their gradient is 0, but for rounding


def largest_difference(device: str) -> float:
    """Of the output and of all gradients, in fp32 on `device`, as a share of the largest value of each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, x = PatchwiseAttention(16, 4, 16, share_planes=8, kernel_size=3), torch.randn(2, 16, 9, 7)
    exact = copy.deepcopy(layer).double()
    wanted = _with_gradients(exact, x.double(), lambda x: definition(exact, x))
    layer = layer.to(device)
    found = _with_gradients(layer, x.to(device), layer)
    return max(
        float((one.cpu() - other).abs().max() / other.abs().max())
        for one, other in zip(found, wanted, strict=True)
    )


def definition(layer: PatchwiseAttention, x: Tensor) -> Tensor:
    """Patchwise attention of x [N, C, H, W], by torch's own unfold.

    Source: class SAM of the authors' model/san.py, with their operator tests' formula of the aggregation.
    """
    batch, _, height, width = x.shape
    offsets, pixels = layer.kernel_size**2, height * width

    def footprints(y: Tensor) -> Tensor:
        reach = layer.kernel_size // 2
        return F.unfold(F.pad(y, (reach,) * 4, mode="reflect"), layer.kernel_size)  # [N, C k^2, H W]

    query = layer.conv1(x).view(batch, -1, 1, pixels)
    key = footprints(layer.conv2(x)).view(batch, -1, 1, pixels)
    weight: Tensor = layer.conv_w(torch.cat([query, key], 1)).view(batch, 1, -1, offsets, pixels)
    value = footprints(layer.conv3(x)).view(batch, -1, weight.shape[2], offsets, pixels)
    return (weight * value).sum(3).reshape(batch, -1, height, width)


def _with_gradients(layer: nn.Module, x: Tensor, function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    out = function(x.requires_grad_())
    out.square().sum().backward()
    parameters = [value for name, value in layer.named_parameters() if name not in BEFORE_NORM]
    gradients = [value.grad for value in (x, *parameters) if value.grad is not None]
    assert len(gradients) == 1 + len(parameters)
    return [out.detach(), *gradients]
