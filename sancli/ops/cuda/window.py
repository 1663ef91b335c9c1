"""The tiles of kernels that stand on kernels/window.cuh: some pixels, and what their footprints see."""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.tiles import tile
from sancli.ops.layout import laid_out

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
    fill: int

    @property
    def lanes(self) -> int:
        """Threads along the weight channels."""
        return self.planes // self.vector

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.lanes * (self.columns // self.pixels) * self.rows

    @functools.cached_property
    def steps(self) -> tuple[int, int]:
        """Vectors from pixel to pixel and from row to row of shared memory."""
        across, seen = self.columns // self.pixels, self.columns + self.kernel_size - 1
        size, unit = self.vector * self.dtype.itemsize, self.fill // self.vector
        return steps(self.lanes, across, self.pixels, seen, size, unit)

    @functools.cached_property
    def shared(self) -> int:
        """Bytes of a block."""
        return (self.rows + self.kernel_size - 1) * self.steps[1] * self.vector * self.dtype.itemsize

    @functools.cached_property
    def name(self) -> str:
        """As a kernel's template argument."""
        tile = self.rows, self.columns, self.planes, self.pixels, self.vector, self.fill
        numbers = self.kernel_size, self.groups, *tile, *self.steps
        return f"Window<{loader.ctype(self.dtype)}, {', '.join(map(str, numbers))}>"

    def blocks(self, value: Tensor) -> int:
        """That a batch of maps takes."""
        images, _, height, width = value.shape
        tiles = math.ceil(height / self.rows) * math.ceil(width / self.columns)
        return images * tiles * (self.groups // self.planes)


def window(kernel: str, kernel_size: int, groups: int, value: Tensor, *maps: Tensor) -> Window | None:
    """The tile of a kernel, with `value` in shared memory; None where it cannot take these maps."""
    if value.shape[1] != SHARE * groups or kernel_size % 2 == 0 or kernel_size > 7:
        return None
    first = alignment(value)
    found = fitted(kernel, value.dtype, kernel_size, groups, math.gcd(first, *map(alignment, maps)), first)
    return found if found.shared <= loader.shared_limit(value.device) else None


@functools.cache  # a launch asks each time
def fitted(
    kernel: str, dtype: torch.dtype, kernel_size: int, groups: int, aligned: int, filled: int
) -> Window:
    """The table's tile, for maps of which `aligned` numbers move as one, into shared memory `filled`."""
    rows, columns, planes, pixels, vector = tile(kernel, dtype, kernel_size, groups)
    planes = math.gcd(planes, groups)
    vector, fill = math.gcd(vector, planes, aligned), math.gcd(planes, filled)
    return Window(dtype, kernel_size, groups, rows, columns, planes, pixels, vector, fill)


def alignment(x: Tensor) -> int:
    """How many numbers can be moved as one, wherever a pixel of the map begins."""
    _, stride = laid_out(x)
    return math.gcd(stride, x.data_ptr() // x.element_size(), 16 // x.element_size())


@functools.cache
def steps(lanes: int, across: int, pixels: int, seen: int, size: int, unit: int) -> tuple[int, int]:
    """The smallest steps with which lanes that read vectors of `size` bytes meet in the fewest banks.

    They are multiples of `unit`: so many are written at once.
    """
    tried = []
    for pixel_pad, row_pad in itertools.product(range(4), range(BANKS)):
        pixel_step = SHARE * lanes + pixel_pad * unit
        row_step = seen * pixel_step + row_pad * unit
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
