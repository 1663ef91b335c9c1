"""The passes by kernels/pairwise_naive.cu: any sizes and every type, one block a pixel."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sancli.ops.cuda.pairs.given import BLOCKS, Correction, Folded, Pairs, Sums, Weights, moments_of, sums_of

SOURCE = "pairwise_naive.cu"
THREADS = 64


@dataclass(frozen=True)
class Naive:
    """A `Way`."""

    pairs: Pairs

    def weights(self, norm1: Folded, weight1: Tensor, norm2: Folded, weight2: Tensor) -> Weights:
        """As they are."""
        scale2, shift2 = norm2
        return Weights(*norm1, scale2[:, None] * weight1, shift2, weight2)

    def matrix(self, x: Tensor) -> Tensor:
        """As it is."""
        return x

    def moments(
        self, norm1: Folded, correction: Correction | None, grad_a: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of `Way`."""
        side = self.pairs.related + 1
        partial = norm1[0].new_empty(self._blocks, side, side)
        given = *norm1, *(correction or (None, None)), grad_a, partial
        self._launch("pair_moments_naive<{}>", self._blocks, side, np.int32(self.pairs.planes), *given)
        return moments_of(partial, self.pairs.related)

    def attend(
        self, weights: Weights, out: Tensor | None, logsumexp: Tensor | None, delta: Tensor | None
    ) -> None:
        """Of `Way`."""
        room = self.pairs.related + 1 + self.pairs.planes + 4 * self.pairs.groups + self.pairs.value.shape[1]
        given = out, logsumexp, delta
        self._launch("pair_attend_naive<{}>", self.pairs.pixels, room, *self._layers(weights), *given)

    def query_backward(self, weights: Weights, logsumexp: Tensor, delta: Tensor, grad_a: Tensor) -> Sums:
        """Of `Way`."""
        pairs, wide = self.pairs, self.pairs.related + 1
        partial = grad_a.new_empty(self._blocks, pairs.planes * (wide + pairs.groups))
        given = *self._layers(weights), logsumexp, delta, grad_a, partial
        self._launch("pair_query_backward_naive<{}>", self._blocks, self._room, *given)
        return sums_of(partial, pairs, pairs.planes, wide, pairs.groups)

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
        room = self._room + self.pairs.related + self.pairs.value.shape[1]
        given = logsumexp, delta, *(correction or (None, None)), grad_b, grad_value
        self._launch("pair_key_backward_naive<{}>", self.pairs.pixels, room, *self._layers(weights), *given)

    @property
    def _blocks(self) -> int:
        return min(BLOCKS, self.pairs.pixels)

    @property
    def _room(self) -> int:
        """Numbers in shared memory, of one pair in the backward pass."""
        return self.pairs.related + 1 + 2 * self.pairs.planes + 2 * self.pairs.groups

    def _layers(self, weights: Weights) -> tuple[Tensor | np.generic, ...]:
        sizes = np.array([self.pairs.planes, self.pairs.groups, self.pairs.value.shape[1]], np.int32)
        return *sizes, *weights[:5], *self.pairs.weighed

    def _launch(self, kernel: str, blocks: int, room: int, *given: Tensor | np.generic | None) -> None:
        self.pairs.launch(SOURCE, kernel, blocks, THREADS, *given, shared=room * self.pairs.real.itemsize)
