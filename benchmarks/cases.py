"""Inputs of every operator, at the sizes of the networks and at awkward ones, on any device and in any type.

Maps are rounded to their type when they are made: a result in float64 on the same numbers is the truth for
all types. They are slices of wider ones, as in the networks.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import subjects  # noqa: F401 -- makes sancli importable from a bare checkout
import torch
from torch import Tensor

from sancli import ops
from sancli.ops import Norm


class Size(NamedTuple):
    """Of an attention: N, H, W, K, R, G, and how many channels share a weight."""

    images: int
    height: int
    width: int
    kernel_size: int
    planes: int
    groups: int
    sharing: int = 8


STAGES = tuple(
    Size(64, side, side, kernel_size, channels // 16, channels // 32)
    for side, kernel_size, channels in (
        (112, 3, 64), (56, 7, 256), (28, 7, 512), (14, 7, 1024), (7, 7, 2048),
    )
)  # fmt: skip
"""The layers of the networks, for images of 224 pixels."""
AWKWARD = (
    Size(2, 4, 5, 3, 4, 2),  # not square
    Size(1, 3, 3, 7, 3, 3, 3),  # as large as half a footprint, and no channel count that vectors like
    Size(2, 2, 3, 7, 4, 2),  # the border bounces more than once
    Size(3, 1, 2, 7, 4, 2),
    Size(2, 1, 1, 7, 4, 2),  # every offset shows the same pixel
    Size(1, 17, 19, 7, 16, 8),  # a last tile that is not full
    Size(1, 9, 8, 5, 5, 3, 2),  # a footprint that no network has
    Size(2, 13, 11, 7, 32, 16),
    Size(1, 15, 9, 3, 4, 2),
)


class Case(NamedTuple):
    """One call of an operator: function(*args, **options), whose leaves that want a gradient get one."""

    operator: str
    size: Size
    dtype: torch.dtype
    batch: bool
    """Whether the norms use the statistics of the batch."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Case":
        """The same numbers elsewhere; all of them in another type where one is given."""

        def moved(x: Tensor) -> Tensor:
            kept = x.detach().to(device, dtype or x.dtype)
            return kept.requires_grad_(x.requires_grad)

        here = torch.utils._pytree.tree_map_only(Tensor, moved, (self.args, self.options))
        return self._replace(args=here[0], options=here[1])

    def __str__(self) -> str:
        """As a line names it."""
        kind = str(self.dtype).removeprefix("torch.")
        return f"{self.operator} {kind} {tuple(self.size)} {'batch' if self.batch else 'given'} statistics"


