"""Tensors as kernels take them, on a CPU and on a GPU.

Maps are channels last with one stride from pixel to pixel: a slice of the channels of a wider tensor is one,
and needs no copy.
"""

import torch
from torch import Tensor

from sancli.ops.norm import Affine, Norm, accumulation_type


def laid_out(x: Tensor) -> tuple[Tensor, int]:
    """`x` [N, C, H, W] channels last, itself where it is, and the stride from pixel to pixel."""
    stride = _pixel_stride(x)
    if stride is not None:
        return x, stride
    return x.contiguous(memory_format=torch.channels_last), x.shape[1]


def _pixel_stride(x: Tensor) -> int | None:
    """None where there is no single one. The stride of an axis of size 1 means nothing."""
    images, channels, height, width = x.shape
    axes = [(width, x.stride(3), 1), (height, x.stride(2), width), (images, x.stride(0), height * width)]
    steps = [(stride, pixels) for size, stride, pixels in axes if size > 1]
    pixel = steps[0][0] // steps[0][1] if steps else channels
    if pixel < channels or (channels > 1 and x.stride(1) != 1):
        return None
    return pixel if all(stride == pixel * pixels for stride, pixels in steps) else None


def parameter(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` as numbers in a row, of the type that the kernels compute in."""
    if x.dtype == dtype and x.is_contiguous():  # a tenth of the time of asking torch to change nothing
        return x
    return x.to(dtype).contiguous()


def real_type(x: Tensor) -> torch.dtype:
    """The type that the kernels compute maps like `x` in."""
    return accumulation_type(x.dtype)


def storage(x: Tensor) -> int:
    """How interface.h calls the type of `x` in memory: 0 computed in as it is, 1 bfloat16."""
    return int(x.dtype == torch.bfloat16)


def used(gamma: Tensor, statistic: Tensor | None, real: torch.dtype) -> Tensor:
    """The statistic that a norm uses: a copy of the one given, or room for that of the batch."""
    return torch.empty_like(gamma, dtype=real) if statistic is None else statistic.to(real, copy=True)


def with_room(norm: Norm, real: torch.dtype) -> Affine:
    """The norm with the statistics that it uses, as `used` has them."""
    mean, var = (used(norm.gamma, statistic, real) for statistic in (norm.mean, norm.var))
    return norm.known(mean, var)


def of_one_type(*maps: Tensor) -> bool:
    """Whether one `storage` can describe all of them."""
    return len({x.dtype for x in maps}) == 1


def sizes(query: Tensor, value: Tensor, groups: int, kernel_size: int) -> tuple[int, ...]:
    """What attention is told of its maps: images, height, width, K, R, G, M."""
    images, planes, height, width = query.shape
    return images, height, width, kernel_size, planes, groups, value.shape[1]


def inputs(*maps: Tensor) -> list[Tensor | int]:
    """Each map and its stride from pixel to pixel."""
    return [part for x in maps for part in laid_out(x)]
