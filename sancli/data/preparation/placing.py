"""Gives every image its place in the prepared folder: a safe, unique name, and a link instead of a copy.

A hard link shares its bytes with the source, so nothing in a prepared folder is ever modified in place.
"""

import errno
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sancli.console import progress
from sancli.data.images import ENDINGS
from sancli.data.preparation.classes import clean, same_name
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.room import check_room
from sancli.errors import StorageError
from sancli.files import storage_errors

MAX_NAME_BYTES = 255
"""What Linux, macOS and Windows allow at the least."""
FICLONE = 0x40049409
"""Source: linux/fs.h."""


def assign_places(pictures: Iterable[Picture]) -> list[str]:
    """A place for each picture, relative to the prepared folder: SPLIT/CLASS/NAME, or unlabelled/NAME.

    Names are unique in their class on every disk. The source's own stays wherever it can; its ending is
    mended where the content is something else.
    """
    places: list[str] = []
    taken: dict[str | None, set[str]] = defaultdict(set)
    for picture in pictures:
        name, number = _name(picture), 1
        while (key := same_name(name)) in taken[picture.label]:
            number += 1
            name = _name(picture, f"-{number}")
        taken[picture.label].add(key)
        places.append("/".join(filter(None, (picture.split, picture.label, name))))
    return places


def _name(picture: Picture, addition: str = "") -> str:
    base, dot, ending = picture.path.rpartition("/")[2].rpartition(".")
    right = ENDINGS[picture.format]
    ending = dot + ending if (dot + ending).lower() in right else right[0]
    stem = clean(base)
    room = MAX_NAME_BYTES - len((addition + ending).encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + addition + ending


def place_files(pictures: Sequence[Picture], places: Sequence[str], to: Path, *, link: str) -> Counter[str]:
    """Puts each picture into its place in the folder `to`.

    Args:
        pictures: With a split each.
        places: From `assign_places`.
        to: The folder that is being built.
        link: A way of `WAYS`; auto: the first of them that the disk allows; or move, for files that are ours.

    Returns:
        How many files came there in which way: hard, sym, reflink, copy, move.
    """
    ways: Counter[str] = Counter()
    make_folders(places, to)
    check_room(_bytes_to_copy(pictures, to, link), to, "copy the images")
    with storage_errors(to), progress("Writing", total=len(pictures), unit="images") as bar:
        for picture, place in zip(pictures, places, strict=True):
            ways[place_file(Path(picture.file), to / place, link)] += 1
            bar.advance()
    return ways


def _bytes_to_copy(pictures: Iterable[Picture], to: Path, link: str) -> int:
    """What copies will take; of --link auto those from other disks, where nothing can be shared."""
    if link not in ("auto", "copy"):
        return 0
    disk = to.stat().st_dev
    found = (Path(picture.file).stat() for picture in pictures)
    return sum(status.st_size for status in found if link == "copy" or status.st_dev != disk)


def make_folders(places: Iterable[str], to: Path) -> None:
    """Makes the folders that the files will lie in."""
    with storage_errors(to):
        for folder in {place.rpartition("/")[0] for place in places}:
            (to / folder).mkdir(parents=True, exist_ok=True)


def place_file(file: Path, target: Path, link: str) -> str:
    """Makes `target` the same picture as `file`; gives back the way in which it was done.

    Raises:
        StorageError: The disk does not allow the way that was asked for.
    """
    if link == "move":
        file.rename(target)
        return "move"
    file = file.resolve()  # else a link would lead to a link
    if link != "auto":
        try:
            WAYS[link](file, target)
        except OSError as error:
            if link in ("hard", "reflink"):
                raise _not_allowed(link, file, error) from None
            raise
        return link
    for way in ("hard", "reflink"):
        with suppress(OSError):  # another disk, a disk without links, another owner's file, too many links
            WAYS[way](file, target)
            return way
    shutil.copyfile(file, target)
    return "copy"


def _clone(file: Path, target: Path) -> None:
    """The blocks of a file are shared until one of the two is changed: Btrfs, XFS, bcachefs on Linux."""
    if os.name == "nt":
        raise OSError(errno.ENOTSUP, "no reflinks on this system")
    import fcntl

    with file.open("rb") as source, target.open("xb") as clone:
        try:
            fcntl.ioctl(clone, FICLONE, source.fileno())
        except OSError:
            target.unlink()
            raise


def _symlink(file: Path, target: Path) -> None:
    target.symlink_to(file)


def _copy(file: Path, target: Path) -> None:
    shutil.copyfile(file, target)


def _hard_link(file: Path, target: Path) -> None:
    os.link(file, target)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "hard": _hard_link,
    "sym": _symlink,
    "reflink": _clone,
    "copy": _copy,
}
"""The values of --link besides auto."""


def _not_allowed(link: str, file: Path, error: OSError) -> StorageError:
    return StorageError(
        f"no {'hard link to' if link == 'hard' else 'reflink of'} {file} can be made.",
        why=f"{error.strerror}.",
        fix="name an OUT on the disk of the source, or use --link copy."
        if link == "hard"
        else "reflinks need Btrfs or XFS, and an OUT on the disk of the source; or use --link copy.",
    )
