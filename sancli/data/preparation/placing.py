"""Gives every image its place in the prepared folder: a safe, unique name, and a link instead of a copy.

A hard link shares its bytes with the source, so nothing in a prepared folder is ever modified in place.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sancli.console import progress
from sancli.data.images import ENDINGS
from sancli.data.preparation.classes import clean, same_name
from sancli.data.preparation.picture import Picture
from sancli.errors import StorageError
from sancli.files import storage_errors

MAX_NAME_BYTES = 255
"""What Linux, macOS and Windows allow at the least."""


def assign_names(pictures: Sequence[Picture]) -> dict[str, str]:
    """A file name for each picture, by its path in the source; unique in its class on every disk.

    The source's own name stays wherever it can; its ending is mended where the content is something else.
    """
    names: dict[str, str] = {}
    taken: set[tuple[str | None, str]] = set()
    for picture in pictures:
        name, number = _name(picture), 1
        while (picture.label, same_name(name)) in taken:
            number += 1
            name = _name(picture, f"-{number}")
        taken.add((picture.label, same_name(name)))
        names[picture.path] = name
    return names


def _name(picture: Picture, addition: str = "") -> str:
    base, dot, ending = picture.path.rpartition("/")[2].rpartition(".")
    right = ENDINGS[picture.format]
    ending = dot + ending if (dot + ending).lower() in right else right[0]
    stem = clean(base)
    room = MAX_NAME_BYTES - len((addition + ending).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + addition + ending


def place_of(picture: Picture, name: str) -> str:
    """SPLIT/CLASS/NAME, relative to the prepared folder; unlabelled ones have no class folder."""
    return "/".join(filter(None, (picture.split, picture.label, name)))


def place_files(pictures: Sequence[Picture], names: dict[str, str], to: Path, *, link: str) -> Counter[str]:
    """Puts each picture at to/SPLIT/CLASS/NAME.

    Args:
        pictures: With a split each.
        names: From `assign_names`.
        to: The folder that is being built.
        link: auto (a hard link, else a copy), hard, sym, copy; or move, for files that are ours.

    Returns:
        How many files came there in which way: hard, sym, copy, move.
    """
    ways: Counter[str] = Counter()
    made: set[Path] = set()
    with storage_errors(to), progress("Writing", total=len(pictures), unit="images") as bar:
        for picture in pictures:
            target = to / place_of(picture, names[picture.path])
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            ways[_place(picture.file, target, link)] += 1
            bar.advance()
    return ways


def _place(file: Path, target: Path, link: str) -> str:
    if link == "move":
        file.rename(target)
        return "move"
    file = file.resolve()  # else a link would lead to a link
    if link in ("auto", "hard"):
        try:
            os.link(file, target)
        except OSError as error:  # another disk, a disk without links, another owner's file, too many links
            if link == "hard":
                raise _no_hard_link(file, error) from None
        else:
            return "hard"
    if link == "sym":
        target.symlink_to(file)
        return "sym"
    shutil.copyfile(file, target)
    return "copy"


def _no_hard_link(file: Path, error: OSError) -> StorageError:
    return StorageError(
        f"no hard link to {file} can be made.",
        why=f"{error.strerror}.",
        fix="name an OUT on the disk of the source, or use --link copy.",
    )
