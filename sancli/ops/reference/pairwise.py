"""Pairwise attention: each pixel of a footprint weighed by its relation to the middle one.

Shapes: N images, R relation channels and D = R + 2 with the position, M value channels, G = M / 8 weight
channels, K footprint side, T positions of a tile.

The first BatchNorm is folded into two maps, so that the relation is relu(a_i + b_{i+o}). The second one's
statistics follow from the first two moments of that, and so does the part of its backward that needs all of
the batch: nothing but footprints of one tile is made, and the softmax is never computed twice in one
direction.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sancli.ops.attention import Given, GivenBack
from sancli.ops.norm import Affine, Norm, accumulation_type
from sancli.ops.reference.aggregation import aggregate, aggregate_backward
from sancli.ops.reference.windows import Windows
from sancli.ops.statistics import sum_statistics, sum_statistics_backward

VOID = -1e30  # added to a relation where no pixel stands, it leaves 0 after the ReLU


@dataclass(frozen=True)
class Relation:
    """relu(a_i + b_{i+o}), made tile by tile."""

    layout: Windows
    a: Tensor  # rows [D, .]
    b: Tensor  # padded rows [D, .]

    def tiles(self) -> list[slice]:
        """As `Windows.tiles`, for this width."""
        return list(self.layout.tiles(len(self.a) * self.layout.kernel_size**2))

    def make(self, tile: slice) -> Tensor:
        """One tile [D, K * K * T]."""
        channels, k = len(self.a), self.layout.kernel_size
        out = self.a.new_empty(channels, k, k, tile.stop - tile.start)
        torch.add(self.layout.windows(self.b, tile), self.a[:, None, None, tile], out=out)
        return out.relu_().flatten(1)

    def add_backward(self, grad: Tensor, made: Tensor, tile: slice, grad_a: Tensor, grad_b: Tensor) -> None:
        """Adds the gradients of a and b, rows and padded rows, from that of `made`."""
        k = self.layout.kernel_size
        grad = torch.ops.aten.threshold_backward(grad, made, 0).view(len(self.a), k * k, -1)
        grad_a[:, tile] += grad.sum(1)
        for into, part in zip(self.layout.offsets(grad_b, tile), grad.unbind(1), strict=True):
            into += part


@dataclass
class Moments:
    """Sums over the batch of a relation, [D], and of its products, [D, D]; in float64."""

    first: Tensor
    second: Tensor

    @classmethod
    def zero(cls, relation: Relation) -> "Moments":
        """None seen yet."""
        channels = len(relation.a)
        zeros = relation.a.new_zeros(channels, channels + 1, dtype=torch.float64)
        return cls(zeros[:, 0], zeros[:, 1:])

    def add(self, made: Tensor) -> None:
        """Takes a tile [D, .] into account."""
        self.first += made.sum(1)
        self.second += made @ made.T


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """san::pairwise_attention."""
    given = Given(*rest)
    (norm1, norm2), k = given.norms, given.kernel_size
    a, b = operands(query, key, place, sign)
    known1 = copied(norm1, a.dtype) or norm1.known(*sum_statistics(a, b, k))
    relation, count = make_relation(a, b, known1, k), a.numel() // a.shape[1] * k**2
    known2 = copied(norm2, a.dtype) or norm2.known(*hidden_statistics(relation, given.weight1, count))
    hidden = fold_into(given.weight1, known2)
    out, logsumexp = attend(relation, *hidden, given.weight2.to(a.dtype), value)
    logsumexp += given.bias2.to(a.dtype)[:, None, None]  # the softmax itself does not see the bias
    return out, known1.mean, known1.var, known2.mean, known2.var, logsumexp


def copied(norm: Norm, dtype: torch.dtype) -> Affine | None:
    """The norm with copies of the statistics that it is given, or None where it is given none."""
    if norm.mean is None or norm.var is None:
        return None
    return norm.known(norm.mean.to(dtype, copy=True), norm.var.to(dtype, copy=True))


def operands(query: Tensor, key: Tensor, place: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """The maps [N, D, H, W] with relation = a_i + b_{i+o}; positions are subtracted whatever the sign."""
    dtype, place = accumulation_type(query.dtype), place.expand(len(query), -1, -1, -1)
    a = torch.cat([query.to(dtype), place.to(dtype)], 1)
    return a, torch.cat([sign * key.to(dtype), -place.to(dtype)], 1)


def make_relation(a: Tensor, b: Tensor, norm: Affine, kernel_size: int) -> Relation:
    """Folds the first BatchNorm into the two maps."""
    layout = Windows.of(a, kernel_size)
    scale, shift = (x[:, None, None] for x in norm.fold())
    return Relation(layout, layout.rows(scale * a + shift, void=VOID), layout.pad(scale * b))


def hidden_statistics(relation: Relation, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of weight @ relation, [R], from the moments of the relation."""
    moments, wide = Moments.zero(relation), weight.double()
    for tile in relation.tiles():
        moments.add(relation.make(tile))
    first, second = moments.first / count, moments.second / count
    var = ((wide @ (second - first.outer(first))) * wide).sum(1).clamp_min_(0)
    return (wide @ first).to(relation.a.dtype), var.to(relation.a.dtype)


