"""Tensors that were read -> a network that was built: everything is checked before anything is changed."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sancli.errors import WeightsError

SAN_DEPTHS: dict[tuple[int, ...], str] = {  # blocks of layer0 to layer4
    (2, 1, 2, 4, 1): "SAN10",
    (3, 2, 3, 5, 2): "SAN15",
    (3, 3, 4, 6, 3): "SAN19",
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Kind(NamedTuple):
    """A network that sancli knows, as the keys of a state dict tell it."""

    arch: str
    attention: str
    """Of a ResNet the usual one, which says nothing."""
    outputs: int


class Left(NamedTuple):
    """What did not fit when a state was loaded in part."""

    fresh: list[str]
    """Of the network: it keeps its own."""
    unused: list[str]
    """Of the file."""


def load_into(network: nn.Module, state: dict[str, Tensor], *, source: Path) -> None:
    """Copies `state` into `network`, all of it or nothing; a network on `meta` takes the tensors themselves.

    Raises:
        WeightsError: Keys, shapes or types differ, a value is not finite, or a variance is negative.
    """
    own = network.state_dict()
    _check_keys(own, state, source)
    _check_shapes(own, state, source)
    _check_values(own, state, source)
    if any(value.is_meta for value in own.values()):
        network.load_state_dict({name: _like(own[name], value) for name, value in state.items()}, assign=True)
    else:
        network.load_state_dict(state)


def load_part(network: nn.Module, state: dict[str, Tensor], *, source: Path) -> Left:
    """Copies the tensors of `state` that `network` has by the same name and shape; says what was left.

    Raises:
        WeightsError: None fits; or of one that does the type differs, a value is not finite, or a variance is
            negative. Nothing was changed.
    """
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise _misfit(own, state, source, "none of its tensors has a name and a shape that are needed")
    _check_values(own, fitting, source)
    network.load_state_dict(own | fitting)
    fresh, unused = ([name for name in names if name not in fitting] for names in (own, state))
    return Left(fresh, unused)


def recognise(state: dict[str, Tensor]) -> Kind | None:
    """The network that a state dict is of, with the authors' relation; None: one unknown here."""
    known = re.fullmatch(r"(SAN1\d) (\w+)|(ResNet(?:26|38|50))", describe(state))
    head = state.get("fc.weight")
    if known is None or head is None or head.ndim != 2:
        return None
    return Kind((known[1] or known[3]).lower(), known[2] or "patchwise", len(head))


def _like(own: Tensor, value: Tensor) -> Tensor:
    """`value` with the type and the strides of `own`: itself, wherever they place the numbers alike."""
    value = value.to(own.dtype)
    if value.is_contiguous() and own.is_contiguous():  # 1x1 convolutions, also where they are channels last
        return value.as_strided(own.shape, own.stride())
    return torch.empty_strided(own.shape, own.stride(), dtype=own.dtype).copy_(value)


def describe(keys: Collection[str]) -> str:
    """What kind of network has these keys in its state dict: SAN10 pairwise, ResNet50."""
    if any(".sam.conv_w." in key for key in keys):
        attention = "pairwise" if any(".sam.conv_p." in key for key in keys) else "patchwise"
        return f"{SAN_DEPTHS.get(_blocks(keys, range(5)), 'a SAN of another depth')} {attention}"
    if "conv1.weight" in keys and "layer1.0.bn1.weight" in keys:
        convs = 3 if "layer1.0.conv3.weight" in keys else 2
        return f"ResNet{convs * sum(_blocks(keys, range(1, 5))) + 2}"
    return "another network"


def _blocks(keys: Collection[str], layers: range) -> tuple[int, ...]:
    """How many blocks each layer has: layer3.4.bn1.weight belongs to the fifth of layer3."""
    found = {match[0] for key in keys if (match := re.match(r"layer\d\.\d+\.", key))}
    return tuple(sum(block.startswith(f"layer{layer}.") for block in found) for layer in layers)


def _check_keys(own: dict[str, Tensor], state: dict[str, Tensor], source: Path) -> None:
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    if missing:
        why = f"missing keys: {len(missing)} of {len(own)} (e.g. {missing[0]})"
    elif extra:
        why = f"keys too many: {len(extra)} (e.g. {extra[0][:100]})"
    else:
        return
    raise _misfit(own, state, source, why)


def _check_shapes(own: dict[str, Tensor], state: dict[str, Tensor], source: Path) -> None:
    wrong = [key for key in own if state[key].shape != own[key].shape]
    if wrong:
        has, needs = (_sides(tensors[wrong[0]]) for tensors in (state, own))
        why = f"differing shapes: {len(wrong)} of {len(own)} (e.g. {wrong[0]} is {has} instead of {needs})"
        raise _misfit(own, state, source, why)


def _misfit(own: dict[str, Tensor], state: dict[str, Tensor], source: Path, why: str) -> WeightsError:
    wanted, found = describe(own), describe(state)
    resized = any(key in state and state[key].shape != tensor.shape for key, tensor in own.items())
    nearly = f"it is {found}, with other sizes" if resized else f"else it is {found}"
    looks = f"it looks like {found}" if found != wanted else nearly
    return WeightsError(
        f"{source} is not {wanted} as expected.",
        why=f"{why}; {looks}.",
        fix="name the file of this network, or the network of this file.",
    )


def _check_values(own: dict[str, Tensor], state: dict[str, Tensor], source: Path) -> None:
    for name, value in state.items():
        if fault := _fault(name, value, own[name]):
            raise WeightsError(
                f"{source} is refused: {name} {fault}.",
                why="a network with such weights would answer nonsense.",
                fix="take another file, or fetch this one again.",
            )


def _sides(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"


def _fault(name: str, value: Tensor, own: Tensor) -> str | None:
    types = FLOATS if own.is_floating_point() else (own.dtype,)
    if value.dtype not in types:
        return f"is {value.dtype} instead of {own.dtype}".replace("torch.", "")
    if not _is_finite(value.to(own.dtype)):
        return "has values that are not finite (NaN or infinite)"
    if name.endswith("running_var") and (value < 0).any():
        return "has negative variances"
    return None


def _is_finite(value: Tensor) -> bool:
    """Whether each number is: the sum says so at a tenth of the cost, unless it overflows by itself."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())
