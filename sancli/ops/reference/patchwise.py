"""Patchwise attention: weights made from the concatenation of a footprint's pixels.

Shapes: N images, R relation channels, M value channels, G = M / 8 weight channels, K footprint side, T
positions of a tile. The relation has R * (K * K + 1) channels: the query's R, then K * K for each channel of
the key.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sancli.ops.attention import Given, GivenBack
from sancli.ops.norm import Affine
from sancli.ops.reference import trunk
from sancli.ops.reference.aggregation import aggregate, aggregate_backward
from sancli.ops.reference.windows import Windows
from sancli.ops.statistics import window_statistics, window_statistics_backward


@dataclass(frozen=True)
class Relation:
    """relu(scale * [query, footprint of key] + shift), made tile by tile."""

    layout: Windows
    query: Tensor  # rows [R, .]
    key: Tensor  # padded rows [R, .]
    scale: Tensor  # [R * (K * K + 1)]
    shift: Tensor

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Splits [R * (K * K + 1), T] into the query's [R, T] and the key's [R, K, K, T]."""
        channels, k = len(self.query), self.layout.kernel_size
        return x[:channels], x[channels:].view(channels, k, k, -1)

    def windows(self, tile: slice) -> tuple[Tensor, Tensor]:
        """What a tile is made from, as `parts`."""
        return self.query[:, tile], self.layout.windows(self.key, tile)

    def make(self, tile: slice) -> Tensor:
        """One tile [R * (K * K + 1), T]."""
        out = self.query.new_empty(len(self.scale), tile.stop - tile.start)
        scales = self.parts(self.scale[:, None])
        for source, scale, part in zip(self.windows(tile), scales, self.parts(out), strict=True):
            torch.mul(source, scale, out=part)
        return out.add_(self.shift[:, None]).relu_()


