"""What concerns the relation alone, channel by channel, by kernels/pairwise_relation.cu.

Shapes: P = N * H * W pixels, D channels of the relation, the last two of them the place's.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.cuda.pairs.given import BLOCKS, Pairs, is_aligned
from sancli.ops.trunk import maps

SOURCE = "pairwise_relation.cu"
THREADS = 256


def statistics(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the relation, [D]."""
    centre_a, centre_b = _centre(pairs.query, pairs.real), pairs.sign * _centre(pairs.key, pairs.real)
    mean, square = _by_channel("pair_relation_statistics", pairs, centre_a, centre_b) / pairs.count
    var = (square - mean * mean).clamp_min_(0)
    return (mean + centre_a + centre_b).to(pairs.real), var.to(pairs.real)


def _centre(x: Tensor, real: torch.dtype) -> Tensor:
    """The mean of query or key, and 0 for the place."""
    return F.pad(x.mean((0, 2, 3), dtype=real), (0, 2))


def centres(pairs: Pairs, mean: Tensor) -> tuple[Tensor, Tensor]:
    """What to take off a and b, whose sum has this mean, so that little is left of either."""
    centre = _centre(pairs.query, pairs.real)
    return centre, mean - centre


def products(pairs: Pairs, *given: Tensor) -> Tensor:
    """Sums over all pairs of their gradient, and of that times the relation, centred: [2, D].

    Args:
        pairs: The maps.
        given: The centres; and gradients, normalised, summed over the pairs of i and over those of j, [P, D].
    """
    return _by_channel("pair_relation_products", pairs, *given)


def _by_channel(kernel: str, pairs: Pairs, *given: Tensor) -> Tensor:
    vector = _vector(pairs)
    slots = max(1, THREADS // (pairs.related // vector))
    blocks = min(BLOCKS, -(-pairs.pixels // slots))
    partial = given[0].new_empty(blocks * slots, 2, pairs.related)
    known: tuple[Tensor | np.generic, ...] = np.int32(pairs.planes), *given, np.int32(slots), partial
    pairs.launch(SOURCE, f"{kernel}<{{}}, {vector}>", blocks, THREADS, *known)
    return partial.sum(0, dtype=torch.float64)


def _vector(pairs: Pairs) -> int:
    """Channels that a thread has."""
    aligned = all(is_aligned(x, 2 * x.element_size()) for x in (pairs.query, pairs.key))
    return 2 if pairs.planes % 2 == 0 and aligned else 1


def backward(pairs: Pairs, *given: Tensor, batch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and place.

    Args:
        pairs: The maps.
        given: The centres; scale, linear and square (pairwise_relation.cu); and gradients, normalised, summed
            over the pairs of i and over those of j, [P, D].
        batch: Whether the statistics are the batch's.
    """
    grad_query, grad_key = (maps(x, *x.shape[1:]) for x in (pairs.query, pairs.key))
    images, _, height, width = pairs.query.shape
    grad_place = given[-1].new_empty(images, height, width, 2)
    vector = _vector(pairs)
    blocks = -(-pairs.pixels * (pairs.related // vector) // THREADS)
    grads = grad_query, grad_key, grad_place
    known: tuple[Tensor | np.generic, ...] = np.int32(pairs.planes), *given, *grads, np.int32(batch)
    pairs.launch(SOURCE, f"pair_relation_backward<{{}}, {vector}>", blocks, THREADS, *known)
    return grad_query, grad_key, grad_place.sum(0).permute(2, 0, 1)[None]
