"""The networks, from their names."""

import torch
from torch import nn

from sancli.model import resnet, san
from sancli.model.relations import RELATIONS

ARCHS = (*san.LAYERS, *resnet.LAYERS)

__all__ = ["ARCHS", "RELATIONS", "build"]


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
    if arch not in ARCHS:
        raise ValueError(f"arch {arch!r} is not one of {', '.join(ARCHS)}")
    if arch in resnet.LAYERS:
        return resnet.resnet(arch, num_classes).to(memory_format=torch.channels_last)
    if attention not in RELATIONS:
        raise ValueError(f"attention {attention!r} is not one of {', '.join(RELATIONS)}")
    known = RELATIONS[attention]
    if relation not in (None, *known):
        raise ValueError(f"relation {relation!r} is not one of {', '.join(known)}")
    return san.SAN(attention, relation or known[0], san.LAYERS[arch], num_classes)
