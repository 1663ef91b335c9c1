"""Images into one folder a label: --sort-into."""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from sancli.files import replacing, storage_errors
from sancli.report.predictions import Prediction


def sort_into(folder: Path, predictions: Sequence[Prediction]) -> tuple[int, int]:
    """Copies each image that could be read into folder/<label>/: how many copies, how many were there.

    Copies and not links: who edits one of them changes no original. A file that is already there stays: the
    same one is not copied again, and another one gives the copy a number.
    """
    readable = [one for one in predictions if not one.error]
    copied = sum(copy(one.path, folder / folder_name(one.label)) for one in readable)
    return copied, len(readable) - copied


def copy(path: Path, folder: Path) -> bool:
    """Puts a copy of the file into the folder, whole or not at all; False where it is there already."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        target, number = folder / path.name, 1
        while target.exists():
            if filecmp.cmp(path, target, shallow=False):
                return False
            number += 1
            target = folder / f"{path.stem}-{number}{path.suffix}"
        with replacing(target) as partial:
            shutil.copy2(path, partial)
    return True


def folder_name(label: str) -> str:
    """The label as the name of one folder: labels come with the model, and may be called ../.. or a/b."""
    name = "".join(char if char.isprintable() and char not in '/\\:*?"<>|' else "_" for char in label)
    return name if name.strip(". ") else "_"
