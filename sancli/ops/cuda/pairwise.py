"""san::pairwise_attention in CUDA: the passes over all pairs (pairs/), and the small algebra between them.

Shapes: R relation channels and D = R + 2 with the place; G weights; P pixels of the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

import sancli.ops.pairwise  # noqa: F401 -- the schemas
from sancli.ops.attention import Given, GivenBack
from sancli.ops.cuda import loader
from sancli.ops.cuda.pairs import relation
from sancli.ops.cuda.pairs.given import Correction, Pairs, Sums, Way, Weights
from sancli.ops.cuda.pairs.naive import Naive
from sancli.ops.cuda.pairs.sizes import choose
from sancli.ops.cuda.pairs.tiled import Tiled
from sancli.ops.layout import of_one_type, parameter, used
from sancli.ops.norm import Affine
from sancli.ops.reference import pairwise as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps

MOST_PIXELS = 2**30
"""Of a batch: the kernels number them by 32 bits."""


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::pairwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    if not _usable(query, key, value, place, rest):
        return plain.pairwise_attention(query, key, value, place, sign, *given)
    pairs = Pairs((query, key, value), place, sign, len(given.weight2), given.kernel_size)
    way, real = choose_way(pairs), pairs.real
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    if given.mean1 is None or given.var1 is None:
        mean1, var1 = relation.statistics(pairs)
    else:
        mean1, var1 = used(gamma1, given.mean1, real), used(gamma1, given.var1, real)
    norm1 = Affine(gamma1, beta1, mean1, var1, given.eps1).fold()
    if given.mean2 is None or given.var2 is None:
        first, second = way.moments(norm1, None, None)
        mean2, var2 = hidden_statistics(first / pairs.count, second / pairs.count, weight1)
    else:
        mean2, var2 = used(gamma2, given.mean2, real), used(gamma2, given.var2, real)
    norm2 = Affine(gamma2, beta2, mean2, var2, given.eps2).fold()
    weights = way.weights(norm1, weight1, norm2, weight2)
    out, logsumexp = maps(value, *value.shape[1:]), weights_map(pairs)
    way.attend(weights, out, logsumexp, None)
    logsumexp += bias2[:, None, None]  # the softmax itself does not see the bias
    return out, mean1, var1, mean2, var2, logsumexp


def pairwise_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Tensor,
    sign: int,
    *rest: Tensor | float | bool,
) -> tuple[Tensor, ...]:
    """san::pairwise_attention_backward."""
    given = GivenBack(*rest)  # type: ignore[arg-type]  # the schema says which is what
    if not _usable(query, key, value, place, rest) or not loader.usable(grad) or grad.dtype != value.dtype:
        return plain.pairwise_attention_backward(grad, query, key, value, place, sign, *given)
    pairs = Pairs((query, key, value), place, sign, len(given.weight2), given.kernel_size, grad)
    real = pairs.real
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    mean1, var1, mean2, var2 = (
        parameter(x, real) for x in (given.mean1, given.var1, given.mean2, given.var2)
    )
    norm1 = Known.of(Affine(gamma1, beta1, mean1, var1, given.eps1))
    norm2 = Known.of(Affine(gamma2, beta2, mean2, var2, given.eps2))
    logsumexp = (given.kept.to(real) - bias2[:, None, None]).contiguous(memory_format=torch.channels_last)
    passed = backward_passes(pairs, norm1, norm2, weight1, weight2, logsumexp, batch2=given.batch2)
    through, grad_gamma1, grad_beta1 = through_norm1(pairs, norm1, passed, batch=given.batch1)
    grads = grad_gamma1, grad_beta1, passed.weight1, passed.gamma2, passed.sums.hidden, passed.sums.weight2
    grad_query, grad_key, grad_place = through
    *owned, _ = given.parameters()
    return (
        grad_query,
        grad_key,
        passed.value,
        grad_place.to(place.dtype).contiguous(memory_format=torch.channels_last),
        *(x.to(like.dtype).contiguous() for x, like in zip(grads, owned, strict=True)),
        torch.zeros_like(given.bias2),  # the same for every offset, so the softmax does not see it
    )


def _usable(query: Tensor, key: Tensor, value: Tensor, place: Tensor, rest: tuple[object, ...]) -> bool:
    tensors = query, key, value, place, *(x for x in rest if isinstance(x, Tensor))
    pixels = query.shape[0] * query.shape[2] * query.shape[3]
    return loader.usable(*tensors) and of_one_type(query, key, value) and pixels < MOST_PIXELS


def choose_way(pairs: Pairs) -> Way:
    """The tiles where they fit; else the naive kernels."""
    tiles, _ = choose((pairs.query, pairs.key, pairs.value, pairs.grad), pairs.groups)
    return Naive(pairs) if tiles is None else Tiled(pairs, tiles)


def weights_map(pairs: Pairs) -> Tensor:
    """An empty [N, G, H, W], channels last, of the type that sums are kept in."""
    return maps(pairs.value, pairs.groups, *pairs.value.shape[2:], dtype=pairs.real)


def hidden_statistics(first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of weight @ u, [R], from the means of u and of its products."""
    wide = weight.double()
    var = ((wide @ (second - first.outer(first))) * wide).sum(1).clamp_min_(0)
    return (wide @ first).to(weight.dtype), var.to(weight.dtype)


