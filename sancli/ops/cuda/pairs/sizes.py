"""Which kernels take a pairwise attention, and the sizes of the fast ones (Layer in pairwise_tiles.cuh)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.pairs.given import is_aligned

GROUPS = {4: 2, 16: 8, 32: 16, 64: 32, 128: 64}
"""G by R, of the published networks' layers: what the fast kernels are made for. They share a weight by 8."""
SHARE = 8
WARP = 32


@dataclass(frozen=True)
class Tiles:
    """The fast kernels for one layer and type."""

    planes: int
    groups: int
    itemsize: int
    rows: int
    """Pairs of pixels that a block has in shared memory at a time."""

    def padded(self, size: int) -> int:
        """What a product asks of an inner dimension."""
        step = 16 if self.itemsize == 2 else 8
        return -(-size // step) * step

    @property
    def wide(self) -> int:
        """Channels of u: the relation's, the place's two, a 1, and zeros."""
        return self.padded(self.planes + 3)

    @property
    def hidden(self) -> int:
        """Channels of the hidden layer."""
        return self.padded(self.planes)

    @property
    def weights(self) -> int:
        """Channels of the logits' gradients."""
        return self.padded(self.groups)

    @property
    def logits(self) -> int:
        """Channels of the logits."""
        return -(-self.groups // 8) * 8

    @property
    def threads(self) -> int:
        """Of a block."""
        return 512 if self.planes == 64 and self.itemsize == 2 else 256

    @property
    def query_parts(self) -> tuple[int, ...]:
        """PARTS of pair_query_backward, a launch each: two where one would not fit into registers."""
        return (1, 2) if self.planes == 128 else (3,)

    @property
    def owners(self) -> int:
        """Pixels of a block."""
        return min(self.rows, 1024 // self.groups)

    def shared(self, kernel: str) -> int:
        """Bytes of shared memory that a block of this kernel takes."""
        pad = 16 // self.itemsize if self.itemsize == 2 else 4
        rows = {
            "u": self.rows * (self.wide + pad) * self.itemsize,
            "hidden": self.rows * (self.hidden + pad) * self.itemsize,
            "grad_logits": self.rows * (self.weights + pad) * self.itemsize,
            "weight": self.rows * self.groups * 4,
            "carry": self.owners * self.groups * 4,
        }
        taken = {
            "pair_moments": ("u",),
            "pair_attend": ("u", "hidden", "weight", "carry"),
            "pair_query_backward": ("u", "hidden", "grad_logits", "weight"),
            "pair_key_backward": ("u", "hidden", "grad_logits", "weight"),
        }[kernel]
        pairs = 3 if kernel == "pair_attend" else 2
        pixels, norm1 = -(-self.owners * 12 // 16) * 16, 2 * self.wide * 4
        return sum(rows[name] for name in taken) + pairs * self.rows * 4 + pixels + norm1

    @property
    def most_shared(self) -> int:
        """Of all kernels."""
        return max(self.shared(name) for name in ("pair_attend", "pair_query_backward"))


def choose(maps: tuple[Tensor, ...], groups: int) -> tuple[Tiles | None, str]:
    """The fast kernels for query, key, value and perhaps others; or None, the naive ones; and why.

    The result depends on the card by its generation and shared memory alone, so that cards of a kind agree in
    every bit.
    """
    query, _, value, *_ = maps
    planes, channels = query.shape[1], value.shape[1]
    if query.dtype == torch.float64:
        return None, "float64 has no fast kernels"
    if GROUPS.get(planes) != groups or channels != SHARE * groups:
        return None, f"R = {planes}, G = {groups}, M = {channels} is no layer of a published network"
    whole = min(16, planes * query.element_size())
    if not all(is_aligned(x, whole if x.shape[1] == planes else 16) for x in maps):
        return None, "pixels do not begin at multiples of 16 bytes"
    if query.dtype == torch.bfloat16 and loader.capability(query.device) < (8, 0):
        return None, "this card multiplies no bfloat16"
    for rows in (64, 32) if planes < 128 else (32,):  # of the largest layer, 64 do not fit into registers
        tiles = Tiles(planes, groups, query.element_size(), rows)
        if tiles.most_shared <= loader.shared_limit(query.device):
            return tiles, f"{rows} pairs of pixels in shared memory"
    return None, "too little shared memory"
