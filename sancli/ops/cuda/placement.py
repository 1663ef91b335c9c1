"""Maps as the tiled kernels take them: channels last, and aligned to the vectors that they are moved in."""

import numpy as np
import torch
from torch import Tensor

from sancli.ops.layout import laid_out


def placed(x: Tensor, channels: int) -> tuple[Tensor, np.int32]:
    """`x` and its stride from pixel to pixel; a copy where vectors of `channels` would be misaligned."""
    vector = min(16, channels * x.element_size())
    x, stride = laid_out(x)
    if x.data_ptr() % vector or stride * x.element_size() % vector:
        x, stride = x.clone(memory_format=torch.channels_last), x.shape[1]
    return x, np.int32(stride)


def sizes(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """As the kernels take them."""
    return np.array(values, np.int32)


def squares(x: Tensor, side: int) -> int:
    """How many squares of side x side pixels cover all images of `x` [N, C, H, W]."""
    images, _, height, width = x.shape
    return images * -(-height // side) * -(-width // side)
