"""The convolutional baselines of the paper, from torchvision's blocks.

torchvision is brought in by the function that uses it: its import takes as long as torch itself, and a SAN
needs none of it.
"""

import torch
from torch import nn

LAYERS = {  # blocks of each stage: those of SAN10, SAN15 and SAN19 from the second stage on
    "resnet26": [1, 2, 4, 1],
    "resnet38": [2, 3, 5, 2],
    "resnet50": [3, 4, 6, 3],
}


def resnet(arch: str, num_classes: int, *, zero_init_residual: bool = False) -> nn.Module:
    """Image [N, 3, H, W] to logits [N, num_classes]; He initialisation, as torchvision has it."""
    from torchvision.models.resnet import Bottleneck, ResNet

    net: nn.Module = ResNet(
        Bottleneck, LAYERS[arch], num_classes=num_classes, zero_init_residual=zero_init_residual
    )
    return net.to(memory_format=torch.channels_last)
