"""san::pairwise_attention by kernels/pairwise_*.cu; pairwise.cuh says what each pass does.

Shapes: N images, H x W pixels, R relation channels and D = R + 2 with the place, G weights for M value channels,
K footprint side. The small algebra between the passes, on [R, D] and less, is torch's.
"""

from typing import NamedTuple

import torch
from torch import Tensor

import sancli.ops.pairwise  # noqa: F401 -- the schemas
from sancli.ops.attention import Given, GivenBack
from sancli.ops.cpu.maps import of_one_type, parameter, used
from sancli.ops.cuda import loader
from sancli.ops.cuda.pairwise_passes import Passes, Sums
from sancli.ops.norm import Affine
from sancli.ops.reference import pairwise as plain
from sancli.ops.registry import implement


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::pairwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    tensors = query, key, value, place, *(x for x in rest if isinstance(x, Tensor))
    if not loader.usable(*tensors) or not of_one_type(query, key, value):
        return plain.pairwise_attention(query, key, value, place, sign, *given)
    passes = Passes(query, key, value, place, sign, given.kernel_size, len(given.weight2))
    real = passes.real
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    if given.mean1 is None or given.var1 is None:
        mean1, var1 = passes.relation_statistics()
    else:
        mean1, var1 = used(gamma1, given.mean1, real), used(gamma1, given.var1, real)
    norm1 = Affine(gamma1, beta1, mean1, var1, given.eps1)
    if given.mean2 is None or given.var2 is None:
        moments = (x / passes.pairs for x in passes.moments(*norm1.fold()))
        mean2, var2 = hidden_statistics(*moments, weight1)
    else:
        mean2, var2 = used(gamma2, given.mean2, real), used(gamma2, given.var2, real)
    norm2 = Affine(gamma2, beta2, mean2, var2, given.eps2)
    out, logsumexp = passes.attend(passes.weights(norm1, weight1, norm2, weight2))
    logsumexp += bias2[:, None, None]  # the softmax itself does not see the bias
    return out, mean1, var1, mean2, var2, logsumexp


def hidden_statistics(first: Tensor, second: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of weight @ u, [R], from the means of u and of its products."""
    wide = weight.double()
    var = ((wide @ (second - first.outer(first))) * wide).sum(1).clamp_min_(0)
    return (wide @ first).to(weight.dtype), var.to(weight.dtype)


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
    tensors = grad, query, key, value, place, *(x for x in rest if isinstance(x, Tensor))
    if not loader.usable(*tensors) or not of_one_type(grad, query, key, value):
        return plain.pairwise_attention_backward(grad, query, key, value, place, sign, *given)
    passes = Passes(query, key, value, place, sign, given.kernel_size, len(given.weight2), grad)
    real = passes.real
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    mean1, var1, mean2, var2 = (
        parameter(x, real) for x in (given.mean1, given.var1, given.mean2, given.var2)
    )
    norm1, norm2 = (
        Affine(gamma1, beta1, mean1, var1, given.eps1),
        Affine(gamma2, beta2, mean2, var2, given.eps2),
    )
    weights = passes.weights(norm1, weight1, norm2, weight2)
    back = passes.weights_back(norm2, weight1, weight2)
    logsumexp = (given.kept.to(real) - bias2[:, None, None]).contiguous(memory_format=torch.channels_last)
    delta = passes.delta(weights)
    grad_a, sums = passes.query_backward(weights, back, logsumexp, delta)
    hidden = through_hidden(passes, norm1, norm2, weight1, sums, grad_a, batch=given.batch2)
    grad_b, grad_value = passes.key_backward(weights, back, logsumexp, delta, hidden.matrix, hidden.vector)
    grad_inputs, grad_norm1 = through_relation(passes, norm1, grad_a, grad_b, batch=given.batch1)
    grad_query, grad_key, grad_place = grad_inputs
    grads = *grad_norm1, hidden.weight1, hidden.gamma2, sums.hidden, sums.weight2
    *owned, _ = given.parameters()
    return (
        *(grad_query, grad_key, grad_value),
        grad_place.to(place.dtype).contiguous(memory_format=torch.channels_last),
        *(x.to(like.dtype) for x, like in zip(grads, owned, strict=True)),
        torch.zeros_like(given.bias2),  # the same for every offset, so the softmax does not see it
    )


class Hidden(NamedTuple):
    """Gradients of weight1 and of norm2's gamma, and what norm2's statistics add to u's: matrix u + vector."""

    weight1: Tensor
    gamma2: Tensor
    matrix: Tensor | None
    vector: Tensor | None


def through_hidden(
    passes: Passes, norm1: Affine, norm2: Affine, weight1: Tensor, sums: Sums, grad_a: Tensor, *, batch: bool
) -> Hidden:
    """What is known once all pairs are summed; adds to `grad_a` what comes through norm2's statistics.

    BatchNorm takes scale * (mean of grad_beta + normalised * mean of grad_gamma) from the gradient of z = weight1 u.
    That is linear in z, so one matrix takes it back to u, and the moments of u are what weight1 gets from it.
    """
    wide, (scale, _) = weight1.double(), norm2.fold()
    invstd = torch.rsqrt(norm2.var.double() + norm2.eps)
    grad_gamma = ((sums.products * wide).sum(1) - norm2.mean * sums.hidden) * invstd
    grad_weight1 = scale[:, None] * sums.products
    if not batch:
        return Hidden(grad_weight1, grad_gamma, None, None)
    slope = -scale * grad_gamma / passes.pairs * invstd
    constant = -scale * sums.hidden / passes.pairs - slope * norm2.mean
    matrix = passes.matrix((wide.T @ (slope[:, None] * wide)).to(passes.real))
    vector = (wide.T @ constant).to(passes.real)
    first, second = passes.moments(*norm1.fold(), matrix, vector, grad_a)
    grad_weight1 += constant.outer(first) + slope[:, None] * (wide @ second)
    return Hidden(grad_weight1, grad_gamma, matrix, vector)


def through_relation(
    passes: Passes, norm: Affine, grad_a: Tensor, grad_b: Tensor, *, batch: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Gradients of query, key and place, and of norm1's gamma and beta."""
    scale, _ = norm.fold()
    invstd = torch.rsqrt(norm.var + norm.eps)
    centre = passes.centre(passes.query)
    total, product = passes.relation_products(centre, norm.mean - centre, grad_a, grad_b)
    linear = (-scale * total / passes.pairs).to(passes.real)
    square = (-scale * invstd * invstd * product / passes.pairs).to(passes.real)
    grads = passes.relation_backward((norm.mean, scale, linear, square), grad_a, grad_b, batch=batch)
    return grads, (product * invstd, total)


implement("pairwise_attention", pairwise_attention, "CUDA")
implement("pairwise_attention_backward", pairwise_attention_backward, "CUDA")
