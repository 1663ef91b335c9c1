"""Patchwise attention with a bound on how far an image can grow, for the few images that need one.

What patchwise attention gives grows with the square of its input. In training the statistics of a batch
bound that: of N images none has normalised values over the root of N. In eval mode nothing does, and an image
unlike those learnt can grow from block to block until its answer is noise, or no number. So the last
BatchNorm is watched, and an image that comes there with over MOST is asked once more, with the input of every
block bounded to MOST. All others keep the network's own answer, bit for bit.

Measured on SAN10 after 12 epochs on 3,470 Intel scenes of three classes, 64 px: of 612 val images 12 are
over MOST; 2 of them had the right answer, and 11 have it then. Top-1 93.8 -> 95.3 %, loss 0.84 -> 0.21; with
bounds of 3 and 5 instead 94.9 and 95.1 %.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sancli.model.san import SAN, Bottleneck, PatchwiseAttention

M = TypeVar("M", bound=nn.Module)
MOST = 4.0
"""Root mean square of an image's normalised values, before gamma and beta; 1 is usual in training."""


class Bounded(nn.Module):
    """A network in eval mode that asks itself once more about images that grow too far.

    Args:
        network: Any; one without patchwise attention answers as it is.
        swift: The same as it is run for the first answer, where that is another module.
    """

    def __init__(self, network: nn.Module, swift: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.swift = network, swift or network
        self.san = parts(self.swift, SAN)[0] if parts(network, PatchwiseAttention) else None
        self.again = 0
        """Images that were asked about once more."""

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        if self.san is None:
            logits: Tensor = self.swift(image)
            return logits
        with watched(self.san):
            logits = self.swift(image)
        out = logits.isnan().any(1)
        count = int(out.sum())
        if not count:
            return logits
        self.again += count
        with limited(self.network):
            return logits.index_put((out,), self.network(image[out]))


def parts(network: nn.Module, kind: type[M]) -> list[M]:
    """The modules of a kind that a network is, or consists of."""
    return [module for module in network.modules() if isinstance(module, kind)]


@contextmanager
def watched(san: SAN) -> Iterator[None]:
    """Within it, the logits of an image that comes to the last BatchNorm with over MOST are NaN."""
    sizes = []

    def note(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        sizes.append(size(inputs[0], norm))

    def mark(_: nn.Module, __: object, logits: Tensor) -> Tensor:
        return logits.masked_fill(~(sizes.pop() <= MOST)[:, None], torch.nan)  # so written, NaN counts too

    yield from within(san.bn4.register_forward_pre_hook(note), san.register_forward_hook(mark))


@contextmanager
def limited(network: nn.Module) -> Iterator[None]:
    """Within it, no image comes to a block with over MOST: it is drawn towards the running mean."""

    def bound(block: Bottleneck, inputs: tuple[Tensor]) -> Tensor:
        (x,), mean = inputs, means(block.bn1)
        share = (MOST / size(x, block.bn1)).clamp(max=1)[:, None, None, None]
        return (mean + (x - mean) * share).to(x.dtype)

    yield from within(*(block.register_forward_pre_hook(bound) for block in parts(network, Bottleneck)))


def within(*hooks: RemovableHandle) -> Iterator[None]:
    """Removes the hooks at the end."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def size(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Root mean square of what a BatchNorm makes of [N, C, H, W] before gamma and beta, by image: [N]."""
    assert norm.running_var is not None
    squares = (x - means(norm)).square().mean((2, 3))  # [N, C]; the mean is in float, and so is all of this
    return (squares / (norm.running_var + norm.eps)).mean(1).sqrt()


def means(norm: nn.BatchNorm2d) -> Tensor:
    """The running mean, [1, C, 1, 1]."""
    assert norm.running_mean is not None
    return norm.running_mean[None, :, None, None]
