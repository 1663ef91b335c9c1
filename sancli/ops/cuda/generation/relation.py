"""The relation of patchwise attention as the kernels see it.

Shapes: N images, R relation channels, G weight channels, K footprint side, H x W pixels; O = K * K + 1
offsets, of which the last is the query.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """A map and the offsets that it is seen through: key with K * K, query with one of its own."""

    map: Tensor
    is_query: bool
    norm: Tensor
    """[., R, 2]: scale and shift."""
    weight: Tensor
    """[G, R * O], all of it."""
    kernel_size: int
    """1 for query."""

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Offsets, R and G."""
        return len(self.norm), self.map.shape[1], len(self.weight)


@dataclass(frozen=True)
class Relation:
    """relu(scale * [query, footprint of key] + shift), never made, and the weight that multiplies it."""

    query: Tensor
    key: Tensor
    norm: Tensor
    """[O, R, 2]: scale and shift, of the type of sums."""
    weight: Tensor
    """[G, R * O] in the published order, likewise."""
    kernel_size: int

    def parts(self) -> tuple[Seen, Seen]:
        """Key and query."""
        return (
            Seen(self.key, False, self.norm[:-1], self.weight, self.kernel_size),
            Seen(self.query, True, self.norm[-1:], self.weight, 1),
        )


def by_offset(weight: Tensor, planes: int) -> Tensor:
    """[G, R * O] in the published order, query first and offsets innermost, as [O, R, G]."""
    query, key = weight.T[:planes], weight.T[planes:].unflatten(0, (planes, -1))
    return torch.cat([key.transpose(0, 1), query[None]])


def turned(weight: Tensor, planes: int, is_query: bool) -> Tensor:
    """Of key's offsets or query's, [., G, R]."""
    offsets = by_offset(weight, planes)
    return (offsets[-1:] if is_query else offsets[:-1]).transpose(1, 2)
