"""san::pairwise_attention by kernels/cpu/pairwise.cpp."""

import torch
from torch import Tensor

import sancli.ops.pairwise  # noqa: F401 -- the schemas
from sancli.ops.attention import Given, GivenBack
from sancli.ops.cpu.library import kernels
from sancli.ops.layout import inputs, of_one_type, parameter, real_type, sizes, storage, used
from sancli.ops.reference import pairwise as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::pairwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    library = kernels(query, key, value, place, *(x for x in rest if isinstance(x, Tensor)))
    if library is None or not of_one_type(query, key, value):
        return plain.pairwise_attention(query, key, value, place, sign, *given)
    real, groups = real_type(query), len(given.weight2)
    mean1, var1 = used(given.gamma1, given.mean1, real), used(given.gamma1, given.var1, real)
    mean2, var2 = used(given.gamma2, given.mean2, real), used(given.gamma2, given.var2, real)
    out = maps(value, *value.shape[1:])
    logsumexp = maps(value, groups, *value.shape[2:], dtype=real)
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    library.call(
        "san_pairwise_attention", storage(value), *sizes(query, value, groups, given.kernel_size),
        *inputs(query, key, value), parameter(place, real), sign,
        gamma1, beta1, mean1, var1, given.eps1, given.mean1 is None, weight1,
        gamma2, beta2, mean2, var2, given.eps2, given.mean2 is None, weight2, bias2, out, logsumexp,
    )  # fmt: skip
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
    library = kernels(grad, query, key, value, place, *(x for x in rest if isinstance(x, Tensor)))
    if library is None or not of_one_type(grad, query, key, value):
        return plain.pairwise_attention_backward(grad, query, key, value, place, sign, *given)
    real, groups = real_type(query), len(given.weight2)
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    mean1, var1, mean2, var2 = (
        parameter(x, real) for x in (given.mean1, given.var1, given.mean2, given.var2)
    )
    grad_inputs = [maps(x, *x.shape[1:]) for x in (query, key, value)]
    grad_place = torch.empty(place.shape, dtype=real)
    grad_parameters = [torch.empty_like(x) for x in (gamma1, beta1, weight1, gamma2, beta2, weight2)]
    logsumexp = given.kept.to(real, memory_format=torch.channels_last)
    library.call(
        "san_pairwise_attention_backward", storage(value), *sizes(query, value, groups, given.kernel_size),
        *inputs(grad, query, key, value), parameter(place, real), sign,
        gamma1, beta1, mean1, var1, given.eps1, given.batch1, weight1,
        gamma2, beta2, mean2, var2, given.eps2, given.batch2, weight2, bias2,
        logsumexp, *grad_inputs, grad_place, *grad_parameters,
    )  # fmt: skip
    *owned, _ = given.parameters()
    typed = [grad.to(x.dtype) for grad, x in zip(grad_parameters, owned, strict=True)]
    grad_place = grad_place.to(place.dtype).contiguous(memory_format=torch.channels_last)
    return *grad_inputs, grad_place, *typed, torch.zeros_like(given.bias2)  # softmax does not see bias2


implement("pairwise_attention", pairwise_attention, "CPU")
implement("pairwise_attention_backward", pairwise_attention_backward, "CPU")