def fold_into(weight: Tensor, norm: Affine) -> tuple[Tensor, Tensor]:
    """The 1x1 convolution [R, D] with the BatchNorm behind it, as weight and bias."""
    scale, shift = norm.fold()
    return scale[:, None] * weight.to(scale.dtype), shift[:, None]


def attend(
    relation: Relation, weight1: Tensor, bias1: Tensor, weight2: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Output [N, M, H, W] and log-sum-exp [N, G, H, W] of weight2 relu(weight1 relation + bias1)."""
    layout = relation.layout
    padded = layout.pad(value).unflatten(0, (-1, len(weight2)))
    out = torch.empty_like(padded[..., layout.all])
    logsumexp = layout.empty_rows(len(weight2), value)
    for tile in relation.tiles():
        hidden = torch.addmm(bias1, weight1, relation.make(tile)).relu_()
        logits = (weight2 @ hidden).unflatten(1, (layout.kernel_size**2, -1))  # [G, K * K, T]
        largest = logits.amax(1)
        logits.sub_(largest[:, None]).exp_()
        total = logits.sum(1)
        torch.div(aggregate(padded, logits, layout, tile), total, out=out[..., tile])
        logsumexp[:, tile] = total.log_().add_(largest)
    return layout.maps(out.flatten(0, 1), value.dtype), layout.maps(logsumexp, out.dtype)


def pairwise_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Any
) -> tuple[Tensor, ...]:
    """san::pairwise_attention_backward."""
    given = GivenBack(*rest)
    (norm1, norm2), weight1, k = given.norms, given.weight1, given.kernel_size
    a, b = operands(query, key, place, sign)
    relation = make_relation(a, b, norm1, k)
    logsumexp = given.kept - given.bias2.to(a.dtype)[:, None, None]
    grad_a, grad_b = torch.zeros_like(relation.a), torch.zeros_like(relation.b)
    layers = *fold_into(weight1, norm2), given.weight2.to(a.dtype)
    products, grad_beta2, grad_weight2, grad_value = attend_backward(
        relation, *layers, value, logsumexp, grad, grad_a, grad_b
    )
    invstd = torch.rsqrt(norm2.var + norm2.eps)
    grad_gamma2 = ((products * weight1).sum(1) - norm2.mean * grad_beta2) * invstd
    grad_weight1 = norm2.fold()[0][:, None] * products
    if given.batch2:
        count = a.numel() // a.shape[1] * k**2
        grad_weight1 += hidden_statistics_backward(
            relation, weight1.to(a.dtype), norm2, grad_gamma2 / count, grad_beta2 / count, grad_a, grad_b
        )
    maps = relation.layout.maps(grad_a, a.dtype), relation.layout.fold(grad_b, a.dtype)
    grad_a, grad_b, grad_gamma1, grad_beta1 = norm_backward(*maps, a, b, norm1, k, given.batch1)
    channels = query.shape[1]
    return (
        _to_maps(grad_a[:, :channels], query),
        _to_maps(sign * grad_b[:, :channels], key),
        grad_value,
        _to_maps((grad_a - grad_b)[:, channels:].sum(0, keepdim=True), place),
        grad_gamma1,
        grad_beta1,
        grad_weight1.to(weight1.dtype),
        grad_gamma2.to(given.gamma2.dtype),
        grad_beta2.to(given.beta2.dtype),
        grad_weight2.to(given.weight2.dtype),
        torch.zeros_like(given.bias2),  # the same for every offset, so the softmax does not see it
    )


def _to_maps(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype).contiguous(memory_format=torch.channels_last)


def attend_backward(
    relation: Relation,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    value: Tensor,
    logsumexp: Tensor,
    grad: Tensor,
    grad_a: Tensor,
    grad_b: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Adds to the gradients of the relation what reaches it without the second BatchNorm's statistics.

    Returns:
        sum of (gradient of the hidden layer) x relation [R, D], sum of the former [R], and the gradients of
        `weight2` and `value`.
    """
    layout = relation.layout
    padded, grad = (x.unflatten(0, (-1, len(weight2))) for x in (layout.pad(value), layout.rows(grad)))
    logsumexp = layout.rows(logsumexp)
    grad_padded, grad_weight2 = torch.zeros_like(padded), torch.zeros_like(weight2)
    products, sums = torch.zeros_like(weight1), torch.zeros_like(bias1[:, 0])
    transposed1, transposed2 = weight1.T.contiguous(), weight2.T.contiguous()
    for tile in relation.tiles():
        made = relation.make(tile)
        hidden = torch.addmm(bias1, weight1, made).relu_()
        weight = (weight2 @ hidden).unflatten(1, (layout.kernel_size**2, -1))
        weight.sub_(logsumexp[:, None, tile]).exp_()
        grads = aggregate_backward(grad[..., tile], padded, weight, grad_padded, layout, tile)
        delta = torch.mul(grads, weight).sum(1)
        grads = grads.sub_(delta[:, None]).mul_(weight).flatten(1)  # through the softmax
        grad_weight2.addmm_(grads, hidden.T)
        grad_hidden = torch.ops.aten.threshold_backward(transposed2 @ grads, hidden, 0)
        sums += grad_hidden.sum(1)
        products.addmm_(grad_hidden, made.T)
        relation.add_backward(transposed1 @ grad_hidden, made, tile, grad_a, grad_b)
    return products, sums, grad_weight2, layout.fold(grad_padded.flatten(0, 1), value.dtype)


def hidden_statistics_backward(
    relation: Relation,
    weight: Tensor,
    norm: Affine,
    mean_gamma: Tensor,
    mean_beta: Tensor,
    grad_a: Tensor,
    grad_b: Tensor,
) -> Tensor:
    """Adds what reaches the relation through the second norm's statistics; gives the gradient of `weight`.

    BatchNorm subtracts scale * (mean_beta + normalised * mean_gamma) from the gradient of its input z, the
    means being those of the gradients of beta and gamma. That is linear in z = weight @ relation, so one
    product with a [D, D] matrix takes it back to the relation.
    """
    scale, _ = norm.fold()
    slope = -scale * mean_gamma * torch.rsqrt(norm.var + norm.eps)
    constant = -scale * mean_beta - slope * norm.mean
    matrix, vector = weight.T @ (slope[:, None] * weight), weight.T @ constant
    moments = Moments.zero(relation)
    for tile in relation.tiles():
        made = relation.make(tile)
        moments.add(made)
        relation.add_backward(torch.addmm(vector[:, None], matrix, made), made, tile, grad_a, grad_b)
    first, second = moments.first.to(weight.dtype), moments.second.to(weight.dtype)
    return constant.outer(first) + slope[:, None] * (weight @ second)


def norm_backward(
    grad_a: Tensor, grad_b: Tensor, a: Tensor, b: Tensor, norm: Affine, kernel_size: int, batch: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of a, b, and the first BatchNorm's gamma and beta, from those of the two folded maps."""
    scale, _ = norm.fold()
    grad_scale = (grad_a * a + grad_b * b).sum((0, 2, 3))
    grad_gamma, grad_beta, *statistics = norm.fold_backward(grad_scale, grad_a.sum((0, 2, 3)))
    grad_a, grad_b = scale[:, None, None] * grad_a, scale[:, None, None] * grad_b
    if batch:
        through_a, through_b = sum_statistics_backward(a, b, kernel_size, *statistics)
        grad_a, grad_b = grad_a + through_a, grad_b + through_b
    return grad_a, grad_b, grad_gamma, grad_beta
