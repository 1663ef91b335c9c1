"""The weighted sum over a footprint, offset by offset.

Shapes: M value channels, G weights at each pixel and offset, S = M / G channels sharing one: channel s * G +
g takes weight g. T positions of a tile, K footprint side.
"""

import torch
from torch import Tensor

from sancli.ops.reference.windows import Windows


def aggregate(value: Tensor, weight: Tensor, layout: Windows, tile: slice) -> Tensor:
    """One tile [S, G, T] of the sum: `value` in padded rows [S, G, .], `weight` [G, K * K, T]."""
    out = torch.zeros_like(value[..., tile])
    for window, share in zip(layout.offsets(value, tile), weight.unbind(1), strict=True):
        out.addcmul_(window, share)
    return out


def aggregate_backward(
    grad: Tensor, value: Tensor, weight: Tensor, grad_value: Tensor, layout: Windows, tile: slice
) -> Tensor:
    """The gradient of a tile of weights [G, K * K, T]; adds that of `value` to `grad_value`, padded rows."""
    grad_weight, product = torch.empty_like(weight), torch.empty_like(grad)
    windows, into = layout.offsets(value, tile), layout.offsets(grad_value, tile)
    for o, (share, grad_share) in enumerate(zip(weight.unbind(1), grad_weight.unbind(1), strict=True)):
        torch.sum(torch.mul(grad, windows[o], out=product), 0, out=grad_share)
        into[o].addcmul_(grad, share)
    return grad_weight


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """san::aggregation."""
    layout = Windows.of(value, kernel_size)
    padded = layout.pad(value).unflatten(0, (-1, weight.shape[2]))
    out = torch.zeros_like(padded[..., layout.all])
    for window, share in zip(layout.offsets(padded, layout.all), weight.unbind(1), strict=True):
        out.addcmul_(window, layout.rows(share))
    return layout.maps(out.flatten(0, 1), value.dtype)


def aggregation_backward(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """san::aggregation_backward."""
    layout, groups = Windows.of(value, kernel_size), weight.shape[2]
    padded, grad = (rows.unflatten(0, (-1, groups)) for rows in (layout.pad(value), layout.rows(grad)))
    grad_padded, grad_weight = torch.zeros_like(padded), torch.empty_like(weight)
    windows, into = layout.offsets(padded, layout.all), layout.offsets(grad_padded, layout.all)
    for o, share in enumerate(weight.unbind(1)):
        grad_weight[:, o] = layout.maps((grad * windows[o]).sum(0), weight.dtype)
        into[o].addcmul_(grad, layout.rows(share))
    return layout.fold(grad_padded.flatten(0, 1), value.dtype), grad_weight
