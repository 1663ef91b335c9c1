"""A folder as the Hugging Face Hub shows a model: weights, description, card and figures."""

import json
import os
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from sancli import weights
from sancli.errors import UsageError
from sancli.files import new_folder, storage_errors, write_json
from sancli.model.zoo import PUBLISHED
from sancli.report.card import shows, write_card
from sancli.runs import Model, Run
from sancli.tasks.exporting.description import shareable

WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "model.json", "README.md"
CURVES, MATRIX = "curves.png", "confusion_matrix.png"
FILES = {WEIGHTS, DESCRIPTION, CARD, CURVES, MATRIX}
CONDITIONS = (
    *("preset", "epochs", "batch_size", "optimizer", "lr", "weight_decay", "label_smoothing", "mixup"),
    *("cutmix", "augment", "seed"),
)
"""Of the run's settings, what shaped the weights; none of them names a place."""
UNKNOWN, THEIRS = "unknown", "mit"
"""What the Hub calls no licence, and that of the authors' release."""


def write_hub(
    model: Model,
    target: Path,
    *,
    license: str | None = None,  # noqa: A002 -- the Hub's word
    repository: str | None = None,
) -> list[Path]:
    """Writes the folder, in place of one that was exported before; the paths of its files.

    Args:
        model: What goes into it.
        target: The folder. One that is there holds nothing but what an export wrote: `check_replaceable`.
        license: For the card. None: what is known about it.
        repository: OWNER/NAME, where the folder is to be published.

    Raises:
        StorageError: No space, or a place that cannot be written.
    """
    info = shareable(model.info)
    evaluation, matrix = evaluation_of(model)
    curves = model.run.folder / CURVES if model.run else None
    figures = {name: path for name, path in ((CURVES, curves), (MATRIX, matrix)) if path and path.is_file()}
    built = target.with_name(f".{target.name}.{os.getpid()}.new") if target.exists() else target
    with new_folder(built) as folder:
        weights.save(folder / WEIGHTS, model.network.state_dict(), info=json.dumps(info.to_dict()))
        write_json(folder / DESCRIPTION, info.to_dict())
        with storage_errors(folder):
            for name, path in figures.items():
                shutil.copyfile(path, folder / name)
        write_card(
            folder / CARD,
            info.to_dict(),
            evaluation=evaluation,
            conditions=conditions(model.run),
            pictures=tuple(figures),
            license=license or known_license(model),
            repository=repository,
        )
    if built != target:
        with storage_errors(target):
            shutil.rmtree(target)
            built.rename(target)
    return sorted(target.iterdir())


def check_replaceable(folder: Path) -> None:
    """Refuses to replace a folder that holds anything that no export wrote.

    Raises:
        UsageError: With the name of such a file.
    """
    names = set() if folder.is_symlink() else {path.name for path in folder.iterdir()}
    if folder.is_symlink():
        why = "it is a link."
    elif names - FILES:
        why = f"it holds {min(names - FILES)}, which no export wrote."
    elif names and not {WEIGHTS, DESCRIPTION} <= names:
        why = "it holds no exported model."
    else:
        return
    raise UsageError(
        f"{folder} is not replaced, not even with --force.", why=why, fix="name another folder with -o."
    )


def made_before(card: str) -> set[str]:
    """The figures that an earlier export put beside its card: only those that the card shows."""
    return {name for name in (CURVES, MATRIX) if shows(card, name)}


def known_license(model: Model) -> str:
    """MIT for the authors' networks as they are; of all others only their owner can say it."""
    return THEIRS if model.run is None and model.info.name in PUBLISHED else UNKNOWN


def evaluation_of(model: Model) -> tuple[dict[str, Any] | None, Path | None]:
    """metrics.json and the confusion matrix of the run, on test where that was measured, else on val.

    Figures of other weights, as those of an earlier epoch, are not this model's.
    """
    for split in ("test", "val") if model.run else ():
        folder = model.run.folder / f"eval-{split}"  # type: ignore[union-attr]
        with suppress(OSError, ValueError, TypeError, KeyError):
            figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            if figures["model"]["epoch"] == model.info.epoch:
                return figures, folder / MATRIX
    return None, None


def conditions(run: Run | None) -> dict[str, Any]:
    """How the run was trained, from its settings; {} where they are not there."""
    with suppress(OSError, ValueError, AttributeError):
        settings = tomllib.loads(run.config.read_text(encoding="utf-8"))  # type: ignore[union-attr]
        return {key.replace("_", " "): settings[key] for key in CONDITIONS if key in settings}
    return {}
