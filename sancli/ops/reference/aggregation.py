"""The weighted sum over a footprint, offset by offset.

Shapes: M value channels, G weights a pixel and offset; channel c = s * G + g takes weight g. T positions of a tile.
"""

import torch
from torch import Tensor

from sancli.ops.reference.windows import Windows, accumulation_type


def aggregate(value: Tensor, weight: Tensor, layout: Windows, tile: slice) -> Tensor:
    """One tile [M, T] of the sum: `value` in padded rows [M, .], `weight` [G, K * K, T]."""
    groups = len(weight)
    out = torch.zeros_like(value[:, tile]).unflatten(0, (-1, groups))
    for k, shift in enumerate(layout.offsets):
        window = value[:, tile.start + shift : tile.stop + shift]
        out.addcmul_(window.unflatten(0, (-1, groups)), weight[:, k])
    return out.flatten(0, 1)


def aggregate_backward(
    grad: Tensor, value: Tensor, weight: Tensor, grad_value: Tensor, layout: Windows, tile: slice
) -> Tensor:
    """The gradient of one tile of weights [G, K * K, T]; adds that of `value` to `grad_value`, in padded rows."""
    groups = len(weight)
    grad, grad_weight = grad.unflatten(0, (-1, groups)), torch.empty_like(weight)
    product = torch.empty_like(grad)
    for k, shift in enumerate(layout.offsets):
        window = slice(tile.start + shift, tile.stop + shift)
        torch.mul(grad, value[:, window].unflatten(0, (-1, groups)), out=product)
        torch.sum(product, 0, out=grad_weight[:, k])
        grad_value[:, window].unflatten(0, (-1, groups)).addcmul_(grad, weight[:, k])
    return grad_weight


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    layout = Windows.of(value, kernel_size)
    padded = layout.pad(value).unflatten(0, (-1, weight.shape[2]))
    out = torch.zeros_like(padded[..., : layout.positions])
    for k, shift in enumerate(layout.offsets):
        out.addcmul_(padded[..., shift : shift + layout.positions], layout.rows(weight[:, k]))
    return layout.maps(out.flatten(0, 1), value.dtype)


def aggregation_backward(
    grad: Tensor, value: Tensor, weight: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    layout = Windows.of(value, kernel_size)
    padded, grad = (
        rows.unflatten(0, (-1, weight.shape[2])) for rows in (layout.pad(value), layout.rows(grad))
    )
    grad_padded, grad_weight = torch.zeros_like(padded), torch.empty_like(weight)
    for k, shift in enumerate(layout.offsets):
        window = (..., slice(shift, shift + layout.positions))
        grad_weight[:, k] = layout.maps((grad * padded[window]).sum(0), weight.dtype)
        grad_padded[window].addcmul_(grad, layout.rows(weight[:, k]))
    return layout.fold(grad_padded.flatten(0, 1), value.dtype), grad_weight
