"""Holds a prepared folder to its hashes: every image and all that is said of them there, and nothing else."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sancli.config import SPLITS
from sancli.console import progress
from sancli.data.preparation.scan import UNREAD, hash_file
from sancli.data.preparation.threads import in_threads
from sancli.data.prepared import (
    IMAGE_COLUMNS,
    MANIFEST,
    OWN_FILES,
    SPLITS_CSV,
    SUMS,
    UNLABELLED,
    Manifest,
    Prepared,
    read_sums,
)
from sancli.errors import DataError

KINDS = ("missing", "changed", "unreadable", "extra")


@dataclass
class Verdict:
    """What was looked at, and what is wrong; paths are relative to the folder."""

    images: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    """Files and folders that san prepare did not put there."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """The paths by what is wrong with them, where anything is."""
        return {kind: paths for kind in KINDS if (paths := sorted(getattr(self, kind)))}


def verify(prepared: Prepared) -> Verdict:
    """Reads every file of a prepared folder again.

    Raises:
        DataError: splits.csv is gone or damaged: there is nothing to hold the images to.
    """
    root, verdict = prepared.root, Verdict()
    hashes = _read_hashes(root)
    verdict.images = len(hashes)
    _look_at_own_files(prepared, verdict)
    if not {SPLITS_CSV, MANIFEST} & {*verdict.changed} and not _agree(prepared.manifest, hashes):
        verdict.changed.append(MANIFEST)
    with progress("Checking files", total=len(hashes), unit="images") as bar:
        found = in_threads(lambda path: _fault(root / path, hashes[path]), hashes)
        for path, fault in zip(hashes, found, strict=True):
            if fault is not None:
                getattr(verdict, fault).append(path)
            bar.advance()
    verdict.extra += _strangers(root, hashes.keys() | {*OWN_FILES})
    return verdict


def _look_at_own_files(prepared: Prepared, verdict: Verdict) -> None:
    root, sums = prepared.root, read_sums(prepared.root)
    there = [name for name in OWN_FILES if (root / name).is_file()]
    verdict.missing += [name for name in OWN_FILES if name not in there]
    expected = sums or {SPLITS_CSV: prepared.manifest.splits_sha256}
    verdict.changed += [name for name in there if expected.get(name, "") not in ("", hash_file(root / name))]
    verdict.changed += [SUMS] if SUMS in there and not sums else []


def _agree(manifest: Manifest, paths: Iterable[str]) -> bool:
    """Whether dataset.json has the classes and the numbers of images that splits.csv has."""
    found = Counter(tuple(path.split("/")[:-1]) for path in paths)
    unlabelled = found.pop((UNLABELLED,), 0)
    said = {(split, name): count for split, row in manifest.counts.items() for name, count in row.items()}
    classes = {name for _, name in found}
    return (found, sorted(classes), unlabelled) == (
        {place: count for place, count in said.items() if count},
        list(manifest.classes),
        manifest.unlabelled,
    )


def _fault(file: Path, sha256: str) -> str | None:
    if not file.exists():  # a symbolic link whose source has gone, too
        return "missing"
    found = hash_file(file) if file.is_file() else UNREAD
    if found == UNREAD:
        return "unreadable"
    return None if found == sha256 else "changed"


def _read_hashes(root: Path) -> dict[str, str]:
    """{path: sha256} of every image."""
    try:
        with (root / SPLITS_CSV).open(newline="", encoding="utf-8") as file:
            return dict(_hashes(root, csv.reader(file, strict=True)))
    except FileNotFoundError:
        raise _unusable(root, "it is missing") from None
    except (OSError, ValueError, csv.Error) as error:
        raise _unusable(root, str(error)) from None


def _hashes(root: Path, rows: Iterable[list[str]]) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows, start=1):
        if number == 1 and row == [*IMAGE_COLUMNS]:
            continue
        known = dict(zip(IMAGE_COLUMNS, row, strict=False))
        if len(row) != len(IMAGE_COLUMNS) or not _lies_inside(known["file"]):
            raise _unusable(root, f"line {number} is not as san prepare writes it")
        yield known["file"], known["sha256"]


def _lies_inside(path: str) -> bool:
    """Whether it is a place of an image in a prepared folder, and leads nowhere else."""
    top, *rest = path.split("/")
    depth = {UNLABELLED: 1} | dict.fromkeys(SPLITS, 2)
    return len(rest) == depth.get(top) and not {"", ".", ".."} & {*rest} and "\0" not in path


def _unusable(root: Path, why: str) -> DataError:
    return DataError(
        f"{root / SPLITS_CSV} is damaged, and with it the hashes of the images.",
        why=f"{why}.",
        fix="prepare it again with --force, from the source.",
    )


def _strangers(root: Path, known: set[str]) -> Iterator[str]:
    """What is there besides; names that begin with a dot are no data to any command."""
    folders = {"/".join(path.split("/")[:depth]) for path in known for depth in range(1, path.count("/") + 1)}
    for place, inner, files in os.walk(root):
        inside = Path(place).relative_to(root)
        names = {name: (inside / name).as_posix() for name in (*inner, *files) if not name.startswith(".")}
        inner[:] = [name for name in inner if names.get(name) in folders]
        yield from (path for name, path in names.items() if path not in known and name not in inner)
