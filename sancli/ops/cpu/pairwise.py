"""san::pairwise_attention by kernels/cpu/pairwise.cpp."""

from typing import NamedTuple

import torch
from torch import Tensor

from sancli.ops.cpu.library import kernels
from sancli.ops.cpu.maps import laid_out, parameter, real_type, storage
from sancli.ops.reference import pairwise as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


class Given(NamedTuple):
    """What the operator is given behind the maps and the sign, in the order of its schema."""

    gamma1: Tensor
    beta1: Tensor
    mean1: Tensor | None
    var1: Tensor | None
    eps1: float
    weight1: Tensor
    gamma2: Tensor
    beta2: Tensor
    mean2: Tensor | None
    var2: Tensor | None
    eps2: float
    weight2: Tensor
    bias2: Tensor
    kernel_size: int


class GivenBack(NamedTuple):
    """The same in the backward pass: statistics are known, and `batch` says whose they were."""

    gamma1: Tensor
    beta1: Tensor
    mean1: Tensor
    var1: Tensor
    eps1: float
    batch1: bool
    weight1: Tensor
    gamma2: Tensor
    beta2: Tensor
    mean2: Tensor
    var2: Tensor
    eps2: float
    batch2: bool
    weight2: Tensor
    bias2: Tensor
    logsumexp: Tensor
    kernel_size: int


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::pairwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    library = kernels(query, key, value, place, *(x for x in rest if isinstance(x, Tensor)))
    if library is None or not query.dtype == key.dtype == value.dtype:
        return plain.pairwise_attention(query, key, value, place, sign, *given)
    real, groups = real_type(query), len(given.weight2)
    mean1, var1 = used(given.gamma1, given.mean1, real), used(given.gamma1, given.var1, real)
    mean2, var2 = used(given.gamma2, given.mean2, real), used(given.gamma2, given.var2, real)
    out = maps(value, *value.shape[1:])
    logsumexp = maps(value, groups, *value.shape[2:]).to(real)
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = parameters(given, real)
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
    if library is None or not grad.dtype == query.dtype == key.dtype == value.dtype:
        return plain.pairwise_attention_backward(grad, query, key, value, place, sign, *given)
    real, groups = real_type(query), len(given.weight2)
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = parameters(given, real)
    mean1, var1, mean2, var2 = (
        parameter(x, real) for x in (given.mean1, given.var1, given.mean2, given.var2)
    )
    grad_inputs = [maps(x, *x.shape[1:]) for x in (query, key, value)]
    grad_place = torch.empty(place.shape, dtype=real)
    grad_parameters = [torch.empty_like(x) for x in (gamma1, beta1, weight1, gamma2, beta2, weight2)]
    logsumexp = given.logsumexp.to(real, memory_format=torch.channels_last)
    library.call(
        "san_pairwise_attention_backward", storage(value), *sizes(query, value, groups, given.kernel_size),
        *inputs(grad, query, key, value), parameter(place, real), sign,
        gamma1, beta1, mean1, var1, given.eps1, given.batch1, weight1,
        gamma2, beta2, mean2, var2, given.eps2, given.batch2, weight2, bias2,
        logsumexp, *grad_inputs, grad_place, *grad_parameters,
    )  # fmt: skip
    shapes = given.gamma1, given.beta1, given.weight1, given.gamma2, given.beta2, given.weight2
    typed = [grad.to(x.dtype) for grad, x in zip(grad_parameters, shapes, strict=True)]
    grad_place = grad_place.to(place.dtype).contiguous(memory_format=torch.channels_last)
    return *grad_inputs, grad_place, *typed, torch.zeros_like(given.bias2)  # softmax does not see bias2


def sizes(query: Tensor, value: Tensor, groups: int, kernel_size: int) -> tuple[int, ...]:
    """Images, height, width, K, R, G, M."""
    images, planes, height, width = query.shape
    return images, height, width, kernel_size, planes, groups, value.shape[1]


def inputs(*maps: Tensor) -> list[Tensor | int]:
    """Each map and its stride from pixel to pixel."""
    return [part for x in maps for part in laid_out(x)]


def parameters(given: Given | GivenBack, real: torch.dtype) -> list[Tensor]:
    """All but the statistics, of the type that is computed in."""
    owned = given.gamma1, given.beta1, given.weight1, given.gamma2, given.beta2, given.weight2, given.bias2
    return [parameter(x, real) for x in owned]


def used(gamma: Tensor, statistic: Tensor | None, real: torch.dtype) -> Tensor:
    """The statistic that a norm uses: a copy of the one given, or room for that of the batch."""
    return torch.empty_like(gamma, dtype=real) if statistic is None else statistic.to(real, copy=True)


implement("pairwise_attention", pairwise_attention, "CPU")
implement("pairwise_attention_backward", pairwise_attention_backward, "CPU")