class Numbers:
    """What a case is made of."""

    def __init__(self, size: Size, dtype: torch.dtype, device: torch.device | str, *, batch: bool) -> None:
        self.size, self.dtype, self.device, self.batch = size, dtype, device, batch
        self.real = torch.float64 if dtype == torch.float64 else torch.float32
        self.made = torch.Generator(device).manual_seed(sum(size))

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Numbers of the type of parameters, or of another."""
        drawn = torch.randn(shape, generator=self.made, device=self.device)
        return drawn.to(dtype or self.real)

    def maps(self, *channels: int, height: int | None = None, width: int | None = None) -> list[Tensor]:
        """Slices of one map that is channels last, each of them a leaf."""
        shape = self.size.images, height or self.size.height, width or self.size.width, sum(channels)
        merged = self.normal(*shape, dtype=self.dtype).permute(0, 3, 1, 2)
        return [part.requires_grad_() for part in merged.split(channels, 1)]

    def norm(self, channels: int) -> Norm:
        """One gamma is negative, and one is 0."""
        gamma, beta = 1 + 0.2 * self.normal(channels), 0.3 * self.normal(channels)
        gamma[0], gamma[-1] = 0, -1.5
        mean, var = self.normal(channels), 0.5 + self.normal(channels) ** 2
        given = (None, None) if self.batch else (mean, var)
        return Norm(gamma.requires_grad_(), beta.requires_grad_(), *given, 1e-5)

    def weight(self, *shape: int) -> Tensor:
        """Of a convolution whose output is about as large as its input."""
        return (self.normal(*shape) / shape[-1] ** 0.5).requires_grad_()

    def mapping(self, related: int, hidden: int, made: int) -> dict[str, Any]:
        """The parameters of an attention."""
        return {
            "norm1": self.norm(related),
            "weight1": self.weight(hidden, related),
            "norm2": self.norm(hidden),
            "weight2": self.weight(made, hidden),
            "bias2": (0.1 * self.normal(made)).requires_grad_(),
            "kernel_size": self.size.kernel_size,
        }


Made = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def aggregation(of: Numbers) -> Made:
    """Value [N, M, H, W] and weight [N, K * K, G, H, W], which has G innermost in memory."""
    size, offsets = of.size, of.size.kernel_size**2
    value, _ = of.maps(size.groups * size.sharing, size.groups)
    (flat,) = of.maps(offsets * size.groups)
    weight = flat.detach().unflatten(1, (offsets, size.groups)).requires_grad_()
    return ops.aggregation, (value, weight, size.kernel_size), {}


def patchwise(of: Numbers) -> Made:
    """Query, key, value, and the mapping of a whole footprint."""
    size, offsets = of.size, of.size.kernel_size**2
    maps = of.maps(size.planes, size.planes, size.groups * size.sharing)
    related = size.planes * (offsets + 1)
    return ops.patchwise_attention, tuple(maps), of.mapping(related, size.groups, offsets * size.groups)


def pairwise(of: Numbers) -> Made:
    """Query, key, value, position, and the mapping of a pair of pixels."""
    size = of.size
    maps = of.maps(size.planes, size.planes, size.groups * size.sharing)
    place = of.normal(1, 2, size.height, size.width).requires_grad_()
    options = of.mapping(size.planes + 2, size.planes, size.groups)
    return functools.partial(ops.pairwise_attention, sign=-1), (*maps, place), options


def bn_relu_conv1x1(of: Numbers) -> Made:
    """From the channels of a block to those of query, key and value."""
    channels = 16 * of.size.planes
    (x,) = of.maps(channels)
    weight, bias = of.normal(24, channels, 1, 1, dtype=of.dtype), of.normal(24, dtype=of.dtype)
    weight = weight / channels**0.5
    return ops.bn_relu_conv1x1, (x, of.norm(channels), weight.requires_grad_(), bias.requires_grad_()), {}


def bn_relu_pool(of: Numbers) -> Made:
    """In front of a stage, at twice its size."""
    channels = 16 * of.size.planes
    (x,) = of.maps(channels, height=2 * of.size.height + 1, width=2 * of.size.width)
    return ops.bn_relu_pool, (x, of.norm(channels)), {}


def stem(of: Numbers) -> Made:
    """An image of twice the size, and as many channels as a stage's."""
    channels = 16 * of.size.planes
    (image,) = of.maps(3, height=2 * of.size.height, width=2 * of.size.width + 1)
    return ops.stem, (image, of.weight(channels, 3), of.norm(channels)), {}


def norm_relu(of: Numbers) -> Made:
    """For inference alone: it has no gradient."""
    channels = 16 * of.size.planes
    (x,) = of.maps(channels)
    norm = Numbers(of.size, of.dtype, of.device, batch=False).norm(channels)
    return ops.norm_relu, (x.detach(), Norm(*(x.detach() for x in norm[:4]), norm.eps)), {}


OPERATORS: dict[str, Callable[[Numbers], Made]] = {
    "aggregation": aggregation,
    "patchwise_attention": patchwise,
    "pairwise_attention": pairwise,
    "bn_relu_conv1x1": bn_relu_conv1x1,
    "bn_relu_pool": bn_relu_pool,
    "stem": stem,
    "norm_relu": norm_relu,
}


def case(
    operator: str, size: Size, dtype: torch.dtype, *, batch: bool = True, device: torch.device | str = "cpu"
) -> Case:
    """One of them."""
    function, args, options = OPERATORS[operator](Numbers(size, dtype, device, batch=batch))
    return Case(operator, size, dtype, batch, function, args, options)


def awkward(operator: str, dtype: torch.dtype, sizes: tuple[Size, ...] = AWKWARD) -> Iterator[Case]:
    """An operator at every awkward size, with statistics of the batch and given ones."""
    for size in sizes:
        values = size.images * size.height * size.width
        for batch in (True, False) if operator != "aggregation" and values > 1 else (False,):
            yield case(operator, size, dtype, batch=batch)
