"""Which kernels generate the weights, and why."""

from types import ModuleType

from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.generation import mma, naive, tiled


def choose(key: Tensor, groups: int, kernel_size: int) -> ModuleType:
    """One of the modules beside this one, which all have the same functions."""
    planes, limit = key.shape[1], loader.shared_limit(key.device)
    if min(key.shape[2:]) <= kernel_size // 2:
        return naive  # the border bounces more than once: no square holds all places a pixel is seen from
    if mma.fits(key, groups, kernel_size) and mma.shared(planes, groups, kernel_size) <= limit:
        return mma
    at = tiled.tile(planes, groups)
    if at is not None and tiled.shared(key, at, kernel_size) <= limit:
        return tiled  # fp32 and fp64, and R and G of the first layer, a fraction of a tensor core's product
    return naive  # no vectors of R or G, or a footprint too wide for shared memory
