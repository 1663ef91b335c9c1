"""Maps laid out so that a step inside the footprint is a constant step along one long axis.

Shapes: N images, C channels, H x W pixels, K footprint side, Hp = H + K - 1, Wp = W + K - 1.

    padded  [C, Hp * Wp * N + (K - 1) * N]  the map with its border reflected, pixel by pixel, images
    innermost rows    [C, H * Wp * N]                 as many positions as there are footprints

Pixel (y, x) of image n stands at p = (y * Wp + x) * N + n of `rows`, and offset (i, j) of its footprint at
p + (i * Wp + j) * N of `padded`. The last K - 1 pixels of each line of `rows` are void: what is computed
there is dropped, and gradients there are zero. So a tile of footprints is any slice of the axis, loops are
long at every map size, and a batch costs no more calls than an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sancli.ops.norm import accumulation_type

TILE = (
    2**20
)  # numbers in the widest tensor of a tile: 4 MiB in fp32; 2**18 to 2**21 are within 20 % of each other


def reflected(index: int, size: int) -> int:
    """The index inside [0, size) that a reflected border shows, however far outside `index` lies."""
    if size == 1:
        return 0
    period = 2 * (size - 1)
    index = abs(index) % period
    return min(index, period - index)


@dataclass(frozen=True)
class Windows:
    """The layout of one batch of maps."""

    images: int
    height: int
    width: int
    kernel_size: int

    @classmethod
    def of(cls, maps: Tensor, kernel_size: int) -> "Windows":
        """The layout of maps [N, C, H, W]."""
        images, _, height, width = maps.shape
        return cls(images, height, width, kernel_size)

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """Hp, Wp, N."""
        return self.height + self.kernel_size - 1, self.width + self.kernel_size - 1, self.images

    @property
    def positions(self) -> int:
        """The length of `rows`."""
        return self.height * (self.width + self.kernel_size - 1) * self.images

    @property
    def all(self) -> slice:
        """The whole axis as one tile."""
        return slice(0, self.positions)

    def tiles(self, per_position: int) -> Iterator[slice]:
        """Slices of the axis, so long that a tile of `per_position` numbers a position fills the cache."""
        length = max(1, TILE // per_position)
        for start in range(0, self.positions, length):
            yield slice(start, min(start + length, self.positions))

    def windows(self, padded: Tensor, tile: slice) -> Tensor:
        """A view [..., K, K, T] of the footprints of a tile, for `padded` [..., L]."""
        line, k = (self.width + self.kernel_size - 1) * self.images, self.kernel_size
        return padded.as_strided(
            (*padded.shape[:-1], k, k, tile.stop - tile.start),
            (*padded.stride()[:-1], line, self.images, 1),
            padded.storage_offset() + tile.start,
        )

    def offsets(self, padded: Tensor, tile: slice) -> list[Tensor]:
        """The same as K * K views [..., T], one for each offset."""
        return [view for line in self.windows(padded, tile).unbind(-3) for view in line.unbind(-2)]

    def empty_rows(self, channels: int, like: Tensor) -> Tensor:
        """Rows [channels, .] to be written."""
        return like.new_empty(channels, self.positions, dtype=accumulation_type(like.dtype))

    def rows(self, maps: Tensor, void: float = 0.0) -> Tensor:
        """`maps` [N, C, H, W] as rows, with `void` where no pixel stands."""
        shape = maps.shape[1], self.height, self.padded_shape[1], self.images
        rows = maps.new_empty(shape, dtype=accumulation_type(maps.dtype))
        rows[:, :, : self.width] = maps.permute(1, 2, 3, 0)
        rows[:, :, self.width :] = void
        return rows.flatten(1)

    def maps(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """The opposite of `rows`: [N, C, H, W], channels last."""
        grid = rows.view(len(rows), self.height, self.padded_shape[1], self.images)[:, :, : self.width]
        return grid.permute(3, 0, 1, 2).to(dtype, memory_format=torch.channels_last)

    def pad(self, maps: Tensor) -> Tensor:
        """`maps` [N, C, H, W] as padded rows."""
        height, width, images = self.padded_shape
        size = (height * width + self.kernel_size - 1) * images
        padded = maps.new_empty(maps.shape[1], size, dtype=accumulation_type(maps.dtype))
        padded[:, height * width * images :] = 0  # seen from void positions only, but must be finite
        grid, inner = self._grid(padded), self._inner
        grid[:, inner(self.height), inner(self.width)] = maps.permute(1, 2, 3, 0)
        for outside, inside in self._border(self.width):
            grid[:, inner(self.height), outside] = grid[:, inner(self.height), inside]
        for outside, inside in self._border(self.height):
            grid[:, outside] = grid[:, inside]
        return padded

    def fold(self, padded: Tensor, dtype: torch.dtype) -> Tensor:
        """The transpose of `pad`, in place: adds each reflected pixel to the one that it shows."""
        grid, inner = self._grid(padded), self._inner
        for outside, inside in self._border(self.height):
            grid[:, inside] += grid[:, outside]
        for outside, inside in self._border(self.width):
            grid[:, inner(self.height), inside] += grid[:, inner(self.height), outside]
        maps = grid[:, inner(self.height), inner(self.width)].permute(3, 0, 1, 2)
        return maps.to(dtype, memory_format=torch.channels_last)

    def _grid(self, padded: Tensor) -> Tensor:
        height, width, images = self.padded_shape
        return padded[:, : height * width * images].view(-1, height, width, images)

    def _inner(self, size: int) -> slice:
        return slice(self.kernel_size // 2, self.kernel_size // 2 + size)

    def _border(self, size: int) -> Iterator[tuple[int, int]]:
        """Each padded line outside the map with the one inside that it shows."""
        reach = self.kernel_size // 2
        for index in (*range(-reach, 0), *range(size, size + reach)):
            yield index + reach, reflected(index, size) + reach
