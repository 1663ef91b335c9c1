"""The convolutional baselines of the paper, from torchvision's blocks."""

from torch import nn

LAYERS = {  # blocks in each stage; section 4.1: those of SAN10, SAN15 and SAN19 without the first stage's own
    "resnet26": [1, 2, 4, 1],
    "resnet38": [2, 3, 5, 2],
    "resnet50": [3, 4, 6, 3],
}


def resnet(arch: str, num_classes: int) -> nn.Module:
    """Image [N, 3, H, W] to logits [N, num_classes]; He initialisation as torchvision has it."""
    from torchvision.models.resnet import Bottleneck, ResNet  # 2 s that no SAN should wait for

    network: nn.Module = ResNet(Bottleneck, LAYERS[arch], num_classes=num_classes)
    return network


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 ImageNet classes, by output of a published network: in the order of their wnids.

    Two names stand for two classes each. As newer versions of torchvision have it, the bird is "crane bird" and
    the machine "crane"; the swimsuits are "maillot" and "maillot tank suit".
    """
    from torchvision.models import ResNet50_Weights

    names = list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    names[134], names[639] = "crane bird", "maillot tank suit"
    return tuple(names)
