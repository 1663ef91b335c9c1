"""Weight generation by kernels/generate_mma.cu: 16-bit types, on the tensor cores."""

import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.arrangement import arranged
from sancli.ops.cuda.fragments import fragments
from sancli.ops.cuda.generation.relation import Relation, Seen, by_offset, turned
from sancli.ops.cuda.placement import placed, sizes, squares
from sancli.ops.trunk import maps

SOURCE, SIDE, APART, HALF = "generate_mma.cu", 8, 8, 2
WIDEST = 31
"""Footprint whose columns have a warp each in a block."""
SPLITS = 4
"""Pairs of warps that share the offsets of a square: 8 warps a block."""
BLOCKS = 1024
"""Of the sums over all pixels, about: the shape alone decides how they are cut, so that results repeat."""


def fits(key: Tensor, groups: int, kernel_size: int) -> bool:
    """Whether type, card, R, G and K are the tensor cores'."""
    least = {torch.float16: (7, 5), torch.bfloat16: (8, 0)}.get(key.dtype)
    if least is None or loader.capability(key.device) < least:
        return False
    return key.shape[1] % 16 == 0 and groups % 8 == 0 and kernel_size <= WIDEST


def shared(planes: int, groups: int, kernel_size: int) -> int:
    """Bytes of shared memory of the largest of the kernels."""
    wide, outputs = (SIDE + kernel_size - 1) ** 2, part(groups, 64)
    forward = HALF * (wide + SIDE**2) * (part(planes, 64) + APART)
    added = outputs * SIDE**2 * 4
    return max(forward, added, HALF * (wide * (max(16, outputs) + APART) + 16))


def generate(relation: Relation) -> Tensor:
    """[N, G, H, W]."""
    planes, groups = relation.key.shape[1], len(relation.weight)
    outputs = part(groups, 64)
    z = maps(relation.key, groups, *relation.key.shape[2:])
    types = f"{loader.ctype(z.dtype)}, {relation.kernel_size}, {part(planes, 64)}, {outputs}, {SPLITS}"
    loader.launch(
        SOURCE, f"generate_forward_mma<{types}>",
        (squares(z, SIDE), groups // outputs), (SIDE**2 * SPLITS,),
        *placed(relation.query, 8), *placed(relation.key, 8), relation.norm,
        arranged(relation.weight, z.dtype, _by_offset, planes), z, *sizes(*z.shape[2:], planes, groups),
        shared=shared(planes, groups, relation.kernel_size),
    )  # fmt: skip
    return z


def map_gradient(seen: Seen, grad: Tensor, constant: Tensor | None, linear: Tensor | None) -> Tensor:
    """Of `seen.map`, with constant + linear * map [H, W, R] added."""
    _, planes, groups = seen.sizes
    channels, outputs = part(planes, 32), part(groups, 64)
    warps = part(planes // channels, 4)  # pairs of them
    weight = arranged(seen.weight, grad.dtype, _turned, planes, seen.is_query, outputs)
    out = maps(seen.map, *seen.map.shape[1:])
    types = f"{loader.ctype(out.dtype)}, {seen.kernel_size}, {channels}, {outputs}"
    loader.launch(
        SOURCE, f"generate_backward_map_mma<{types}>",
        (squares(out, SIDE), planes // channels // warps), (SIDE**2 * warps,),
        *placed(grad, 8), *placed(seen.map, 8), seen.norm,
        weight, constant, linear, out,
        *sizes(*out.shape[2:], planes, groups), shared=shared(16, groups, seen.kernel_size),
    )  # fmt: skip
    return out


def sums(seen: Seen, grad: Tensor) -> Tensor:
    """[shares, 2, K * K, G, R]: of grad, and of grad times what is seen, where relu lets it through."""
    (offsets, planes, groups), k = seen.sizes, seen.kernel_size
    outputs = part(groups, 64)
    channels = part(planes, 16 if outputs == 64 else 32)
    rows, total = k * (planes // channels) * (groups // outputs), squares(grad, SIDE)
    shares = min(total, max(1, BLOCKS // rows))
    out = seen.norm.new_empty(shares, 2, offsets, groups, planes)
    pixels = SIDE * (SIDE + k - 1) * (channels + APART) + SIDE**2 * (outputs + APART)
    loader.launch(
        SOURCE, f"generate_backward_sums_mma<{loader.ctype(grad.dtype)}, {k}, {channels}, {outputs}>",
        (shares, rows), (32 * k,),
        *placed(grad, 8), *placed(seen.map, 8), seen.norm, out,
        *sizes(total, *grad.shape[2:], planes, groups), shared=HALF * pixels,
    )  # fmt: skip
    return out


def _by_offset(weight: Tensor, planes: int) -> Tensor:
    return fragments(by_offset(weight, planes))


def _turned(weight: Tensor, planes: int, is_query: bool, outputs: int) -> Tensor:
    """Those of `outputs` groups at a time."""
    return fragments(turned(weight, planes, is_query).unflatten(1, (-1, outputs)))


def part(channels: int, most: int) -> int:
    """The largest power of two up to `most` that divides the channels."""
    return min(channels & -channels, most)
