"""Images into one folder a label: --sort-into."""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from sancli.files import replacing, storage_errors
from sancli.report.predictions import Prediction


def sort_into(folder: Path, predictions: Sequence[Prediction]) -> int:
    """Copies each image that could be read into folder/<label>/, and gives back how many.

    Copies and not links: who edits one of them changes no original. A file that is already there stays: the
    same one is not copied again, and another one gives the copy a number.
    """
    readable = [one for one in predictions if not one.error]
    for one in readable:
        copy(one.path, folder / folder_name(one.label))
    return len(readable)


def copy(path: Path, folder: Path) -> None:
    """Puts a copy of the file into the folder, whole or not at all."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        target, number = folder / path.name, 1
        while target.exists():
            if filecmp.cmp(path, target, shallow=False):
                return
            number += 1
            target = folder / f"{path.stem}-{number}{path.suffix}"
        with replacing(target) as partial:
            shutil.copy2(path, partial)


def folder_name(label: str) -> str:
    """The label as the name of one folder: labels come with the model, and may be called ../.. or a/b."""
    name = "".join(char if char.isprintable() and char not in '/\\:*?"<>|' else "_" for char in label)
    return name if name.strip(". ") else "_"
