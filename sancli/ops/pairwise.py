"""Pairwise attention: a pixel of a footprint is weighed by how it compares with the middle one.

    relation = [query_i + sign * key_{i+o}, place_i - place_{i+o}]
    weight = softmax over o of weight2 relu(norm2(weight1 relu(norm1(relation)))) + bias2
    out[n, c, i] = sum over o of weight[n, c mod G, o, i] * value[n, c, i + o]

Shapes: query, key [N, R, H, W]; value, out [N, M, H, W]; place [1, 2, H, W]; norm1 [R + 2]; weight1 [R, R +
2]; norm2 [R]; weight2 [G, R]. The border is reflected.
Source: section 3.1 of Zhao et al., CVPR 2020; model/san.py in hszhao/SAN.
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.attention import GIVEN, GIVEN_BACK, USED, Given, GivenBack
from sancli.ops.norm import Norm, accumulation_type
from sancli.ops.reference import pairwise as plain
from sancli.ops.registry import differentiable, first_derivative_only, register
from sancli.ops.shapes import expect, expect_maps, expect_norm, expect_shared
from sancli.ops.trunk import maps, statistics_like


def _pairwise_attention_shapes(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = Given(*rest)
    return (
        maps(value, *value.shape[1:]),
        *statistics_like(value, len(given.gamma1)),
        *statistics_like(value, len(given.gamma2)),
        maps(value, len(given.weight2), *value.shape[2:], dtype=accumulation_type(value.dtype)),
    )


def _pairwise_attention_backward_shapes(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Any
) -> tuple[Tensor, ...]:
    inputs, parameters = (query, key, value, place), GivenBack(*rest).parameters()
    return *(maps(t, *t.shape[1:]) for t in inputs), *(t.new_empty(t.shape) for t in parameters)


register(
    f"pairwise_attention(Tensor query, Tensor key, Tensor value, Tensor place, int sign, {GIVEN})"
    f" -> (Tensor out, {USED}, Tensor logsumexp)",
    plain.pairwise_attention,
    _pairwise_attention_shapes,
)
register(
    "pairwise_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor place, int sign,"
    f" {GIVEN_BACK}) -> ({', '.join(['Tensor'] * 11)})",
    plain.pairwise_attention_backward,
    _pairwise_attention_backward_shapes,
)


class _PairwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        place, sign, *others = rest
        given = Given(*others)
        out, *statistics, logsumexp = torch.ops.san.pairwise_attention(query, key, value, *rest)
        ctx.save_for_backward(query, key, value, place, logsumexp, *statistics, *given.parameters())
        ctx.mark_non_differentiable(*statistics)
        norms = given.eps1, given.mean1 is None, given.eps2, given.mean2 is None
        ctx.settings = sign, *norms, given.kernel_size
        return out, *statistics

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, place, logsumexp, mean1, var1, mean2, var2, *parameters = ctx.saved_tensors
        gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = parameters
        sign, eps1, batch1, eps2, batch2, kernel_size = ctx.settings
        grads = torch.ops.san.pairwise_attention_backward(
            grad, query, key, value, place, sign,
            gamma1, beta1, mean1, var1, eps1, batch1, weight1,
            gamma2, beta2, mean2, var2, eps2, batch2, weight2, bias2, logsumexp, kernel_size,
        )  # fmt: skip
        inputs, first, second = grads[:4], grads[4:7], grads[7:]
        norm = None, None, None
        return *inputs, None, *first[:2], *norm, first[2], *second[:2], *norm, *second[2:], None


def pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Tensor,
    *,
    sign: int,
    norm1: Norm,
    weight1: Tensor,
    norm2: Norm,
    weight2: Tensor,
    bias2: Tensor,
    kernel_size: int,
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The output, and mean and biased variance that each of the two norms used.

    Raises:
        ValueError: The shapes do not go together.
    """
    expect_maps(value=value, query=query)
    expect("key", key, *query.shape, letters="[N, R, H, W]")
    channels, groups = query.shape[1], len(weight2)
    expect("place", place, 1, 2, *value.shape[2:], letters="[1, 2, H, W]")
    expect_norm("norm1", norm1, channels + 2)
    expect("weight1", weight1, channels, channels + 2, letters="[R, R + 2]")
    expect_norm("norm2", norm2, channels)
    expect("weight2", weight2, groups, channels, letters="[G, R]")
    expect("bias2", bias2, groups, letters="[G]")
    expect_shared(value, groups)
    args = query, key, value, place, sign, *norm1, weight1, *norm2, weight2, bias2, kernel_size
    operator = torch.ops.san.pairwise_attention
    out, mean1, var1, mean2, var2, *_ = differentiable(_PairwiseAttention, operator, *args)
    return out, (mean1, var1), (mean2, var2)
