"""norm1 of patchwise attention by kernels/relation_norm.cu: statistics, folding, and their way back.

In a handful of launches: as torch's operations (sancli/ops/statistics.py) there were over a hundred a layer.
Shapes as in relation.py.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.generation.relation import Relation
from sancli.ops.cuda.placement import placed, sizes
from sancli.ops.layout import parameter
from sancli.ops.norm import Affine, accumulation_type

SOURCE, THREADS, FOLDING = "relation_norm.cu", 256, 512


class Gradients(NamedTuple):
    """What the sums over all pixels come to."""

    gamma: Tensor
    beta: Tensor
    weight: Tensor
    statistics: Tensor
    """[2, R * O]: of mean and variance."""


def statistics(
    query: Tensor, key: Tensor, mean: Tensor | None, var: Tensor | None, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and variance [R * O], copied; or room for the batch's, and the moments they are made of."""
    real = accumulation_type(key.dtype)
    if mean is not None and var is not None:
        return mean.to(real, copy=True), var.to(real, copy=True), None
    images, planes, height, width = key.shape
    moments = key.new_empty(2, height * width, planes, 2, dtype=real)
    loader.launch(
        SOURCE, f"relation_moments<{loader.ctype(key.dtype)}>",
        (-(-height * width * planes // THREADS), 2), (THREADS,),
        *placed(key, 1), *placed(query, 1), moments, *sizes(images, height * width, planes),
    )  # fmt: skip
    mean, var = (moments.new_empty(planes * (kernel_size**2 + 1)) for _ in range(2))
    return mean, var, moments


def fold(norm: Affine, key: Tensor, moments: Tensor | None, kernel_size: int) -> Tensor:
    """[O, R, 2]: scale and shift; mean and variance too, where there are moments."""
    _, planes, height, width = key.shape
    mean, real = norm.mean, norm.mean.dtype
    out = mean.new_empty(kernel_size**2 + 1, planes, 2)
    lines = None if moments is None else mean.new_empty(2, planes, 2, kernel_size, width)
    loader.launch(
        SOURCE, f"relation_fold<{loader.ctype(real)}>", (planes, 2), (FOLDING,),
        moments, parameter(norm.gamma, real), parameter(norm.beta, real), mean, norm.var, out, lines,
        _number(norm.eps, real), *sizes(height, width, planes, kernel_size),
        shared=FOLDING // 32 * real.itemsize,
    )  # fmt: skip
    return out


def gradients(relation: Relation, norm: Affine, key_sums: Tensor, query_sums: Tensor) -> Gradients:
    """From the sums of key [2, K * K, G, R] and query [2, 1, G, R]."""
    (offsets, planes, _), groups, real = relation.norm.shape, len(relation.weight), relation.norm.dtype
    weight, statistics = (relation.norm.new_empty(rows, offsets * planes) for rows in (groups, 2))
    gamma, beta = (relation.norm.new_empty(offsets * planes) for _ in range(2))
    loader.launch(
        SOURCE, f"relation_backward_parameters<{loader.ctype(real)}>",
        (-(-offsets * planes // THREADS),), (THREADS,),
        key_sums, query_sums, relation.weight, relation.norm, norm.mean, norm.var,
        weight, gamma, beta, statistics, _number(norm.eps, real),
        *sizes(planes, groups, relation.kernel_size),
    )  # fmt: skip
    return Gradients(gamma, beta, weight, statistics)


def fields(relation: Relation, mean: Tensor, statistics: Tensor) -> Tensor:
    """[2, 2, H * W, R]: of key and of query, what their gradients take through the statistics."""
    images, planes, height, width = relation.key.shape
    out = mean.new_empty(2, 2, height * width, planes)
    loader.launch(
        SOURCE, f"relation_backward_fields<{loader.ctype(mean.dtype)}>",
        (-(-height * width * planes // THREADS), 2), (THREADS,),
        statistics, mean, out, _number(images * height * width, mean.dtype),
        *sizes(height, width, planes, relation.kernel_size),
    )  # fmt: skip
    return out


def _number(x: float, dtype: torch.dtype) -> np.generic:
    return np.float64(x) if dtype == torch.float64 else np.float32(x)
