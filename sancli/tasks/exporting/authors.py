"""A checkpoint for the authors' own code, github.com/hszhao/SAN."""

import io
from pathlib import Path
from typing import Any

import torch

from sancli import console
from sancli.config import RELATIONS
from sancli.data.preprocessing import Preprocessing
from sancli.errors import WeightsError
from sancli.files import replacing
from sancli.runs import Model, ModelInfo
from sancli.tasks.exporting.description import write_beside

THEIR_VIEW = Preprocessing(image_size=224, crop_share=0.875)
"""What their tool/test.py shows a network, whatever it learnt from."""
PREFIX = "module."
"""Their tool/test.py loads into nn.DataParallel, which puts it before every name."""


def write_authors(model: Model, target: Path) -> dict[str, Any]:
    """Writes what their tool/test.py reads and, beside it, the classes, for which their form has no place.

    Raises:
        WeightsError: Their code has no such network.
        StorageError: No space, or a place that cannot be written.
    """
    _check_known(model.info)
    state = {f"{PREFIX}{name}": value for name, value in model.network.state_dict().items()}
    file = io.BytesIO()
    # torch before 1.6, on which their code stands, knows the older form alone
    torch.save({"epoch": model.info.epoch, "state_dict": state}, file, _use_new_zipfile_serialization=False)
    with replacing(target) as partial:  # from memory: onto a full disk, torch's own writer hides the reason
        partial.write_bytes(file.getvalue())
    write_beside(target, model.info)
    view = model.info.preprocessing
    if view != THEIR_VIEW:
        seen = f"{view.image_size} px, {view.crop}{', equalized' if view.equalize else ''}"
        console.say(f"Their tool/test.py shows it the middle 224 of 256 px, not {seen}: figures will differ")
    return {}


def their_test(model: Model, target: Path) -> tuple[object, ...]:
    """The command that measures it, in a checkout of their code: on the val folder of prepared data."""
    info = model.info
    config = f"config/imagenet/imagenet_{info.arch}_{info.attention}.yaml"
    data = "data_root", info.data.get("path") or "DATA", "classes", len(info.classes)
    places = "model_path", target.absolute(), "save_path", "."  # the latter need only exist
    return "python", "-m", "tool.test", "--config", config, *data, *places


def _check_known(info: ModelInfo) -> None:
    """Refuses networks that are none of theirs, though some of them have the same names and shapes."""
    theirs = RELATIONS[info.attention][0]
    if info.arch.startswith("san") and info.relation in (None, theirs):
        return
    network = f"{info.arch} {info.attention} with {info.relation}" if info.relation else info.arch
    raise WeightsError(
        f"{network} cannot be written for the authors' code.",
        why=f"it has san10, san15 and san19, pairwise with {RELATIONS['pairwise'][0]} and patchwise with"
        f" {RELATIONS['patchwise'][0]}.",
        fix="san export --format safetensors",
    )