class Known(NamedTuple):
    """All that is asked of a norm whose statistics are known, worked out once: each operation is a launch."""

    mean: Tensor
    invstd: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: Affine) -> "Known":
        """Of a norm of the type that is computed in."""
        invstd = torch.rsqrt(norm.var + norm.eps)
        scale = norm.gamma * invstd
        return cls(norm.mean, invstd, scale, torch.addcmul(norm.beta, norm.mean, scale, value=-1))


class Passed(NamedTuple):
    """What the backward passes over all pairs give."""

    a: Tensor
    """Gradient of the normalised relation, summed over the pairs of i, [P, D]."""
    b: Tensor
    """The same over the pairs of j."""
    value: Tensor
    weight1: Tensor
    gamma2: Tensor
    sums: Sums


def backward_passes(
    pairs: Pairs,
    norm1: Known,
    norm2: Known,
    weight1: Tensor,
    weight2: Tensor,
    logsumexp: Tensor,
    *,
    batch2: bool,
) -> Passed:
    """Delta, the pass owned by i, what comes through norm2's statistics, and the pass owned by j."""
    way = choose_way(pairs)
    folded = norm1.scale, norm1.shift
    weights: Weights = way.weights(folded, weight1, (norm2.scale, norm2.shift), weight2)
    delta, grad_value = weights_map(pairs), maps(pairs.value, *pairs.value.shape[1:])
    way.attend(weights, None, None, delta)
    grad_a, grad_b = (delta.new_empty(pairs.pixels, pairs.related) for _ in range(2))
    sums = way.query_backward(weights, logsumexp, delta, grad_a)
    wide, (mean, invstd, scale, _) = weight1.double(), norm2
    grad_gamma2 = torch.addcmul((sums.products * wide).sum(1), mean, sums.hidden, value=-1) * invstd
    grad_weight1, correction = scale[:, None] * sums.products, None
    if batch2:
        # BatchNorm takes scale * (mean of grad_beta + normalised * mean of grad_gamma) from the gradient of
        # its input z = weight1 u. That is linear in z, so one matrix takes it back to u.
        step = scale * (-1 / pairs.count)
        slope = grad_gamma2 * step * invstd
        constant = torch.addcmul(sums.hidden * step, slope, mean, value=-1)
        matrix = (wide.T @ (slope[:, None] * wide)).to(pairs.real)
        correction = Correction(way.matrix(matrix), (wide.T @ constant).to(pairs.real))
        first, second = way.moments(folded, correction, grad_a)
        grad_weight1.addr_(constant, first).addcmul_(slope[:, None], wide @ second)
    way.key_backward(weights, logsumexp, delta, correction, grad_b, grad_value)
    return Passed(grad_a, grad_b, grad_value, grad_weight1, grad_gamma2, sums)


def through_norm1(
    pairs: Pairs, norm: Known, passed: Passed, *, batch: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Gradients of query, key and place; of norm1's gamma; and of its beta."""
    centres = relation.centres(pairs, norm.mean)
    total, product = relation.products(pairs, *centres, passed.a, passed.b)
    grad_gamma, step = product * norm.invstd, norm.scale * (-1 / pairs.count)
    linear, square = (total * step).to(pairs.real), (grad_gamma * step * norm.invstd).to(pairs.real)
    given = *centres, norm.scale, linear, square, passed.a, passed.b
    return relation.backward(pairs, *given, batch=batch), grad_gamma, total


implement("pairwise_attention", pairwise_attention, "CUDA")
implement("pairwise_attention_backward", pairwise_attention_backward, "CUDA")
