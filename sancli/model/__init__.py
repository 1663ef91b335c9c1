"""The networks, from their names. Facts about them are in `zoo`, which is read without torch."""

from typing import TYPE_CHECKING

from sancli.model import zoo

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "zoo"]


def build(
    arch: str,
    *,
    attention: str = "patchwise",
    relation: str | None = None,
    num_classes: int,
    zero_init_residual: bool = False,
) -> "nn.Module":
    """A network with fresh parameters: image [N, 3, H, W] to logits [N, num_classes], its last layer `fc`.

    Args:
        arch: san10, san15, san19, resnet26, resnet38 or resnet50; the last three have no attention.
        attention: A key of relations.RELATIONS.
        relation: One of RELATIONS[attention]; None: that of the published networks.
        num_classes: Length of the logits.
        zero_init_residual: Each block starts as the identity: the best start from scratch.

    Raises:
        ValueError: A name that is not known.
    """
    from sancli.model import relations, resnet, san

    if arch in resnet.LAYERS:
        return resnet.resnet(arch, num_classes, zero_init_residual=zero_init_residual)
    layers = _lookup(san.LAYERS, arch, "arch")
    known = _lookup(relations.RELATIONS, attention, "attention")
    if relation is not None and relation not in known:
        raise ValueError(f"relation {relation!r} is not one of {', '.join(known)}")
    return san.SAN(
        attention, relation or known[0], layers, num_classes, zero_init_residual=zero_init_residual
    )


def _lookup(known: dict[str, tuple], name: str, what: str) -> tuple:
    if name not in known:
        raise ValueError(f"{what} {name!r} is not one of {', '.join(known)}")
    return known[name]
