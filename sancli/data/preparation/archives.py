"""Archives: members looked at before anything is written, then unpacked one by one, counted and checked.

Never `extractall`: regular members only, to names that are computed here, and bytes are counted as they come.
"""

import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO

from sancli.console import progress, size
from sancli.data.listing import Listing, is_ghost, parents
from sancli.data.sniff import HEAD_BYTES, what_is
from sancli.errors import DataError, StorageError, printable
from sancli.files import free_bytes, storage_errors

FREE_EXPANSION = 100 * 2**20
"""Bytes that any archive may expand to; a bomb is stopped before it has written more."""
MAX_EXPANSION = 200
"""Times its own size that an archive may expand to: drawings in flat colours stay under 100 as BMP."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
CHUNK_BYTES = 2**20
DAMAGE = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""All that zipfile raises on damaged members; NotImplementedError is a RuntimeError."""


def list_zip(path: Path) -> Listing:
    """What a zip holds, after every member was found harmless.

    Raises:
        DataError: It is no zip, is damaged or encrypted, or a member would be unsafe to unpack.
    """
    with opened(path) as archive:
        members = archive.infolist()
    check_members(path, members)
    listing = Listing()
    for member in members:
        name = member.filename
        if not member.is_dir() and not any(map(is_ghost, name.split("/"))):
            listing.add_file(name)
    listing.folders = [
        folder
        for folder in parents(member.filename for member in members)  # an entry of a folder ends with /
        if not any(map(is_ghost, folder.split("/")))
    ]
    return listing.sort()


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip.

    Raises:
        DataError: It is no zip, or its table of contents is missing; says what it is.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        kind = what_is(head)
        if kind == "zip":
            raise _damaged(path, f"its table of contents cannot be read: {error}") from None
        looks = kind if kind == "an empty file" else f"it looks like {kind or 'nothing known'}"
        raise DataError(f"{path} is not a zip.", why=f"{looks}.", fix=_advice(kind)) from None
    with archive:
        yield archive


def _advice(kind: str | None) -> str:
    if kind in ("RAR", "7-Zip", "tar", "gzip", "bzip2", "xz"):
        return "unpack it, then give the folder to san prepare."
    return "download it again, and look at what was saved."


def check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuses an archive with one member that must not be unpacked.

    Raises:
        DataError: Naming the member; nothing has been written.
    """
    seen: dict[str, str] = {}
    for member in members:
        name = member.orig_filename
        if why := _unsafe(member):
            raise DataError(
                f"unsafe member {name!r} in {path}; nothing was written.",
                why=f"{why}.",
                fix="get the archive from a source you trust, or unpack it yourself and look.",
            )
        twin = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin is not name and not member.is_dir():
            raise DataError(
                f"two members of {path} have one name: {twin!a} and {name!a}; nothing was written.",
                why="on many systems one would overwrite the other.",
                fix="rename one of them in the archive.",
            )
    _check_expansion(path, sum(member.file_size for member in members))


def _unsafe(member: zipfile.ZipInfo) -> str | None:
    """Why a member must not be unpacked; None where it may be."""
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        return "its name is a place of its own on the disk"
    if ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the folder"
    if "\\" in name or "\0" in name:
        return "its name holds a backslash or a NUL, which systems read differently"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is a link or a device, not a file"
    if member.flag_bits & 1:
        return "it is encrypted; unpack it with its password, then give the folder to san prepare"
    if member.compress_type not in METHODS:
        return f"it is packed by method {member.compress_type}, which Python cannot read; unpack it yourself"
    return None


def _check_expansion(path: Path, total: int) -> None:
    own = path.stat().st_size
    if total > max(FREE_EXPANSION, MAX_EXPANSION * own):
        raise DataError(
            f"{path} expands past {size(max(FREE_EXPANSION, MAX_EXPANSION * own))}; nothing was kept.",
            why=f"it is {size(own)} itself, and no set of images packs that well: it may be a bomb.",
            fix="unpack it yourself if you trust it, then give the folder to san prepare.",
        )


def unpack_zip(path: Path, names: list[str], to: Path) -> dict[str, Path]:
    """Writes the named members into the folder `to`, under numbers for names.

    Returns:
        The file of each member.

    Raises:
        DataError: A member is damaged or holds other than the archive says.
        StorageError: There is no room.
    """
    files: dict[str, Path] = {}
    with opened(path) as archive, progress("Unpacking", total=len(names), unit="files") as bar:
        _check_room(path, to, sum(archive.getinfo(name).file_size for name in names))
        total = 0
        for number, name in enumerate(names):
            target = to / f"{number:07}"
            with storage_errors(to), target.open("wb") as file:
                total += _copy(archive, name, file, path=path, before=total)
            files[name] = target
            bar.advance()
    return files


def _copy(archive: zipfile.ZipFile, name: str, file: BinaryIO, *, path: Path, before: int) -> int:
    count = 0
    for chunk in _chunks(archive, name, path):
        count += len(chunk)
        _check_expansion(path, before + count)  # the header may lie; what is counted does not
        file.write(chunk)
    return count


def _chunks(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[bytes]:
    try:
        with archive.open(name) as member:
            while chunk := member.read(CHUNK_BYTES):
                yield chunk
    except DAMAGE as error:
        raise _damaged(path, f"member {name!r}: {printable(error)}") from None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is cut off or damaged; nothing was kept.",
        why=f"{why.rstrip('.')}.",
        fix="download or copy it again; its size should be the same as at its source.",
    )


def _check_room(path: Path, to: Path, needed: int) -> None:
    if needed > (free := free_bytes(to)):
        raise StorageError(
            f"no space to unpack {path}.",
            why=f"it needs {size(needed)}, and {size(free)} are free at {to.parent}.",
            fix="free some space, or name an OUT on another disk.",
        )
