"""Which kernels generate the weights, and why."""

from types import ModuleType

from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.generation import naive, tiled


def choose(key: Tensor, groups: int, kernel_size: int) -> ModuleType:
    """One of the modules beside this one; they have the same functions."""
    planes = key.shape[1]
    if min(key.shape[2:]) <= kernel_size // 2:
        return naive  # the border bounces more than once: no square holds all places a pixel is seen from
    at = tiled.tile(planes, groups)
    if at is None or tiled.shared(key, at, kernel_size) > loader.shared_limit(key.device):
        return naive  # R or G cannot be cut into vectors, or a square with its border is larger than shared memory
    return tiled
