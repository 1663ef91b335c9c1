"""What every pass of pairwise attention is told, and the shapes that they hand each other.

Shapes: P = N * H * W pixels, R relation channels and D = R + 2 with the place, G weights.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.layout import laid_out, parameter, real_type

BLOCKS = 1024
"""At most, where each block leaves partial sums: more than a card runs at once, and few enough to add up."""


class Pairs:
    """The maps, in the forward pass or, with the gradient of the output, in the backward pass."""

    def __init__(
        self,
        maps: tuple[Tensor, Tensor, Tensor],
        place: Tensor,
        sign: int,
        groups: int,
        kernel_size: int,
        grad: Tensor | None = None,
    ) -> None:
        self.query, self.key, self.value = (laid_out(x)[0] for x in maps)  # not once more in each launch
        self.sign, self.groups = sign, groups
        self.grad = self.value if grad is None else laid_out(grad)[0]
        self.dtype, self.real = self.query.dtype, real_type(self.query)
        images, self.planes, height, width = self.query.shape
        self.related = self.planes + 2
        self.pixels = images * height * width
        self.count = self.pixels * kernel_size**2
        self._sizes = np.array([sign, height, width, kernel_size, self.pixels], np.int32)
        self._place = parameter(place[0].permute(1, 2, 0), self.real)

    @property
    def weighed(self) -> tuple[Tensor | np.generic, ...]:
        """The maps of M channels as kernels take them."""
        return *pointer(self.value), *pointer(self.grad)

    def launch(
        self,
        source: str,
        kernel: str,
        blocks: int,
        threads: int,
        *given: Tensor | np.generic | None,
        shared: int = 0,
    ) -> None:
        """Runs a kernel that is told PAIRS (pairwise.cuh) first; `{}` in its name is the type of the maps."""
        name = kernel.format(loader.ctype(self.dtype))
        pairs = *pointer(self.query), *pointer(self.key), self._place, *self._sizes
        loader.launch(source, name, (blocks,), (threads,), *pairs, *given, shared=shared)


def pointer(x: Tensor) -> tuple[Tensor, np.int32]:
    """A map and its stride from pixel to pixel."""
    x, stride = laid_out(x)
    return x, np.int32(stride)


def is_aligned(x: Tensor, size: int) -> bool:
    """Whether all pixels begin at multiples of `size` bytes."""
    x, stride = laid_out(x)
    return x.data_ptr() % size == 0 and stride * x.element_size() % size == 0


Folded = tuple[Tensor, Tensor]
"""A norm as a scale and a shift."""


class Weights(NamedTuple):
    """Both layers with their norms folded in, as the kernels of one way read them."""

    scale1: Tensor
    shift1: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    back: tuple[Tensor, ...] = ()
    """Transposed ones for the backward pass, where the way needs them."""


class Correction(NamedTuple):
    """What the statistics of norm2 add to the gradient of u: matrix u + vector."""

    matrix: Tensor
    vector: Tensor


class Sums(NamedTuple):
    """Over all pairs, in double precision, of the gradient of the hidden layer before its ReLU."""

    products: Tensor
    """Times u, [R, D]."""
    hidden: Tensor
    """Alone, [R]."""
    weight2: Tensor
    """And of the gradient of the logits times the hidden layer, [G, R]."""


class Way(Protocol):
    """The naive kernels, or the tiles: twins."""

    def weights(self, norm1: Folded, weight1: Tensor, norm2: Folded, weight2: Tensor) -> Weights:
        """Folds the norms in."""

    def matrix(self, x: Tensor) -> Tensor:
        """A matrix [D, D] for u, as the kernels read it."""

    def moments(
        self, norm1: Folded, correction: Correction | None, grad_a: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sums over the pairs of u, [D], and of its products, [D, D]; adds what is corrected to `grad_a`."""

    def attend(
        self, weights: Weights, out: Tensor | None, logsumexp: Tensor | None, delta: Tensor | None
    ) -> None:
        """Writes the output and the log-sum-exp without bias2; or delta, the sum of w * its gradient."""

    def query_backward(self, weights: Weights, logsumexp: Tensor, delta: Tensor, grad_a: Tensor) -> Sums:
        """The pass owned by i: writes the gradient of u, summed over the pairs of i, [P, D]."""

    def key_backward(
        self,
        weights: Weights,
        logsumexp: Tensor,
        delta: Tensor,
        correction: Correction | None,
        grad_b: Tensor,
        grad_value: Tensor,
    ) -> None:
        """The pass owned by j: writes the gradient of u, summed over the pairs of j, [P, D], and of value."""


def moments_of(partial: Tensor, related: int) -> tuple[Tensor, Tensor]:
    """From sums of products of u and, behind it, 1, by blocks."""
    sums = partial.sum(0, dtype=torch.float64)
    return sums[:related, related], sums[:related, :related]


def sums_of(partial: Tensor, pairs: Pairs, hidden: int, wide: int, weights: int) -> Sums:
    """From those by blocks, of as many channels as the kernels have them."""
    products, outer = partial.sum(0, dtype=torch.float64).split([hidden * wide, hidden * weights])
    products = products.view(hidden, wide)[: pairs.planes]
    outer = outer.view(hidden, weights)[: pairs.planes, : pairs.groups]
    return Sums(products[:, : pairs.related], products[:, pairs.related], outer.T)
