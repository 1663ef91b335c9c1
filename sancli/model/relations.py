"""The relation functions of the paper: how two pixels, or a whole footprint, are compared (section 3).

RELATIONS lists them; the first of each kind is that of the published networks. Subtraction and summation
(pairwise) and concatenation (patchwise) are operators; the others are plain PyTorch on `ops.aggregation`,
made offset by offset and made anew in backward, so that no footprint is kept. To add one, write a function
and name it here.

Shapes: N images, R relation channels, G weight channels, K footprint side, H x W pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sancli.model.trunk import norm_of, pixels, track
from sancli.ops import Norm, reflected


class PairwiseRelation(NamedTuple):
    """Compares a pixel with another: maps [N, R, H, W] to [N, planes(R), H, W]."""

    planes: Callable[[int], int]
    compare: Callable[[Tensor, Tensor], Tensor]


def _subtraction(query: Tensor, key: Tensor) -> Tensor:
    return query - key


def _summation(query: Tensor, key: Tensor) -> Tensor:
    return query + key


def _concatenation(query: Tensor, key: Tensor) -> Tensor:
    return torch.cat([query, key], 1)


def _hadamard(query: Tensor, key: Tensor) -> Tensor:
    return query * key


def _dot_product(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).sum(1, keepdim=True)


PAIRWISE = {
    "subtraction": PairwiseRelation(lambda planes: planes, _subtraction),
    "summation": PairwiseRelation(lambda planes: planes, _summation),
    "concatenation": PairwiseRelation(lambda planes: 2 * planes, _concatenation),
    "hadamard": PairwiseRelation(lambda planes: planes, _hadamard),
    "dot-product": PairwiseRelation(lambda planes: 1, _dot_product),
}


def _star_product(query: Tensor, kernel_size: int) -> list[Tensor]:
    return [query]


def _clique_product(query: Tensor, kernel_size: int) -> list[Tensor]:
    return shifted(query, kernel_size)


class PatchwiseRelation(NamedTuple):
    """Compares all pixels of a footprint: the key at each offset, times each map that `with_` gives.

    The relation has K * K channels for each of those, `planes(K)` together.
    """

    planes: Callable[[int], int]
    with_: Callable[[Tensor, int], list[Tensor]]


PATCHWISE = {
    "star-product": PatchwiseRelation(lambda kernel_size: kernel_size**2, _star_product),
    "clique-product": PatchwiseRelation(lambda kernel_size: kernel_size**4, _clique_product),
}

RELATIONS = {"pairwise": tuple(PAIRWISE), "patchwise": ("concatenation", *PATCHWISE)}


def shifted(x: Tensor, kernel_size: int) -> list[Tensor]:
    """`x` as seen from each offset of the footprint, K * K views [N, C, H, W]; the border is reflected."""
    (height, width), reach = x.shape[2:], kernel_size // 2
    rows, columns = ([reflected(i, size) for i in range(-reach, size + reach)] for size in (height, width))
    padded = x[:, :, rows][..., columns]
    corners = [divmod(offset, kernel_size) for offset in range(kernel_size**2)]
    return [padded[:, :, y : y + height, x : x + width] for y, x in corners]


def pairwise_weights(
    relation: PairwiseRelation,
    query: Tensor,
    key: Tensor,
    place: Tensor,
    *,
    conv_w: nn.Sequential,
    kernel_size: int,
) -> Tensor:
    """Weights [N, K * K, G, H, W]: conv_w of the relation at each offset, then a softmax over the offsets.

    Both norms see all offsets at once, so their statistics are gathered first, one offset at a time.
    """
    norm1, _, conv1, norm2, _, conv2 = conv_w
    assert isinstance(norm1, nn.BatchNorm2d)
    assert isinstance(norm2, nn.BatchNorm2d)
    assert isinstance(conv1, nn.Conv2d)
    assert isinstance(conv2, nn.Conv2d)
    pairs = list(zip(shifted(key, kernel_size), shifted(place, kernel_size), strict=True))

    def related(key: Tensor, there: Tensor) -> Tensor:
        position = (place - there).expand(query.shape[0], -1, -1, -1)
        return torch.cat([relation.compare(query, key), position], 1)

    def each(function: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        return [checkpoint(function, *pair, use_reentrant=False) for pair in pairs]

    def hidden(key: Tensor, there: Tensor) -> Tensor:
        return F.conv2d(F.relu(normalised(related(key, there), held1)), conv1.weight)

    def logits(key: Tensor, there: Tensor) -> Tensor:
        return F.conv2d(F.relu(normalised(hidden(key, there), held2)), conv2.weight, conv2.bias)

    count = pixels(query) * kernel_size**2
    held1 = gathered(norm1, count, lambda: each(lambda *pair: moments(related(*pair))))
    held2 = gathered(norm2, count, lambda: each(lambda *pair: moments(hidden(*pair))))
    return torch.stack(each(logits), 1).softmax(1)


def moments(x: Tensor) -> Tensor:
    """Mean and variance of each channel, [2, C]."""
    var, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), (0, 2, 3), correction=0)
    return torch.stack([mean, var])


def gathered(norm: nn.BatchNorm2d, count: int, each: Callable[[], list[Tensor]]) -> Norm:
    """`norm` with the statistics to use: its own, or those over all offsets, which it then tracks."""
    held = norm_of(norm, count)
    if held.mean is not None:
        return held
    means, variances = torch.stack(each()).unbind(1)  # [K * K, C]
    mean = means.mean(0)
    var = variances.mean(0) + (means - mean).square().mean(0)
    track(norm, (mean, var), count)
    return held._replace(mean=mean, var=var)


def normalised(x: Tensor, norm: Norm) -> Tensor:
    """(x - mean) / sqrt(var + eps) * gamma + beta, differentiable in mean and var too."""
    assert norm.mean is not None
    assert norm.var is not None
    scale = norm.gamma * torch.rsqrt(norm.var + norm.eps)
    shift = norm.beta - norm.mean * scale
    return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def patchwise_weights(
    relation: PatchwiseRelation, query: Tensor, key: Tensor, *, conv_w: nn.Sequential, kernel_size: int
) -> Tensor:
    """Weights [N, K * K, G, H, W]: conv_w of the relation, whose first norm knows each channel by itself."""
    norm, conv, count = conv_w[0], conv_w[2], pixels(query)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(conv, nn.Conv2d)
    held, keys, offsets = norm_of(norm, count), shifted(key, kernel_size), kernel_size**2

    def piece(other: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        products = torch.stack([(other * key).sum(1) for key in keys], 1)  # [N, K * K, H, W]
        if held.mean is None or held.var is None:
            statistics = moments(products)
        else:
            statistics = torch.stack([held.mean[part], held.var[part]])
        own = Norm(held.gamma[part], held.beta[part], statistics[0], statistics[1], held.eps)
        y = normalised(products, own)
        return F.conv2d(F.relu(y), conv.weight[:, part]), statistics

    others = relation.with_(query, kernel_size)
    parts = [slice(i * offsets, (i + 1) * offsets) for i in range(len(others))]
    pieces = [checkpoint(piece, *pair, use_reentrant=False) for pair in zip(others, parts, strict=True)]
    hidden, statistics = zip(*pieces, strict=True)
    mean, var = torch.cat(statistics, 1)
    track(norm, (mean, var), count)
    weights: Tensor = conv_w[3:](sum(hidden[1:], hidden[0]))
    groups = weights.shape[1] // offsets
    return weights.view(weights.shape[0], groups, offsets, *weights.shape[2:]).transpose(1, 2)
