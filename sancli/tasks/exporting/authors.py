"""A checkpoint for the authors' own code, github.com/hszhao/SAN."""

import io
from pathlib import Path

import torch

from sancli.config import RELATIONS
from sancli.errors import WeightsError
from sancli.files import replacing
from sancli.runs import Model, ModelInfo
from sancli.tasks.exporting.description import write_beside

PREFIX = "module."
"""Their tool/test.py loads into nn.DataParallel, which puts it before every name."""


def write_authors(model: Model, target: Path) -> list[Path]:
    """Writes what their tool/test.py reads and, beside it, the classes, for which their form has no place.

    Raises:
        WeightsError: Their code has no such network.
        StorageError: No space, or a place that cannot be written.
    """
    _check_known(model.info)
    state = {f"{PREFIX}{name}": value for name, value in model.network.state_dict().items()}
    file = io.BytesIO()
    torch.save({"epoch": model.info.epoch, "state_dict": state}, file)
    with replacing(target) as partial:  # from memory: onto a full disk, torch's own writer hides the reason
        partial.write_bytes(file.getvalue())
    return [target, write_beside(target, model.info)]


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
