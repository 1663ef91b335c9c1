"""san::patchwise_attention by kernels/cpu/patchwise.cpp."""

from typing import NamedTuple

import torch
from torch import Tensor

from sancli.ops.cpu.library import kernels
from sancli.ops.cpu.maps import laid_out, parameter, real_type, storage
from sancli.ops.reference import patchwise as plain
from sancli.ops.registry import implement
from sancli.ops.trunk import maps


class Given(NamedTuple):
    """What the operator is given behind query, key and value, in the order of its schema."""

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
    z: Tensor
    kernel_size: int


def patchwise_attention(
    query: Tensor, key: Tensor, value: Tensor, *rest: Tensor | float | None
) -> tuple[Tensor, ...]:
    """san::patchwise_attention."""
    given = Given(*rest)  # type: ignore[arg-type]  # the schema says which is what
    library = kernels(query, key, value, *(x for x in rest if isinstance(x, Tensor)))
    if library is None:
        return plain.patchwise_attention(query, key, value, *given)
    real, groups = real_type(query), len(given.gamma2)
    batch1, batch2 = given.mean1 is None, given.mean2 is None
    mean1, var1 = used(given.gamma1, given.mean1, real), used(given.gamma1, given.var1, real)
    mean2, var2 = used(given.gamma2, given.mean2, real), used(given.gamma2, given.var2, real)
    out, z = maps(value, *value.shape[1:]), maps(value, groups, *value.shape[2:])
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = parameters(given, real)
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
    if library is None:
        return plain.patchwise_attention_backward(grad, query, key, value, *given)
    real, groups = real_type(query), len(given.gamma2)
    gamma1, beta1, weight1, gamma2, beta2, weight2, bias2 = owned = parameters(given, real)
    grad_inputs = [maps(x, *x.shape[1:]) for x in (query, key, value)]
    grad_parameters = [torch.empty_like(x) for x in owned]
    library.call(
        "san_patchwise_attention_backward", storage(value), *sizes(query, value, groups, given.kernel_size),
        contiguous(grad), *inputs(query, key, value),
        gamma1, beta1, given.mean1, given.var1, given.eps1, given.batch1, weight1,
        gamma2, beta2, given.mean2, given.var2, given.eps2, given.batch2, weight2, bias2,
        contiguous(given.z), *grad_inputs, *grad_parameters,
    )  # fmt: skip
    shapes = given.gamma1, given.beta1, given.weight1, given.gamma2, given.beta2, given.weight2, given.bias2
    typed = [grad.to(x.dtype) for grad, x in zip(grad_parameters, shapes, strict=True)]
    return *grad_inputs, *typed


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


def contiguous(x: Tensor) -> Tensor:
    """Channels last, and nothing between the pixels."""
    return x.contiguous(memory_format=torch.channels_last)


implement("patchwise_attention", patchwise_attention, "CPU")
implement("patchwise_attention_backward", patchwise_attention_backward, "CPU")
