"""The passes by kernels/pairwise_forward.cu and pairwise_backward.cu: layers of the published networks."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.pairs.given import BLOCKS, Correction, Folded, Pairs, Sums, Weights, moments_of, sums_of
from sancli.ops.cuda.pairs.sizes import Tiles

FORWARD, BACKWARD, RELATION = "pairwise_forward.cu", "pairwise_backward.cu", "pairwise_relation.cu"
PACKERS = 256


@dataclass(frozen=True)
class Tiled:
    """A `Way`."""

    pairs: Pairs
    tiles: Tiles

    def weights(self, norm1: Folded, weight1: Tensor, norm2: Folded, weight2: Tensor) -> Weights:
        """Packed; both ways where there is a backward pass."""
        (scale2, shift2), tiles = norm2, self.tiles
        bias = F.pad(shift2, (0, tiles.hidden - tiles.planes))
        packed1 = self.pack(weight1, tiles.hidden, tiles.wide, row_scale=scale2)
        weights = Weights(*norm1, packed1, bias, self.pack(weight2, tiles.logits, tiles.hidden))
        if self.pairs.grad is self.pairs.value:
            return weights
        back2 = self.pack(weight2.T, tiles.hidden, tiles.weights)
        return weights._replace(
            back=(back2, self.pack(weight1.T, tiles.wide, tiles.hidden, column_scale=scale2))
        )

    def matrix(self, x: Tensor) -> Tensor:
        """Packed."""
        return self.pack(x, self.tiles.wide, self.tiles.wide)

    def pack(
        self,
        x: Tensor,
        columns: int,
        inner: int,
        *,
        row_scale: Tensor | None = None,
        column_scale: Tensor | None = None,
    ) -> Tensor:
        """`x` [n, k], for a product that makes n of `columns` channels out of k of `inner`."""
        packed = x.new_empty(columns, inner, dtype=self.pairs.dtype)
        kernel, blocks = f"pair_pack<{loader.ctype(self.pairs.dtype)}>", -(-packed.numel() // PACKERS)
        loader.launch(
            RELATION, kernel, (blocks,), (PACKERS,),
            x, *np.array([*x.stride(), *x.shape], np.int32), row_scale, column_scale,
            packed, *np.array([columns, inner], np.int32),
        )  # fmt: skip
        return packed

    def moments(
        self, norm1: Folded, correction: Correction | None, grad_a: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of `Way`."""
        blocks = min(BLOCKS, self._blocks)
        partial = norm1[0].new_empty(blocks, self.tiles.wide, self.tiles.wide)
        given = *norm1, *(correction or (None, None)), grad_a, partial
        self._launch(FORWARD, "pair_moments", blocks, *given, more=", true" if correction else ", false")
        return moments_of(partial, self.pairs.related)

    def attend(
        self, weights: Weights, out: Tensor | None, logsumexp: Tensor | None, delta: Tensor | None
    ) -> None:
        """Of `Way`."""
        given = *weights[:5], *self.pairs.weighed, out, logsumexp, delta
        self._launch(FORWARD, "pair_attend", self._blocks, *given)

    def query_backward(self, weights: Weights, logsumexp: Tensor, delta: Tensor, grad_a: Tensor) -> Sums:
        """Of `Way`."""
        tiles, blocks = self.tiles, min(BLOCKS, self._blocks)
        partial = grad_a.new_empty(blocks, tiles.hidden * (tiles.wide + tiles.weights))
        given = *weights[:5], *weights.back, *self.pairs.weighed, logsumexp, delta, grad_a, partial
        for parts in tiles.query_parts:
            self._launch(BACKWARD, "pair_query_backward", blocks, *given, more=f", {parts}")
        return sums_of(partial, self.pairs, tiles.hidden, tiles.wide, tiles.weights)

    def key_backward(
        self,
        weights: Weights,
        logsumexp: Tensor,
        delta: Tensor,
        correction: Correction | None,
        grad_b: Tensor,
        grad_value: Tensor,
    ) -> None:
        """Of `Way`."""
        known = *weights[:5], *weights.back, *self.pairs.weighed, logsumexp, delta
        given = *known, *(correction or (None, None)), grad_b, grad_value
        self._launch(BACKWARD, "pair_key_backward", self._blocks, *given)

    @property
    def _blocks(self) -> int:
        return -(-self.pairs.pixels // self.tiles.owners)

    def _launch(
        self, source: str, kernel: str, blocks: int, *given: Tensor | np.generic | None, more: str = ""
    ) -> None:
        tiles = self.tiles
        name = f"{kernel}<{{}}, {tiles.planes}, {tiles.groups}, {tiles.rows}{more}>"
        self.pairs.launch(source, name, blocks, tiles.threads, *given, shared=tiles.shared(kernel))
