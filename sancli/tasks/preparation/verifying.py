"""`san prepare --check`: whether a prepared folder is still what was prepared."""

from pathlib import Path

from sancli.console import emit, next_command, plural, result
from sancli.data.preparation.verification import KINDS, verify
from sancli.data.prepared import open_prepared
from sancli.errors import DataError

SHOWN = 10
"""Files named on the screen; --json names all."""


def check(root: Path) -> None:
    """Says that a prepared folder is whole, or what is wrong with it.

    Raises:
        DataError: A file is missing, changed, unreadable or not of the folder.
    """
    prepared = open_prepared(root)
    verdict = verify(prepared)
    faults = verdict.faults
    for kind, paths in faults.items():
        for path in paths[:SHOWN]:
            result(f"{kind:10} {path}")
        if len(paths) > SHOWN:
            result(f"{kind:10} and {len(paths) - SHOWN:,} more; --json names all")
    emit(
        {
            "command": "prepare",
            "check": str(root),
            "whole": not faults,
            "images": verdict.images,
            **{kind: faults.get(kind, []) for kind in KINDS},
        }
    )
    if faults:
        raise DataError(
            f"{root} is not as san prepare left it.",
            why=", ".join(f"{len(paths):,} {kind}" for kind, paths in faults.items())
            + f", of {plural(verdict.images, 'image')}.",
            fix="put them back, or prepare it again with --force, from the source.",
        )
    images = plural(verdict.images, "image")
    result(f"{root} is whole: {images} and what is said of them, as san prepare left it.")
    if "train" in prepared.splits:
        next_command("san", "train", root)
