"""Archives: looked through before anything is written, then unpacked member by member, counted and checked.

Never `extractall`: regular members only, to names that are computed here, and bytes are counted as they come.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sancli.console import Bar, progress, size
from sancli.data.listing import Listing, is_ghost, list_folder, parents
from sancli.data.preparation.archives.members import DAMAGE, Member, Names, damaged
from sancli.data.preparation.archives.walking import is_archive, walk, without_ending
from sancli.data.preparation.room import check_room
from sancli.errors import DataError, printable
from sancli.files import storage_errors

__all__ = ["Contents", "is_archive", "list_archive", "read_members", "unpack", "without_ending"]

MAX_NESTING = 3
"""Archives in archives in an archive are opened so deep, where no image lies further up."""
CHUNK_BYTES = 2**20
MIB = 2**20


@dataclass
class Contents:
    """What an archive holds by name, and how it is read again."""

    path: Path
    listing: Listing = field(default_factory=Listing)
    """Images in archives inside are named n01440764.tar/n01440764_18.JPEG."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of every file, ghosts left out."""
    depth: int = 0
    """So deep are archives inside entered."""


def list_archive(path: Path) -> Contents:
    """What an archive, or a folder of archives, holds, after every member was found harmless.

    Nothing is written. Archives inside are entered where there are no images beside them; in a folder always.

    Raises:
        DataError: It is no archive, is damaged or encrypted, or a member would be unsafe to unpack.
    """
    outermost = int(path.is_dir())
    for depth in range(outermost, outermost + MAX_NESTING):
        contents = _look(path, depth)
        if contents.listing.images or not any(map(is_archive, contents.sizes)):
            break
    return contents


def _look(path: Path, depth: int) -> Contents:
    contents, names, folders = Contents(path, depth=depth), Names(), []
    total = path.stat().st_size
    if path.is_dir():
        around = list_folder(path)
        total = sum((path / name).stat().st_size for name in around.archives)
        contents.listing.problems, contents.listing.others = around.problems, around.unused()
    with progress(f"Reading {printable(path.name)}", total=total // MIB + 1, unit="MiB") as bar:
        for member in walk(path, depth=depth, reached=_Reached(bar)):
            ghost = any(map(is_ghost, member.name.split("/")))
            if member.is_folder:
                folders += [] if ghost else [f"{member.name}/"]
                continue
            names.add(member.name, path)
            if not ghost:
                contents.sizes[member.name] = member.size
                contents.listing.add_file(member.name)
    contents.listing.folders = list(parents([*folders, *contents.sizes]))
    contents.listing.nested = depth > 0
    contents.listing.sort()
    return contents


class _Reached:
    """Moves a bar of MiB along with the place in a file; quick looks end without a line."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def __call__(self, place: int) -> None:
        if place // MIB > self.bar.done:
            self.bar.advance(place // MIB - self.bar.done)


def unpack(contents: Contents, names: Sequence[str], to: Path) -> list[str]:
    """Writes the named members into the folder `to`, under numbers for names.

    Returns:
        The file of each member, in the order of the names.

    Raises:
        DataError: A member is damaged or holds other than the archive says, or the archive has changed.
        StorageError: There is no room.
    """
    check_room(sum(contents.sizes[name] for name in names), to, f"unpack {contents.path}")
    files = [str(to / f"{number:07}") for number in range(len(names))]
    missing = dict(zip(names, files, strict=True))
    with progress("Unpacking", total=len(names), unit="files") as bar:
        for member in walk(contents.path, depth=contents.depth) if missing else ():
            if member.is_folder or (target := missing.pop(member.name, None)) is None:
                continue
            with storage_errors(to), Path(target).open("wb") as file:
                file.writelines(_chunks(member, contents.path))
            bar.advance()
            if not missing:
                break
    _check_none(contents, missing)
    return files


def _chunks(member: Member, path: Path) -> Iterator[bytes]:
    """The bytes of a member.

    Raises:
        DataError: It is damaged, or not as long as it was said to be.
    """
    count = 0
    try:
        with member.open() as file:
            while chunk := file.read(CHUNK_BYTES):
                count += len(chunk)
                yield chunk
    except DAMAGE as error:
        raise damaged(path, f"member {member.name!r}: {printable(error)}") from None
    if count != member.size:
        raise damaged(path, f"member {member.name!r} has {count:,} bytes instead of {member.size:,}")


def read_members(contents: Contents, names: Collection[str], *, limit: int) -> dict[str, bytes]:
    """The bytes of a few small members, such as tables of labels.

    Args:
        contents: From `list_archive`.
        names: Of members.
        limit: Bytes of one.

    Raises:
        DataError: One is damaged or larger than `limit`.
    """
    wanted, found = set(names), dict[str, bytes]()
    for name in wanted:
        if contents.sizes.get(name, 0) > limit:
            raise DataError(
                f"{name} in {contents.path} is too large.",
                why=f"it is {size(contents.sizes[name])}, and {size(limit)} are read at most.",
                fix="look at what it holds; a table of labels is far smaller.",
            )
    for member in walk(contents.path, depth=contents.depth):
        if member.name in wanted and not member.is_folder:
            found[member.name] = b"".join(_chunks(member, contents.path))
            if len(found) == len(wanted):
                break
    _check_none(contents, wanted.difference(found))
    return found


def _check_none(contents: Contents, missing: Collection[str]) -> None:
    if missing:
        raise damaged(contents.path, f"{min(missing)!r} was there a moment ago, and is gone")
