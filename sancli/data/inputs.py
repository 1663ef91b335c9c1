"""The images that a user names: files, folders, globs, or names on stdin."""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sancli.data.listing import list_folder

STDIN = "-"


@dataclass
class Found:
    """What was named, and what of it is taken for an image."""

    images: list[Path] = field(default_factory=list)
    """In the order named; inside a folder by name. Whether they can be read is not known yet."""
    folders: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    """What lies in a folder or matches a glob and cannot be an image, and why."""
    unmatched: set[Path] = field(default_factory=set)
    """Globs that match nothing; they are among the images, as files that are not there are."""
    empty: list[tuple[Path, str]] = field(default_factory=list)
    """What was named and gave nothing at all, and why."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files in folders with other endings, by ending."""


def find_images(names: Iterable[str], *, stdin: Iterable[bytes] = ()) -> Found:
    """The images among `names`, each once; a file that is named itself is taken whatever its ending.

    Args:
        names: Files, folders, globs, or - for one name a line from `stdin`.
        stdin: Lines.
    """
    found = Found()
    for name in names:
        if name == STDIN:
            _add_lines(stdin, found)
        elif os.path.lexists(name) or not glob.has_magic(name):
            _add_named(Path(name), found)
        else:
            _add_matches(name, found)
    unique: dict[Path, Path] = {}
    for path in found.images:
        unique.setdefault(path.absolute(), path)
    found.images = list(unique.values())
    found.skipped = list(dict.fromkeys(found.skipped))
    return found


def _add_lines(stdin: Iterable[bytes], found: Found) -> None:
    names = [name for line in stdin if (name := os.fsdecode(line.rstrip(b"\r\n")))]
    for name in names:
        _add_named(Path(name), found)
    if not names:
        found.empty.append((Path(STDIN), "no names came on stdin"))


def _add_named(path: Path, found: Found) -> None:
    before = len(found.images)
    _add(path, found)
    if len(found.images) == before:
        found.empty.append((path, "no images in it"))


def _add_matches(pattern: str, found: Found) -> None:
    """What the glob matches: a shell expands globs itself, but not on Windows, and not in quotes."""
    before = len(found.images)
    matches = sorted(glob.glob(pattern, recursive=True), key=os.fsencode)  # noqa: PTH207 -- relative or not
    links: dict[Path, None] = {}
    for match in map(Path, matches):
        if link := _link_on_the_way(match, pattern):
            links[link] = None
        else:
            _add(match, found)
    found.skipped += [(link, "link to a folder, not followed") for link in links]
    if not matches:
        found.unmatched.add(Path(pattern))
        found.images.append(Path(pattern))
    elif len(found.images) == before:
        found.empty.append((Path(pattern), "no images among what it matches"))


def _link_on_the_way(match: Path, pattern: str) -> Path | None:
    """The first link to a folder that the pattern does not name itself: the match, or what it lies in."""
    spelled = [glob.has_magic(part) for part in Path(pattern).parts].index(True)
    places = (Path(*match.parts[:end]) for end in range(spelled + 1, len(match.parts) + 1))
    # os.path, as Path raises where a link leads to a locked folder
    return next((place for place in places if os.path.islink(place) and os.path.isdir(place)), None)  # noqa: PTH112, PTH114


def _add(path: Path, found: Found) -> None:
    if os.path.isdir(path):  # noqa: PTH112 -- Path.is_dir raises for names that are too long
        _add_folder(path, found)
    else:
        found.images.append(path)  # also where it is not there: that is said beside its name


def _add_folder(folder: Path, found: Found) -> None:
    listing = list_folder(folder)
    found.folders.append(folder)
    found.images += [folder / image for image in listing.images]
    found.skipped += [(folder / problem.path, problem.problem) for problem in listing.problems]
    found.ignored += listing.others
