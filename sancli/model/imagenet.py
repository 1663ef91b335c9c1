"""The classes that the published networks know."""


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 ImageNet classes, by output of a published network: in the order of their wnids.

    Two names stand for two classes each. As newer versions of torchvision have it, the bird is "crane bird"
    and the machine "crane"; the swimsuits are "maillot" and "maillot tank suit".
    """
    from torchvision.models import ResNet50_Weights  # 2 s that no other command should wait for

    names = list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    names[134], names[639] = "crane bird", "maillot tank suit"
    return tuple(names)