def patchwise_attention(
    query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """san::patchwise_attention."""
    given = Given(*rest)
    (norm1, norm2), k = given.norms, given.kernel_size
    known1 = norm1.known(*relation_statistics(query, key, norm1.mean, norm1.var, k))
    relation = make_relation(query, key, known1, k)
    z = generate(relation, given.weight1.to(relation.scale.dtype), value.dtype)
    known2 = trunk.affine(z, norm2)
    out = attend(trunk.norm_relu(z, known2), value, given.weight2, given.bias2, k)
    return out, known1.mean, known1.var, known2.mean, known2.var, z


def patchwise_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    """san::patchwise_attention_backward."""
    given = GivenBack(*rest)
    (norm1, norm2), z, k = given.norms, given.kept, given.kernel_size
    hidden = trunk.norm_relu(z, norm2)
    grad_hidden, grad_value, grad_weight2, grad_bias2 = attend_backward(
        grad, hidden, value, given.weight2, given.bias2, k
    )
    grad_z, grad_gamma2, grad_beta2 = trunk.norm_relu_backward(grad_hidden, hidden, z, norm2, given.batch2)
    relation = make_relation(query, key, norm1, k)
    rows, padded, grad_scale, grad_shift, grad_weight1 = generate_backward(relation, grad_z, given.weight1)
    grad_gamma1, grad_beta1, grad_mean1, grad_var1 = norm1.fold_backward(grad_scale, grad_shift)
    grad_query, grad_key = relation.layout.maps(rows, rows.dtype), relation.layout.fold(padded, rows.dtype)
    if given.batch1:
        statistics = (norm1.mean, grad_mean1, grad_var1)
        add_statistics_backward(grad_query, grad_key, query, key, *statistics)
    return (
        grad_query.to(query.dtype),
        grad_key.to(key.dtype),
        grad_value,
        grad_gamma1,
        grad_beta1,
        grad_weight1.to(given.weight1.dtype),
        grad_gamma2,
        grad_beta2,
        grad_weight2.to(given.weight2.dtype),
        grad_bias2.to(given.bias2.dtype),
    )


def relation_statistics(
    query: Tensor, key: Tensor, mean: Tensor | None, var: Tensor | None, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """The statistics to use, [R * (K * K + 1)]: those given, or those of the relation over the batch."""
    mean_query, var_query = trunk.statistics(query, mean, var)
    if mean is not None:
        return mean_query, var_query
    mean_key, var_key = window_statistics(key.to(mean_query.dtype), kernel_size)
    return torch.cat([mean_query, mean_key.flatten()]), torch.cat([var_query, var_key.flatten()])


def add_statistics_backward(
    grad_query: Tensor,
    grad_key: Tensor,
    query: Tensor,
    key: Tensor,
    mean: Tensor,
    grad_mean: Tensor,
    grad_var: Tensor,
) -> None:
    """Adds the gradients that reach query and key through the statistics of their relation."""
    channels, count = query.shape[1], query.numel() // query.shape[1]
    (mean_q, mean_k), (d_mean_q, d_mean_k), (d_var_q, d_var_k) = (
        (x[:channels, None, None], x[channels:].view(channels, -1)) for x in (mean, grad_mean, grad_var)
    )
    grad_query += (d_mean_q + 2 * d_var_q * (query - mean_q)) / count
    grad_key += window_statistics_backward(key.to(grad_key.dtype), mean_k, d_mean_k, d_var_k)


def make_relation(query: Tensor, key: Tensor, norm: Affine, kernel_size: int) -> Relation:
    """Lays out what the tiles are made from."""
    layout = Windows.of(query, kernel_size)
    return Relation(layout, layout.rows(query), layout.pad(key), *norm.fold())


def generate(relation: Relation, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The hidden layer before its BatchNorm, weight @ relation: [N, G, H, W]."""
    z = relation.layout.empty_rows(len(weight), relation.query)
    for tile in relation.layout.tiles(weight.shape[1]):
        z[:, tile] = weight @ relation.make(tile)
    return relation.layout.maps(z, dtype)


def generate_backward(
    relation: Relation, grad_z: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query (rows), key (padded rows), scale, shift and weight."""
    layout, weight = relation.layout, weight.to(relation.scale.dtype)
    grad_rows, transposed = layout.rows(grad_z), weight.T.contiguous()
    grad_query, grad_key = torch.empty_like(relation.query), torch.zeros_like(relation.key)
    grad_scale, grad_shift = torch.zeros_like(relation.scale), torch.zeros_like(relation.shift)
    grad_weight = torch.zeros_like(weight)
    scale_query, scale_key = relation.parts(relation.scale[:, None])
    for tile in layout.tiles(weight.shape[1]):
        made, grad = relation.make(tile), grad_rows[:, tile]
        grad_weight.addmm_(grad, made.T)
        grad_made = torch.ops.aten.threshold_backward(transposed @ grad, made, 0)
        grad_shift += grad_made.sum(1)
        from_query, from_key = relation.parts(grad_made)
        for source, part, into in zip(
            relation.windows(tile), (from_query, from_key), relation.parts(made), strict=True
        ):
            torch.mul(source, part, out=into)
        grad_scale += made.sum(1)
        torch.mul(from_query, scale_query, out=grad_query[:, tile])
        parts, scales = from_key.flatten(1, 2).unbind(1), scale_key.flatten(1, 2).unbind(1)
        for into, part, scale in zip(layout.offsets(grad_key, tile), parts, scales, strict=True):
            into.addcmul_(part, scale)
    return grad_query, grad_key, grad_scale, grad_shift, grad_weight


def attend(hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """Aggregates `value` with the weights `weight @ hidden + bias`, [N, M, H, W]."""
    layout, groups = Windows.of(value, kernel_size), hidden.shape[1]
    rows, padded = layout.rows(hidden), layout.pad(value).unflatten(0, (-1, groups))
    weight, bias = weight.to(rows.dtype), bias.to(rows.dtype)[:, None]
    out = torch.empty_like(padded[..., layout.all])
    for tile in layout.tiles(len(weight)):
        weights = torch.addmm(bias, weight, rows[:, tile]).unflatten(0, (groups, -1))
        out[..., tile] = aggregate(padded, weights, layout, tile)
    return layout.maps(out.flatten(0, 1), value.dtype)


def attend_backward(
    grad: Tensor, hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, value, weight and bias."""
    layout, groups = Windows.of(value, kernel_size), hidden.shape[1]
    rows = layout.rows(hidden)
    padded, grad = (x.unflatten(0, (-1, groups)) for x in (layout.pad(value), layout.rows(grad)))
    weight, bias = weight.to(rows.dtype), bias.to(rows.dtype)
    grad_rows, grad_padded, transposed = (
        torch.empty_like(rows),
        torch.zeros_like(padded),
        weight.T.contiguous(),
    )
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for tile in layout.tiles(len(weight)):
        weights = torch.addmm(bias[:, None], weight, rows[:, tile]).unflatten(0, (groups, -1))
        grads = aggregate_backward(grad[..., tile], padded, weights, grad_padded, layout, tile).flatten(0, 1)
        grad_weight.addmm_(grads, rows[:, tile].T)
        grad_bias += grads.sum(1)
        grad_rows[:, tile] = transposed @ grads
    grad_value = layout.fold(grad_padded.flatten(0, 1), value.dtype)
    return layout.maps(grad_rows, hidden.dtype), grad_value, grad_weight, grad_bias
