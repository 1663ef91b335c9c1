"""The networks, from their names."""

import torch
from torch import nn

from sancli.model import resnet, san

ARCHS = (*san.LAYERS, *resnet.LAYERS)


def build(
    arch: str, *, attention: str = "patchwise", relation: str | None = None, num_classes: int
) -> nn.Module:
    """A network with fresh parameters: image [N, 3, H, W] to logits [N, num_classes], its last layer `fc`.

    Args:
        arch: One of ARCHS. The baselines have neither attention nor relation.
        attention: "pairwise" or "patchwise".
        relation: One of RELATIONS[attention]; None: that of the published networks.
        num_classes: Length of the logits.

    Raises:
        ValueError: A name that is not known.
    """
    if arch in resnet.LAYERS:
        return resnet.resnet(arch, num_classes).to(memory_format=torch.channels_last)
    return san.SAN(san.ATTENTIONS[attention], san.LAYERS[arch], num_classes)
