"""What a checkpoint of others is: told by its keys, as it does not say so itself."""

import json
from pathlib import Path

from torch import Tensor

from sancli import weights
from sancli.console import say
from sancli.data.preprocessing import Preprocessing
from sancli.errors import WeightsError, command
from sancli.model.imagenet import imagenet_classes
from sancli.model.zoo import PUBLISHED, SOURCE
from sancli.runs.info import UNLIKE, ModelInfo

IMAGENET = Preprocessing(image_size=224, crop="center", crop_share=224 / 256)
IMAGENET_CLASSES = 1000


def published_info(name: str) -> ModelInfo:
    """What the authors' network needs besides its numbers: ImageNet's classes, and 224 of 256 pixels."""
    network = PUBLISHED[name]
    assert network.attention is not None
    return ModelInfo(
        name=name,
        classes=imagenet_classes(),
        arch=network.arch,
        attention=network.attention,
        relation=None,
        preprocessing=IMAGENET,
        data={"name": "ImageNet", "published_top1": network.top1 / 100, "published_top5": network.top5 / 100},
        started_from=SOURCE,
    )


def info_of_foreign(path: Path, state: dict[str, Tensor], *, nameless: bool) -> ModelInfo:
    """What the keys say; a network with 1000 outputs is taken for one of ImageNet, and that is said.

    Args:
        path: The file.
        state: What it holds.
        nameless: Outputs without names will do.

    Raises:
        WeightsError: It is another network, or its outputs have no names.
    """
    kind = weights.recognise(state)
    if kind is None:
        raise WeightsError(
            f"{path} is no network that sancli knows.",
            why=f"it does not say what it is, and its keys look like {weights.describe(state)}.",
            fix="take a SAN of the authors, a ResNet26, 38 or 50, or a file that sancli wrote.",
        )
    network = f"{kind.arch} {kind.attention}" if kind.arch.startswith("san") else kind.arch
    if described := _described_beside(path, kind):
        say(f"{path} has its classes in {path.with_suffix('.json').name}")
        return described
    if kind.outputs != IMAGENET_CLASSES and not nameless:
        raise WeightsError(
            f"{path} does not say what its classes are.",
            why=f"it looks like {network} with {kind.outputs} outputs; no JSON of an export lies beside it.",
            fix=f"{command('san', 'train', '--weights', path)} starts a training from it, with your classes.",
        )
    named = kind.outputs == IMAGENET_CLASSES
    say(f"{path} looks like {network}, {'of ImageNet' if named else f'{kind.outputs} outputs without names'}")
    return ModelInfo(
        name=path.stem,
        classes=imagenet_classes() if named else unnamed(kind.outputs),
        arch=kind.arch,
        attention=kind.attention,
        relation=None,
        preprocessing=IMAGENET,
        data={"name": "ImageNet"} if named else {},
        started_from="unknown",
    )


def info_of_part(
    path: Path,
    state: dict[str, Tensor],
    described: ModelInfo | None,
    *,
    arch: str,
    attention: str,
    relation: str | None,
) -> ModelInfo:
    """What a network is called and shown that takes a part of the file: names stay with a head that fits."""
    head = state.get("fc.weight")
    outputs = len(head) if head is not None and head.ndim else 1
    named = described is not None and len(described.classes) == outputs
    return ModelInfo(
        name=f"a part of {described.name if described else path.name}",
        classes=described.classes if described and named else unnamed(outputs),
        arch=arch,
        attention=attention,
        relation=relation,
        preprocessing=described.preprocessing if described else IMAGENET,
    )


def unnamed(outputs: int) -> tuple[str, ...]:
    """Names for outputs that have none."""
    return tuple(f"output {number}" for number in range(outputs))


def _described_beside(path: Path, kind: weights.Kind) -> ModelInfo | None:
    """What `san export --format authors` wrote beside a file, if it is about the same network."""
    try:
        info = ModelInfo.from_dict(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, *UNLIKE):
        return None
    same = (info.arch, info.attention, len(info.classes)) == (kind.arch, kind.attention, kind.outputs)
    return info if same else None
