"""The operators of inference as a few operations that other programs know: what an exported network is of.

Formulas over whole maps, for any number of images: nothing is tiled and nothing is written in place. The
statistics of the norms are given.

Shapes: N images, C channels, R relation channels, M value channels, G weight channels, K footprint side, H x
W pixels, P = H * W.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sancli.ops.attention import Given
from sancli.ops.reference.windows import reflected


def footprints(maps: Tensor, kernel_size: int) -> Tensor:
    """What lies around each pixel, [N, C, K * K, P], of maps [N, C, H, W]; the border is reflected."""
    height, width = maps.shape[2:]
    lines = maps.index_select(2, _shown(height, kernel_size)).index_select(3, _shown(width, kernel_size))
    windows: Tensor = lines.unflatten(3, (kernel_size, width)).unflatten(2, (kernel_size, height))
    around = windows.permute(0, 1, 2, 4, 3, 5)  # [N, C, K, K, H, W]
    return around.flatten(4).flatten(2, 3)


def _shown(size: int, kernel_size: int) -> Tensor:
    """For each step of the footprint the line that is seen from each line of the map, [K * size]."""
    steps = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return torch.tensor([reflected(line + step, size) for step in steps for line in range(size)])


def aggregation(value: Tensor, weight: Tensor, kernel_size: int) -> Tensor:
    """san::aggregation."""
    groups, size = weight.shape[2], value.shape[2:]
    windows = footprints(value, kernel_size).unflatten(1, (-1, groups))  # [N, M / G, G, K * K, P]
    shares = weight.flatten(3).transpose(1, 2).unsqueeze(1)  # [N, 1, G, K * K, P]
    out: Tensor = (windows * shares).sum(3).flatten(1, 2).unflatten(2, size)
    return out


def norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """san::norm_relu."""
    return F.relu(F.batch_norm(x, mean, var, gamma, beta, training=False, eps=eps))


def bn_relu_conv1x1(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_conv1x1."""
    return F.conv2d(norm_relu(x, gamma, beta, mean, var, eps), weight, bias), mean, var


def bn_relu_pool(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """san::bn_relu_pool."""
    return F.max_pool2d(norm_relu(x, gamma, beta, mean, var, eps), 2), mean, var


def stem(
    image: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """san::stem."""
    return bn_relu_pool(F.conv2d(image, weight[:, :, None, None]), gamma, beta, mean, var, eps)


def patchwise_attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """san::patchwise_attention."""
    given = Given(*rest)
    around = footprints(key, given.kernel_size).flatten(1, 2)
    relation = torch.cat([query.flatten(2), around], 1)  # [N, R * (K * K + 1), P]
    hidden, weights = _mapped(relation, given)  # [N, G, P] and [N, G * K * K, P]
    groups, size = given.weight1.shape[0], value.shape[2:]
    shares = weights.unflatten(1, (groups, -1)).transpose(1, 2).unflatten(3, size)
    out = aggregation(value, shares, given.kernel_size)
    return out, *_statistics(given), hidden.unflatten(2, size)


def pairwise_attention(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor, sign: int, *rest: Any
) -> tuple[Tensor, ...]:
    """san::pairwise_attention."""
    given = Given(*rest)
    size, offsets = value.shape[2:], given.kernel_size**2
    compared = query.flatten(2).unsqueeze(2) + sign * footprints(key, given.kernel_size)
    moved = place.flatten(2).unsqueeze(2) - footprints(place, given.kernel_size)  # [1, 2, K * K, P]
    relation = torch.cat([compared, moved.expand(query.shape[0], -1, -1, -1)], 1).flatten(2)
    _, logits = _mapped(relation, given)  # [N, G, K * K * P]
    logits = logits.unflatten(2, (offsets, -1))
    shares = logits.softmax(2).transpose(1, 2).unflatten(3, size)
    out = aggregation(value, shares, given.kernel_size)
    return out, *_statistics(given), logits.logsumexp(2).unflatten(2, size)


def _mapped(relation: Tensor, given: Given) -> tuple[Tensor, Tensor]:
    """`conv_w` of a relation [N, C, L]: its hidden layer before the norm, and its output."""
    assert given.mean1 is not None
    assert given.var1 is not None
    assert given.mean2 is not None
    assert given.var2 is not None
    related = norm_relu(relation, given.gamma1, given.beta1, given.mean1, given.var1, given.eps1)
    hidden = F.conv1d(related, given.weight1[:, :, None])
    normed = norm_relu(hidden, given.gamma2, given.beta2, given.mean2, given.var2, given.eps2)
    return hidden, F.conv1d(normed, given.weight2[:, :, None], given.bias2)


def _statistics(given: Given) -> tuple[Any, ...]:
    return given.mean1, given.var1, given.mean2, given.var2


FUNCTIONS = (
    aggregation,
    norm_relu,
    bn_relu_conv1x1,
    bn_relu_pool,
    stem,
    patchwise_attention,
    pairwise_attention,
)


@contextmanager
def portable_operators() -> Iterator[None]:
    """In the block the operators of inference are these formulas, and a network is traced as they stand."""
    kept = {function.__name__: getattr(torch.ops.san, function.__name__) for function in FUNCTIONS}
    try:
        for function in FUNCTIONS:
            setattr(torch.ops.san, function.__name__, function)
        yield
    finally:
        for name, operator in kept.items():
            setattr(torch.ops.san, name, operator)
