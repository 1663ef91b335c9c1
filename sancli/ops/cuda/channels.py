"""How work over the channels of a map is cut into blocks of threads: what kernels/channels.cuh expects.

It depends on the shape alone, so that sums are added in the same order on every card.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from sancli.ops.cuda import loader

THREADS = 256
WIDEST = 16
"""Bytes that a thread moves at once."""
WARP = 32
JOINED = (32, 16)
"""The block that joins parts: channels, and parts that are read at the same time."""
PARTS = 512
"""Blocks that a sum is cut into, at most: four for each multiprocessor of an H100. Not tuned yet."""
BLOCKS = 1056
"""Before there are as many, a thread sees fewer pixels: eight for each multiprocessor. Not tuned yet."""
EACH = 16
"""Pixels that a thread sees where there are many: it reads its parameters once for all. Not tuned yet."""
MOST_PIXELS = 2**30
"""Their numbers are 32 bits wide, and may run on behind the last one."""


class Cut(NamedTuple):
    """One launch over pixels, or windows of them, and channels."""

    vector: int
    """Neighbouring channels of a thread."""
    block: tuple[int, int]
    """Threads side by side, along the channels, and rows of them."""
    parts: int
    tiles: int
    share: int
    """Pixels of a part."""

    @property
    def grid(self) -> tuple[int, int]:
        """Parts, and tiles of channels."""
        return self.parts, self.tiles

    def kernel(self, name: str, x: Tensor) -> str:
        """The instantiation for maps like `x`."""
        return f"{name}<{loader.ctype(x.dtype)}, {self.vector}>"

    def shared(self, numbers: int, real: Tensor) -> int:
        """Bytes for so many numbers of the type of `real` in each thread, for each of its channels."""
        return THREADS * self.vector * numbers * real.element_size()


def cut(pixels: int, channels: int, *maps: Tensor, most: int = MOST_PIXELS) -> Cut:
    """Cuts maps [pixels, C] into blocks, so that there are enough of them and a thread sees enough pixels.

    Args:
        pixels: Or windows.
        channels: C.
        maps: All that vectors are read from and written to.
        most: Blocks; where they are not enough, a thread sees more.
    """
    vector = min(vector_of(x, channels) for x in maps)
    vectors = channels // vector
    columns = min(1 << (vectors - 1).bit_length(), WARP)
    rows, tiles = THREADS // columns, -(-vectors // columns)
    each = min(EACH, max(1, pixels * tiles // (rows * BLOCKS)))
    share = max(rows * each, -(-pixels // max(1, most // tiles)))
    return Cut(vector, (columns, rows), -(-pixels // share), tiles, share)


def cut_pixels(pixels: int) -> Cut:
    """Cuts an image into pixels, one a thread, for sums over all of them."""
    share = max(THREADS * EACH, -(-pixels // PARTS))
    return Cut(1, (1, THREADS), parts=-(-pixels // share), tiles=1, share=share)


def vector_of(x: Tensor, channels: int) -> int:
    """How many numbers of a map can be moved as one: as many as there are in 16 bytes, or else 1."""
    widest = WIDEST // x.element_size()
    return 1 if channels % widest or x.data_ptr() % WIDEST else widest


def joining(channels: int) -> tuple[tuple[int], tuple[int, int]]:
    """Grid and block of the kernels that join parts: a column of threads for each channel."""
    return (-(-channels // JOINED[0]),), JOINED


def joined_bytes(numbers: int, like: Tensor) -> int:
    """Shared memory of the kernels that join parts, for so many numbers of the type of `like` a thread."""
    return JOINED[0] * JOINED[1] * numbers * like.element_size()


def integers(*values: int) -> tuple[np.int32, ...]:
    """As a kernel's int arguments."""
    return tuple(np.array(values, np.int32))


def real(value: float, like: Tensor) -> np.generic:
    """A number of the type of `like`."""
    return np.float64(value) if like.element_size() == 8 else np.float32(value)
