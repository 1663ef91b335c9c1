"""The tiles of kernels that stand on kernels/window.cuh: some pixels, and what their footprints see."""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sancli.ops.cpu.maps import laid_out
from sancli.ops.cuda import loader
from sancli.ops.cuda.tiles import tile

SHARE = 8
BANKS = 32
BANK_BYTES = 4


@dataclass(frozen=True)
class Window:
    """Template arguments of Window in window.cuh, and what follows from them."""

    dtype: torch.dtype
    kernel_size: int
    groups: int
    rows: int
    columns: int
    planes: int
    pixels: int
    vector: int

    @property
    def lanes(self) -> int:
        """Threads along the weight channels."""
        return self.planes // self.vector

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.lanes * (self.columns // self.pixels) * self.rows

    @property
    def steps(self) -> tuple[int, int]:
        """Vectors from pixel to pixel and from row to row of shared memory."""
        across, seen = self.columns // self.pixels, self.columns + self.kernel_size - 1
        return steps(self.lanes, across, self.pixels, seen, self.vector * self.dtype.itemsize)

    @property
    def shared(self) -> int:
        """Bytes of a block."""
        return (self.rows + self.kernel_size - 1) * self.steps[1] * self.vector * self.dtype.itemsize

    def __str__(self) -> str:
        sizes = self.kernel_size, self.groups, self.rows, self.columns, self.planes, self.pixels, self.vector
        return f"Window<{loader.ctype(self.dtype)}, {', '.join(map(str, (*sizes, *self.steps)))}>"

    def blocks(self, value: Tensor) -> int:
        """That a batch of maps takes."""
        images, _, height, width = value.shape
        tiles = math.ceil(height / self.rows) * math.ceil(width / self.columns)
        return images * tiles * (self.groups // self.planes)


def window(kernel: str, kernel_size: int, groups: int, *maps: Tensor) -> Window | None:
    """The tile of a kernel for these maps, the first of M channels; None where it cannot take them."""
    value = maps[0]
    if value.shape[1] != SHARE * groups or kernel_size % 2 == 0 or kernel_size > 7:
        return None
    rows, columns, planes, pixels, vector = tile(kernel, value.dtype, kernel_size, groups)
    planes = math.gcd(planes, groups)
    vector = math.gcd(vector, planes, *(alignment(x) for x in maps))
    found = Window(value.dtype, kernel_size, groups, rows, columns, planes, pixels, vector)
    return found if found.shared <= loader.shared_limit(value.device) else None


def alignment(x: Tensor) -> int:
    """How many numbers can be moved as one, wherever a pixel of the map begins."""
    _, stride = laid_out(x)
    return math.gcd(stride, x.data_ptr() // x.element_size(), 16 // x.element_size())


@functools.cache
def steps(lanes: int, across: int, pixels: int, seen: int, size: int) -> tuple[int, int]:
    """The smallest steps with which lanes that read vectors of `size` bytes meet in the fewest banks."""
    tried = []
    for pixel_pad, row_pad in itertools.product(range(4), range(BANKS)):
        pixel_step = SHARE * lanes + pixel_pad
        row_step = seen * pixel_step + row_pad
        met = conflicts(lanes, across, pixels * pixel_step, row_step, size)
        tried.append((met, row_step, pixel_step))
    _, row_step, pixel_step = min(tried)
    return pixel_step, row_step


def conflicts(lanes: int, across: int, group_step: int, row_step: int, size: int) -> int:
    """How many words of one bank a warp asks for at once; a request moves 128 bytes at most."""
    words: dict[int, set[int]] = {}
    for thread in range(BANKS * BANK_BYTES // max(size, BANK_BYTES)):
        group, lane = divmod(thread, lanes)
        row, group = divmod(group, across)
        first = (row * row_step + group * group_step + lane) * size // BANK_BYTES
        for word in range(first, first + max(1, size // BANK_BYTES)):
            words.setdefault(word % BANKS, set()).add(word)
    return max(map(len, words.values()))
