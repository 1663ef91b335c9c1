"""How fast the operators are: of the bandwidth, against their naive kernels, and against unfold."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from cases import Case, Size, case
from devices import kernels, milliseconds, naive, or_none
from published import aggregate, attend_maps
from subjects import products
from torch import Tensor

from sancli.ops import Norm
from stages import Figures, Settings, in_time, name_of
from stages.machine import best

UNFOLDED = ("aggregation", "patchwise_attention", "pairwise_attention")
"""What has naive kernels too."""
ORDER = (*UNFOLDED, "bn_relu_conv1x1", "bn_relu_pool", "stem")
NAIVE_CALLS = 3


def operators(settings: Settings, until: float) -> Iterator[Figures]:
    """A row for each operator, layer and type, in training with the statistics of the batch."""
    copy_gb_s = next(best(settings, until))["copy_gb_s"]
    for operator, layer, dtype in in_time(
        itertools.product(ORDER, settings.layers, settings.dtypes[:2]), until
    ):
        row = {"operator": operator, "type": name_of(dtype), "layer": list(layer)}
        figures = or_none(timed, operator, layer, dtype, settings, copy_gb_s) or {}
        yield {"copy_gb_s": copy_gb_s, "rows": [row | figures]}


def timed(operator: str, layer: Size, dtype: torch.dtype, settings: Settings, copy_gb_s: float) -> Figures:
    """Milliseconds and share of the bandwidth, forward and backward; and of those it is compared with."""
    one = case(operator, layer, dtype, device=settings.device)
    with kernels(settings.device), products("fp32"):
        found = both_ways(one, settings.device)
        if operator in UNFOLDED:
            with naive():
                slow = or_none(both_ways, one, settings.device, times=NAIVE_CALLS) or {}
            found |= {f"naive_{key}": slow.get(key) for key in ("forward_ms", "backward_ms")}
    for way in ("forward", "backward"):
        gb_s = found[f"{way}_mb"] / found[f"{way}_ms"]
        found[f"{way}_share_of_bandwidth"] = round(gb_s / copy_gb_s, 3)
    if operator in UNFOLDED:
        with products("fp32"):
            wide = or_none(both_ways, unfolded(one), settings.device, times=NAIVE_CALLS) or {}
        found |= {f"unfold_{key}": wide.get(key) for key in ("forward_ms", "backward_ms")}
    return found


def both_ways(one: Case, device: str, times: int = 20) -> Figures:
    """Milliseconds, and the MB that have to be moved at least: each input and each result once."""
    leaves = [x for x in torch.utils._pytree.tree_leaves((one.args, one.options)) if isinstance(x, Tensor)]
    wanted = [x for x in leaves if x.requires_grad]

    def forward() -> Any:
        return one.function(*one.args, **one.options)

    outputs = [x for x in torch.utils._pytree.tree_leaves(forward()) if isinstance(x, Tensor)]
    grad = torch.randn_like(outputs[0])

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(outputs[0], wanted, grad, retain_graph=True)

    forward_ms = milliseconds(no_grad(forward), device, times=times)
    return {
        "forward_ms": round(forward_ms, 4),
        "backward_ms": round(milliseconds(backward, device, times=times), 4),
        "forward_mb": round(megabytes(leaves + outputs), 3),
        "backward_mb": round(megabytes([*leaves, outputs[0], *wanted]), 3),
    }


def no_grad(function: Callable[[], Any]) -> Callable[[], Any]:
    """As it runs in inference: nothing is kept."""

    def run() -> Any:
        with torch.no_grad():
            return function()

    return run


def megabytes(tensors: list[Tensor]) -> float:
    """Of all of them, as many elements as they have."""
    return sum(x.numel() * x.element_size() for x in tensors) / 1e6


def unfolded(one: Case) -> Case:
    """The same numbers through the authors' graph: every footprint in memory."""
    if one.operator == "aggregation":

        def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
            return aggregate(value, weight.transpose(1, 2).flatten(3), kernel_size)

        return one._replace(function=aggregation)

    def attention(
        query: Tensor, key: Tensor, value: Tensor, place: Tensor | None = None, **given: Any
    ) -> Tensor:
        return attend_maps(query, key, value, place, mapping(**given), given["kernel_size"])

    return one._replace(function=attention)


def mapping(
    norm1: Norm, weight1: Tensor, norm2: Norm, weight2: Tensor, bias2: Tensor, **_: Any
) -> Callable[[Tensor], Tensor]:
    """Twice BatchNorm with the statistics of the batch, ReLU and 1x1 convolution, in the type of the maps."""

    def conv_w(x: Tensor) -> Tensor:
        for norm, weight, bias in ((norm1, weight1, None), (norm2, weight2, bias2)):
            x = F.batch_norm(x, None, None, norm.gamma, norm.beta, training=True, eps=norm.eps).relu()
            bias = None if bias is None else bias.to(x.dtype)
            x = F.conv2d(x, weight[:, :, None, None].to(x.dtype), bias)
        return x

    return conv_w
