"""san::patchwise_attention by kernels/cpu/patchwise.cpp."""

import torch
from torch import Tensor

import sancli.ops.patchwise  # noqa: F401 -- the schemas
from sancli.ops.attention import Given, GivenBack
from sancli.ops.cpu.library import kernels
from sancli.ops.layout import inputs, of_one_type, parameter, real_type, sizes, storage, used
from sancli.ops.reference import patchwise as plain
from sancli.ops.reference.trunk import channels_last
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


def patchwise_attention(
    query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::patchwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    library = kernels(query, key, value, *(x for x in rest if isinstance(x, Tensor)))
    if library is None or not of_one_type(query, key, value):
        return plain.patchwise_attention(query, key, value, *given)
    real, groups = real_type(query), len(given.gamma2)
    batch1, batch2 = given.mean1 is None, given.mean2 is None
    mean1, var1 = used(given.gamma1, given.mean1, real), used(given.gamma1, given.var1, real)
    mean2, var2 = used(given.gamma2, given.mean2, real), used(given.gamma2, given.var2, real)
    out, z = maps(value, *value.shape[1:]), maps(value, groups, *value.shape[2:])
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = (parameter(x, real) for x in given.parameters())
    library.call(
        "san_patchwise_attention", storage(value), *sizes(query, value, groups, given.kernel_size),
        *inputs(query, key, value), gamma1, beta1, mean1, var1, given.eps1, batch1, weight1,
        gamma2, beta2, mean2, var2, given.eps2, batch2, weight2, bias2, out, z,
    )  # fmt: skip
    return out, mean1, var1, mean2, var2, z


def patchwise_attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | bool
) -> tuple[Tensor, ...]:
    """san::patchwise_attention_backward."""
    given = GivenBack(*rest)  # type: ignore[arg-type]  # the schema says which is what
    library = kernels(grad, query, key, value, *(x for x in rest if isinstance(x, Tensor)))
    if library is None or not of_one_type(grad, query, key, value, given.kept):
        return plain.patchwise_attention_backward(grad, query, key, value, *given)
    real, groups = real_type(query), len(given.gamma2)
    owned = [parameter(x, real) for x in given.parameters()]
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = owned
    grad_inputs = [maps(x, *x.shape[1:]) for x in (query, key, value)]
    grad_parameters = [torch.empty_like(x) for x in owned]
    library.call(
        "san_patchwise_attention_backward", storage(value), *sizes(query, value, groups, given.kernel_size),
        channels_last(grad), *inputs(query, key, value),
        gamma1, beta1, given.mean1, given.var1, given.eps1, given.batch1, weight1,
        gamma2, beta2, given.mean2, given.var2, given.eps2, given.batch2, weight2, bias2,
        channels_last(given.kept), *grad_inputs, *grad_parameters,
    )  # fmt: skip
    typed = [grad.to(x.dtype) for grad, x in zip(grad_parameters, given.parameters(), strict=True)]
    return *grad_inputs, *typed


implement("patchwise_attention", patchwise_attention, "CPU")
implement("patchwise_attention_backward", patchwise_attention_backward, "CPU")
