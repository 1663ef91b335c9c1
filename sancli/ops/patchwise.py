"""Patchwise attention: a footprint's weights are made from all of its pixels at once.

    relation = [query_i, key_{i+o} for every offset o]
    weight = weight2 relu(norm2(weight1 relu(norm1(relation)))) + bias2, no softmax
    out[n, c, i] = sum over o of weight[n, c mod G, o, i] * value[n, c, i + o]

Shapes: query, key [N, R, H, W]; value, out [N, M, H, W]; norm1 [R * (K * K + 1)]; weight1 [G, R * (K * K +
1)]; norm2 [G]; weight2 [G * K * K, G]. The border is reflected.
Source: section 3.2 of Zhao et al., CVPR 2020; model/san.py in hszhao/SAN.
"""

from typing import Any

import torch
from torch import Tensor

from sancli.ops.attention import GIVEN, GIVEN_BACK, USED, Given, GivenBack
from sancli.ops.norm import Norm
from sancli.ops.reference import patchwise as plain
from sancli.ops.registry import differentiable, first_derivative_only, register
from sancli.ops.shapes import expect, expect_maps, expect_norm, expect_shared
from sancli.ops.trunk import maps, statistics_like


def _patchwise_attention_shapes(
    query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = Given(*rest)
    return (
        maps(value, *value.shape[1:]),
        *statistics_like(value, len(given.gamma1)),
        *statistics_like(value, len(given.gamma2)),
        maps(value, len(given.gamma2), *value.shape[2:]),
    )


def _patchwise_attention_backward_shapes(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    parameters = GivenBack(*rest).parameters()
    return *(maps(t, *t.shape[1:]) for t in (query, key, value)), *(t.new_empty(t.shape) for t in parameters)


register(
    f"patchwise_attention(Tensor query, Tensor key, Tensor value, {GIVEN}) -> (Tensor out, {USED}, Tensor z)",
    plain.patchwise_attention,
    _patchwise_attention_shapes,
)
register(
    f"patchwise_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, {GIVEN_BACK})"
    f" -> ({', '.join(['Tensor'] * 10)})",
    plain.patchwise_attention_backward,
    _patchwise_attention_backward_shapes,
)


class _PatchwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        given = Given(*rest)
        out, *statistics, z = torch.ops.san.patchwise_attention(query, key, value, *rest)
        ctx.save_for_backward(query, key, value, z, *statistics, *given.parameters())
        ctx.mark_non_differentiable(*statistics)
        ctx.settings = given.eps1, given.mean1 is None, given.eps2, given.mean2 is None, given.kernel_size
        return out, *statistics

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, z, mean1, var1, mean2, var2, *parameters = ctx.saved_tensors
        gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = parameters
        eps1, batch1, eps2, batch2, kernel_size = ctx.settings
        grads = torch.ops.san.patchwise_attention_backward(
            grad, query, key, value,
            gamma1, beta1, mean1, var1, eps1, batch1, weight1,
            gamma2, beta2, mean2, var2, eps2, batch2, weight2, bias2, z, kernel_size,
        )  # fmt: skip
        inputs, first, second = grads[:3], grads[3:6], grads[6:]
        norm = None, None, None
        return *inputs, *first[:2], *norm, first[2], *second[:2], *norm, *second[2:], None


def patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
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
    footprint, groups = kernel_size**2, len(weight1)
    relations = query.shape[1] * (footprint + 1)
    expect_norm("norm1", norm1, relations)
    expect("weight1", weight1, groups, relations, letters="[G, R * (K * K + 1)]")
    expect_norm("norm2", norm2, groups)
    expect("weight2", weight2, groups * footprint, groups, letters="[G * K * K, G]")
    expect("bias2", bias2, groups * footprint, letters="[G * K * K]")
    expect_shared(value, groups)
    args = query, key, value, *norm1, weight1, *norm2, weight2, bias2, kernel_size
    operator = torch.ops.san.patchwise_attention
    out, mean1, var1, mean2, var2, *_ = differentiable(_PatchwiseAttention, operator, *args)
    return out, (mean1, var1), (mean2, var2)
