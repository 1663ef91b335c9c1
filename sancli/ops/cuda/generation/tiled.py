"""Weight generation by kernels/generate_tiled.cu: every type, on the ordinary units."""

from typing import NamedTuple

from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.arrangement import arranged
from sancli.ops.cuda.generation.relation import Relation, Seen, by_offset, turned
from sancli.ops.cuda.placement import placed, sizes, squares
from sancli.ops.norm import accumulation_type
from sancli.ops.trunk import maps

SOURCE = "generate_tiled.cu"
BLOCKS, THREADS = 1024, 192
"""Of the sums over all pixels, about: the shape alone decides how they are cut, so that results repeat."""


class Tile(NamedTuple):
    """What a block works on at a time."""

    channels: int
    outputs: int
    side: int


def tile(planes: int, groups: int) -> Tile | None:
    """None where R or G have no tile."""
    if planes % 4 or groups % 2:
        return None
    channels, outputs = 4 if planes % 16 else 16, 2 if groups % 8 else 8
    return Tile(channels, outputs, 16 if channels == 4 else 8)


def shared(like: Tensor, at: Tile, kernel_size: int) -> int:
    """Bytes of shared memory of the largest of the kernels."""
    size = accumulation_type(like.dtype).itemsize
    pixels = (at.side + kernel_size - 1) ** 2
    return size * max((pixels + at.side**2) * _pitch(at.channels, size), pixels * _pitch(at.outputs, size))


def _pitch(channels: int, size: int) -> int:
    units = -(-channels * size // 16)
    return (units | 1) * 16 // size


def generate(relation: Relation) -> Tensor:
    """[N, G, H, W]."""
    planes, groups = relation.key.shape[1], len(relation.weight)
    weight = arranged(relation.weight, relation.norm.dtype, by_offset, planes)
    at = _tile(planes, groups)
    z = maps(relation.key, groups, *relation.key.shape[2:])
    loader.launch(
        SOURCE, f"generate_forward_tiled<{_types(z, relation.kernel_size, at)}>",
        (squares(z, at.side), groups // at.outputs), (at.side**2 // 2,),
        *placed(relation.query, at.channels), *placed(relation.key, at.channels),
        relation.norm, weight, z,
        *sizes(*z.shape[2:], planes, groups), shared=shared(z, at, relation.kernel_size),
    )  # fmt: skip
    return z


def map_gradient(seen: Seen, grad: Tensor, constant: Tensor | None, linear: Tensor | None) -> Tensor:
    """Of `seen.map`, with constant + linear * map [H, W, R] added."""
    _, planes, groups = seen.sizes
    weight = arranged(seen.weight, seen.norm.dtype, turned, planes, seen.is_query)
    at = _tile(planes, groups)
    at_once = at._replace(channels=min(at.channels, 8))  # of these a thread keeps three sets
    out = maps(seen.map, *seen.map.shape[1:])
    loader.launch(
        SOURCE, f"generate_backward_map_tiled<{_types(out, seen.kernel_size, at_once)}>",
        (squares(out, at.side), planes // at_once.channels), (at.side**2 // 2,),
        *placed(grad, at.outputs), *placed(seen.map, at_once.channels), seen.norm,
        weight, constant, linear, out,
        *sizes(*out.shape[2:], planes, groups), shared=shared(out, at, seen.kernel_size),
    )  # fmt: skip
    return out


def sums(seen: Seen, grad: Tensor) -> Tensor:
    """[shares, 2, K * K, G, R]: of grad, and of grad times what is seen, where relu lets it through."""
    offsets, planes, groups = seen.sizes
    at, k = _tile(planes, groups), seen.kernel_size
    rows, lanes = k * (planes // at.channels) * (groups // at.outputs), max(1, THREADS // (k * at.channels))
    total = squares(grad, at.side)
    shares = min(total, max(1, BLOCKS // rows))
    out = seen.norm.new_empty(shares, 2, offsets, groups, planes)
    pixels = at.side * (at.side + k - 1) * at.channels + at.side**2 * at.outputs
    loader.launch(
        SOURCE, f"generate_backward_sums_tiled<{_types(grad, k, at)}, {lanes}>",
        (shares, rows), (k * at.channels * lanes,),
        *placed(grad, at.outputs), *placed(seen.map, at.channels), seen.norm, out,
        *sizes(total, *grad.shape[2:], planes, groups), shared=pixels * out.element_size(),
    )  # fmt: skip
    return out


def _tile(planes: int, groups: int) -> Tile:
    at = tile(planes, groups)
    assert at is not None  # choose() has seen to it
    return at


def _types(like: Tensor, kernel_size: int, at: Tile) -> str:
    return f"{loader.ctype(like.dtype)}, {kernel_size}, {at.channels}, {at.outputs}, {at.side}"
