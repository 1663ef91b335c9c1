"""The relation of patchwise attention as the kernels see it, and what surrounds their launches.

Shapes: N images, R relation channels, G weight channels, K footprint side, H x W pixels; O = K * K + 1
offsets, of which the last is the query.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sancli.ops.norm import Affine
from sancli.ops.statistics import shown


@dataclass(frozen=True)
class Seen:
    """A map and the offsets that it is seen through: key with K * K, query with one of its own."""

    map: Tensor
    norm: Tensor
    """[., R, 2]: scale and shift."""
    weight: Tensor
    """[., R, G]"""
    kernel_size: int


@dataclass(frozen=True)
class Relation:
    """relu(scale * [query, footprint of key] + shift), never made, and the weight that multiplies it."""

    query: Tensor
    key: Tensor
    norm: Tensor
    """[O, R, 2]: scale and shift, of the type of sums."""
    weight: Tensor
    """[O, R, G], likewise."""
    kernel_size: int

    @classmethod
    def of(cls, query: Tensor, key: Tensor, affine: Affine, weight: Tensor, kernel_size: int) -> "Relation":
        """From norm1 and weight1 [G, R * (K * K + 1)] in the published order."""
        planes = query.shape[1]
        norm = by_offset(torch.stack(affine.fold(), 1), planes)
        return cls(query, key, norm, by_offset(weight.to(norm.dtype).T, planes), kernel_size)

    def parts(self) -> tuple[Seen, Seen]:
        """Key and query."""
        return (
            Seen(self.key, self.norm[:-1], self.weight[:-1], self.kernel_size),
            Seen(self.query, self.norm[-1:], self.weight[-1:], 1),
        )


def by_offset(x: Tensor, planes: int) -> Tensor:
    """[R * (K * K + 1), ...] in the published order, query first and offsets innermost, as [O, R, ...]."""
    query, key = x[:planes], x[planes:].unflatten(0, (planes, -1))
    return torch.cat([key.transpose(0, 1), query[None]])


def published(x: Tensor) -> Tensor:
    """The opposite."""
    return torch.cat([x[-1], x[:-1].transpose(0, 1).flatten(0, 1)])


def parameter_gradients(relation: Relation, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of scale and shift [R * (K * K + 1)], and weight [G, .], in the published order.

    Args:
        relation: As in the forward pass.
        sums: [2, O, G, R], as kernels/generate.cu describes them.
    """
    scale, shift = relation.norm[:, None].unbind(-1)  # [O, 1, R]
    passed, seen = sums
    weight = relation.weight.transpose(1, 2)
    return (
        published((weight * seen).sum(1)),
        published((weight * passed).sum(1)),
        published((scale * seen + shift * passed).transpose(1, 2)).T.contiguous(),
    )


def through_statistics(
    like: Tensor, mean: Tensor, grad_mean: Tensor, grad_var: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of a map through mean and variance of its shifted copies.

    Args:
        like: The map [N, R, H, W].
        mean: [R, K * K].
        grad_mean: Its gradient.
        grad_var: That of the variance.

    Returns:
        Two of [H, W, R]: constant + linear * map.
    """
    kernel_size = round(mean.shape[1] ** 0.5)
    rows, columns = (shown(size, kernel_size, mean).sum(1) for size in like.shape[2:])
    count = like.numel() // like.shape[1]

    def onto_pixels(grad: Tensor) -> Tensor:
        spread: Tensor = rows.T @ grad.unflatten(1, (kernel_size, kernel_size)) @ columns / count
        return spread.permute(1, 2, 0).contiguous()

    centre = mean[:, mean.shape[1] // 2]  # of the channel, where the statistics are those of the batch
    linear = 2 * onto_pixels(grad_var)
    constant = onto_pixels(grad_mean - 2 * grad_var * (mean - centre[:, None]))
    return constant.sub_(linear * centre), linear
