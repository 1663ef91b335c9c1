"""Asking a network, and teaching it one step. Knows nothing about SAN or folders.

Letters: N images, C classes, H x W pixels.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from sancli.engine.device import Device


class Labelled(Protocol):
    """A batch: images [N, 3, H, W], and whatever else its maker put there."""

    @property
    def images(self) -> Tensor:
        """[N, 3, H, W]; N may be 0."""


B = TypeVar("B", bound=Labelled)


def infer(
    network: nn.Module, batches: Iterable[B], *, device: Device, flip: bool = False
) -> Iterator[tuple[B, Tensor]]:
    """Each batch with its logits: [N, C], float32, on the CPU; of a batch without images, an empty [0].

    With `flip`, the softmax of the result is the mean of those of the image and its mirror image.
    The network is put into eval mode on the device, and left there.
    """
    device.place(network).eval()
    for batch in batches:
        if not len(batch.images):
            yield batch, torch.empty(0)
            continue
        with torch.inference_mode(), device.autocast():
            images = device.send(batch.images)
            logits = network(images).float()
            if flip:
                logits = _mean_of_probabilities(logits, network(images.flip(-1)).float())
        yield batch, logits.cpu()


def _mean_of_probabilities(one: Tensor, other: Tensor) -> Tensor:
    both = torch.stack([one.log_softmax(1), other.log_softmax(1)])
    return both.logsumexp(0) - math.log(2)
