"""The images that a user names: files, folders, globs, or names on stdin."""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sancli.data.listing import list_folder
from sancli.errors import UsageError

STDIN = "-"


@dataclass
class Found:
    """What was named, and what of it is taken for an image."""

    images: list[Path] = field(default_factory=list)
    """In the order named; inside a folder by name. Whether they can be read is not known yet."""
    folders: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """What lies in a folder and cannot be an image, and why."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files in folders with other endings, by ending."""


def find_images(names: Iterable[str], *, stdin: Iterable[bytes] = ()) -> Found:
    """The images among `names`, each once; a file that is named itself is taken whatever its ending.

    Args:
        names: Files, folders, globs, or - for one name a line from `stdin`.
        stdin: Lines.

    Raises:
        UsageError: A glob matches nothing.
    """
    found = Found()
    for name in names:
        for path in _lines(stdin) if name == STDIN else _expanded(name):
            if os.path.isdir(path):  # noqa: PTH112 -- Path.is_dir raises for names that are too long
                _add_folder(path, found)
            else:
                found.images.append(path)  # also where it is not there: that is said beside its name
    unique: dict[Path, Path] = {}
    for path in found.images:
        unique.setdefault(path.absolute(), path)
    found.images = list(unique.values())
    return found


def _lines(stdin: Iterable[bytes]) -> list[Path]:
    names = (os.fsdecode(line.rstrip(b"\r\n")) for line in stdin)
    return [Path(name) for name in names if name]


def _expanded(name: str) -> list[Path]:
    """The name, or what it matches: a shell expands globs itself, but not on Windows, and not in quotes."""
    if os.path.lexists(name) or not glob.has_magic(name):
        return [Path(name)]
    if matches := sorted(glob.glob(name, recursive=True), key=os.fsencode):  # noqa: PTH207 -- relative or not
        return [Path(match) for match in matches]
    raise UsageError(f"{name} matches nothing.", why=f"looked from {Path.cwd()}.", fix="check the path.")


def _add_folder(folder: Path, found: Found) -> None:
    listing = list_folder(folder)
    found.folders.append(folder)
    found.images += [folder / image for image in listing.images]
    found.skipped += [(folder / problem.path, problem.problem) for problem in listing.problems]
    found.ignored += listing.others
