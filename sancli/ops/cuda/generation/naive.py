"""Weight generation by kernels/generate.cu: any size, one thread a number."""

import numpy as np
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.arrangement import arranged
from sancli.ops.cuda.generation.relation import Relation, Seen, by_offset, turned
from sancli.ops.cuda.placement import placed, sizes
from sancli.ops.trunk import maps

SOURCE, THREADS = "generate.cu", 256


def generate(relation: Relation) -> Tensor:
    """[N, G, H, W]."""
    planes, groups = relation.key.shape[1], len(relation.weight)
    weight = arranged(relation.weight, relation.norm.dtype, by_offset, planes)
    z = maps(relation.key, groups, *relation.key.shape[2:])
    loader.launch(
        SOURCE, f"generate_forward_naive<{loader.ctype(z.dtype)}>", (-(-z.numel() // THREADS),), (THREADS,),
        *placed(relation.query, 1), *placed(relation.key, 1), relation.norm, weight, z,
        *sizes(*z.shape[2:], relation.kernel_size, planes, groups), np.int64(z.numel()),
    )  # fmt: skip
    return z


def map_gradient(seen: Seen, grad: Tensor, constant: Tensor | None, linear: Tensor | None) -> Tensor:
    """Of `seen.map`, with constant + linear * map [H, W, R] added."""
    _, planes, groups = seen.sizes
    weight = arranged(seen.weight, seen.norm.dtype, turned, planes, seen.is_query)
    out = maps(seen.map, *seen.map.shape[1:])
    loader.launch(
        SOURCE, f"generate_backward_map_naive<{loader.ctype(out.dtype)}>",
        (-(-out.numel() // THREADS),), (THREADS,),
        *placed(grad, 1), *placed(seen.map, 1), seen.norm, weight,
        constant, linear, out,
        *sizes(*out.shape[2:], seen.kernel_size, planes, groups), np.int64(out.numel()),
    )  # fmt: skip
    return out


def sums(seen: Seen, grad: Tensor) -> Tensor:
    """[shares, 2, K * K, G, R]: of grad, and of grad times what is seen, where relu lets it through."""
    offsets, planes, groups = seen.sizes
    images, _, height, width = grad.shape
    shares, total = min(images, 64), offsets * planes * groups
    out = seen.norm.new_empty(shares, 2, offsets, groups, planes)
    loader.launch(
        SOURCE, f"generate_backward_sums_naive<{loader.ctype(grad.dtype)}>",
        (-(-total // THREADS), shares), (THREADS,),
        *placed(grad, 1), *placed(seen.map, 1), seen.norm, out,
        *sizes(images, height, width, seen.kernel_size, planes, groups),
    )  # fmt: skip
    return out
