"""Matrices laid out as a warp's lanes hold them in a product on the tensor cores: mma.m16n8k16."""

import torch.nn.functional as F
from torch import Tensor


def fragments(matrix: Tensor) -> Tensor:
    """[..., I / 16, J / 8, 32, 4] of a right operand [..., I, J], I filled up to a multiple of 16.

    Lane 4 j + t holds rows 2 t, 2 t + 1, 2 t + 8, 2 t + 9 of column j.
    """
    matrix = F.pad(matrix, (0, 0, 0, -matrix.shape[-2] % 16))
    split = matrix.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 2, 4, 2))  # I / 16, half, t, pair, J / 8, j
    *_, steps, half, t, pair, columns, j = range(split.dim())
    order = (*range(split.dim() - 6), steps, columns, j, t, half, pair)
    lanes: Tensor = split.permute(order).flatten(-4, -3).flatten(-2)
    return lanes.contiguous()
