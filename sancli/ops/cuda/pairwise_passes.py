"""The passes of pairwise attention as launches: which kernel, how large, what it reads and writes.

Shapes: as in sancli/ops/cuda/pairwise.py; P = N * H * W pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cpu.maps import laid_out, parameter, real_type
from sancli.ops.cuda import loader
from sancli.ops.cuda.pairwise_sizes import choose
from sancli.ops.norm import Affine
from sancli.ops.trunk import maps

THREADS = 256
NAIVE_THREADS = 64
BLOCKS = 1024
"""At most, where each block leaves partial sums: more than a card runs at once, and few enough to add up."""


class Weights(NamedTuple):
    """Both layers with their norms folded in, as the kernels read them."""

    scale1: Tensor
    shift1: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor


class Sums(NamedTuple):
    """Sums over all pairs, in double precision, of the gradient of the hidden layer, before its norm's ReLU."""

    products: Tensor
    """Times u, [R, D]."""
    hidden: Tensor
    """Alone, [R]."""
    weight2: Tensor
    """And of the gradient of the logits times the hidden layer, [G, R]."""


class Passes:
    """What the passes over one attention's maps have in common."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        place: Tensor,
        sign: int,
        kernel_size: int,
        groups: int,
        grad: Tensor | None = None,
    ) -> None:
        self.query, self.key, self.value, self.sign = query, key, value, sign
        self.real, self.groups, self.planes = real_type(query), groups, query.shape[1]
        self.related = self.planes + 2
        self.tiles, self.reason = choose((query, key, value, *([] if grad is None else [grad])), groups)
        images, _, height, width = query.shape
        self.pixels = images * height * width
        self.pairs = self.pixels * kernel_size**2
        self.maps = *_pointer(value), *_pointer(value if grad is None else grad)
        self.compared = (
            *_pointer(query),
            *_pointer(key),
            parameter(place[0].permute(1, 2, 0), self.real),
            *np.array([sign, height, width, kernel_size, self.pixels], np.int32),
        )

    def relation_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the relation, [D]."""
        centre = self.centre(self.query) + self.sign * self.centre(self.key)
        sums = self._by_channel("pair_relation_statistics", centre)
        mean, square = sums.double() / self.pairs
        var = (square - mean * mean).clamp_min_(0)
        return (mean + centre).to(self.real), var.to(self.real)

    def centre(self, x: Tensor) -> Tensor:
        """The mean of query or key, and 0 for the place: sums are taken around it, for precision."""
        return F.pad(x.mean((0, 2, 3), dtype=self.real), (0, 2))

    def relation_products(self, centre_a: Tensor, centre_b: Tensor, grad_a: Tensor, grad_b: Tensor) -> Tensor:
        """Sums over all pairs of their gradient, and of that times the relation less its mean, [2, D]."""
        return self._by_channel("pair_relation_products", centre_a, centre_b, grad_a, grad_b)

    def _by_channel(self, kernel: str, *given: Tensor) -> Tensor:
        slots = max(1, THREADS // self.related)
        blocks = min(BLOCKS, -(-self.pixels // slots))
        partial = given[0].new_empty(blocks * slots, 2, self.related)
        self._launch_relation(kernel, blocks, *given, np.int32(slots), partial)
        return partial.sum(0, dtype=torch.float64)

    def relation_backward(
        self, norm: tuple[Tensor, ...], grad_a: Tensor, grad_b: Tensor, *, batch: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and place; `norm` is mean, scale, and what goes through the statistics."""
        grad_query, grad_key = (maps(x, *x.shape[1:]) for x in (self.query, self.key))
        grad_place = grad_a.new_empty(self.query.shape[0], *self.query.shape[2:], 2)
        blocks = -(-self.pixels * self.related // THREADS)
        grads = grad_query, grad_key, grad_place
        self._launch_relation(
            "pair_relation_backward", blocks, *norm, grad_a, grad_b, *grads, np.int32(batch)
        )
        return grad_query, grad_key, grad_place.sum(0).permute(2, 0, 1)[None]

    def _launch_relation(self, kernel: str, blocks: int, *given: Tensor | np.generic) -> None:
        loader.launch(
            "pairwise_relation.cu", f"{kernel}<{self.ctype}>", (blocks,), (THREADS,),
            *self.compared, np.int32(self.planes), *given,
        )  # fmt: skip

    @property
    def ctype(self) -> str:
        """Of the maps."""
        return loader.ctype(self.query.dtype)

    def weights(self, norm1: Affine, weight1: Tensor, norm2: Affine, weight2: Tensor) -> Weights:
        """Folds the norms in, and packs."""
        scale2, shift2 = norm2.fold()
        tiles = self.tiles
        if tiles is None:
            return Weights(*norm1.fold(), scale2[:, None] * weight1, shift2, weight2)
        bias = F.pad(shift2, (0, tiles.hidden - self.planes))
        packed1 = self.pack(weight1, tiles.hidden, tiles.wide, row_scale=scale2)
        return Weights(*norm1.fold(), packed1, bias, self.pack(weight2, tiles.logits, tiles.hidden))

    def weights_back(self, norm2: Affine, weight1: Tensor, weight2: Tensor) -> tuple[Tensor, ...]:
        """The transposed ones for the fast kernels; the naive ones read both ways."""
        tiles = self.tiles
        if tiles is None:
            return ()
        scale2, _ = norm2.fold()
        return (
            self.pack(weight2.T, tiles.hidden, tiles.weights),
            self.pack(weight1.T, tiles.wide, tiles.hidden, column_scale=scale2),
        )

    def matrix(self, x: Tensor) -> Tensor:
        """A matrix [D, D] for u as the kernels read it."""
        return x if self.tiles is None else self.pack(x, self.tiles.wide, self.tiles.wide)

    def pack(
        self,
        x: Tensor,
        columns: int,
        inner: int,
        row_scale: Tensor | None = None,
        column_scale: Tensor | None = None,
    ) -> Tensor:
        """`x` [N, K], for products that make N channels out of K."""
        packed = x.new_empty(columns, inner, dtype=self.query.dtype)
        loader.launch(
            "pairwise_relation.cu", f"pair_pack<{self.ctype}>", (-(-packed.numel() // THREADS),), (THREADS,),
            x, *np.array([*x.stride(), *x.shape], np.int32), row_scale, column_scale,
            packed, *np.array([columns, inner], np.int32),
        )  # fmt: skip
        return packed

    def moments(
        self,
        scale1: Tensor,
        shift1: Tensor,
        matrix: Tensor | None = None,
        vector: Tensor | None = None,
        grad_a: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Sums over the pairs of u, [D], and of its products, [D, D].

        With a matrix, u's gradient matrix u + vector is added to `grad_a` [P, D].
        """
        size, blocks = self.related + 1, min(BLOCKS, self.pixels)
        if self.tiles is not None:
            size, blocks = self.tiles.wide, min(BLOCKS, -(-self.pixels // self.tiles.owners))
        partial = scale1.new_empty(blocks, size, size)
        given = scale1, shift1, matrix, vector, grad_a, partial
        if self.tiles is None:
            self._launch_naive("pair_moments_naive", blocks, self.related + 1, np.int32(self.planes), *given)
        else:
            self._launch_tiles(
                "pairwise_forward.cu", "pair_moments", blocks, *given, more=(matrix is not None,)
            )
        sums = partial.sum(0, dtype=torch.float64)
        return sums[: self.related, self.related], sums[: self.related, : self.related]

    def attend(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """The output, and the log-sum-exp without bias2."""
        out = maps(self.value, *self.value.shape[1:])
        logsumexp = maps(self.value, self.groups, *self.value.shape[2:]).to(self.real)
        self._attend(weights, out, logsumexp, None)
        return out, logsumexp

    def delta(self, weights: Weights) -> Tensor:
        """The sum over the offsets of weight * its gradient, [N, G, H, W]."""
        delta = maps(self.value, self.groups, *self.value.shape[2:]).to(self.real)
        self._attend(weights, None, None, delta)
        return delta

    def _attend(self, weights: Weights, *results: Tensor | None) -> None:
        if self.tiles is None:
            room = self.related + 1 + self.planes + 4 * self.groups + self.value.shape[1]
            self._launch_layers("pair_attend_naive", self.pixels, room, weights, *results)
        else:
            given = *weights, *self.maps, *results
            self._launch_tiles("pairwise_forward.cu", "pair_attend", self._blocks, *given)

    @property
    def _blocks(self) -> int:
        assert self.tiles is not None
        return -(-self.pixels // self.tiles.owners)

    def query_backward(
        self, weights: Weights, back: tuple[Tensor, ...], logsumexp: Tensor, delta: Tensor
    ) -> tuple[Tensor, Sums]:
        """The pass owned by i: the gradient of u's first half, summed over the pairs of i, [P, D]; all sums."""
        grad_a = delta.new_empty(self.pixels, self.related)
        tiles, given = self.tiles, (logsumexp, delta, grad_a)
        hidden, wide, weighs, blocks = self.planes, self.related + 1, self.groups, min(BLOCKS, self.pixels)
        if tiles is not None:
            hidden, wide, weighs, blocks = tiles.hidden, tiles.wide, tiles.weights, min(BLOCKS, self._blocks)
        partial = delta.new_empty(blocks, hidden * (wide + weighs))
        if tiles is None:
            room = self.related + 1 + 2 * self.planes + 2 * self.groups
            self._launch_layers("pair_query_backward_naive", blocks, room, weights, *given, partial)
        else:
            given = *weights, *back, *self.maps, *given, partial
            self._launch_tiles("pairwise_backward.cu", "pair_query_backward", blocks, *given)
        products, outer = partial.sum(0, dtype=torch.float64).split([hidden * wide, hidden * weighs])
        products, outer = products.view(hidden, wide), outer.view(hidden, weighs)
        products, outer = products[: self.planes], outer[: self.planes, : self.groups]
        return grad_a, Sums(products[:, : self.related], products[:, self.related], outer.T)

    def key_backward(
        self,
        weights: Weights,
        back: tuple[Tensor, ...],
        logsumexp: Tensor,
        delta: Tensor,
        matrix: Tensor | None,
        vector: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The pass owned by j: gradients of the relation, summed over the pairs of j, [P, D], and of value."""
        grad_b, grad_value = (
            delta.new_empty(self.pixels, self.related),
            maps(self.value, *self.value.shape[1:]),
        )
        given = logsumexp, delta, matrix, vector, grad_b, grad_value
        if self.tiles is None:
            room = 2 * self.related + 1 + 2 * self.planes + 2 * self.groups + self.value.shape[1]
            self._launch_layers("pair_key_backward_naive", self.pixels, room, weights, *given)
        else:
            given = *weights, *back, *self.maps, *given
            self._launch_tiles("pairwise_backward.cu", "pair_key_backward", self._blocks, *given)
        return grad_b, grad_value

    def _launch_layers(
        self, kernel: str, blocks: int, room: int, weights: Weights, *given: Tensor | None
    ) -> None:
        sizes = np.array([self.planes, self.groups, self.value.shape[1]], np.int32)
        self._launch_naive(kernel, blocks, room, *sizes, *weights, *self.maps, *given)

    def _launch_naive(self, kernel: str, blocks: int, room: int, *given: Tensor | np.generic | None) -> None:
        loader.launch(
            "pairwise_naive.cu", f"{kernel}<{self.ctype}>", (blocks,), (NAIVE_THREADS,),
            *self.compared, *given, shared=room * self.real.itemsize,
        )  # fmt: skip

    def _launch_tiles(
        self,
        source: str,
        kernel: str,
        blocks: int,
        *given: Tensor | np.generic | None,
        more: tuple[bool, ...] = (),
    ) -> None:
        assert self.tiles is not None
        types = [self.ctype, self.planes, self.groups, self.tiles.rows, *(str(x).lower() for x in more)]
        loader.launch(
            source, f"{kernel}<{', '.join(map(str, types))}>", (blocks,), (THREADS,),
            *self.compared, *given, shared=self.tiles.shared(kernel),
        )  # fmt: skip


def _pointer(x: Tensor) -> tuple[Tensor, np.int32]:
    x, stride = laid_out(x)
    return x, np.int32(stride)
