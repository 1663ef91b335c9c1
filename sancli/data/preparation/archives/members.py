"""Members of archives: what each kind of archive says of them, and which are refused."""

import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from lzma import LZMAError

from sancli.data.listing import MAX_DEPTH
from sancli.errors import DataError

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError),
)
"""What the standard library raises on damaged archives; NotImplementedError is a RuntimeError."""
MAX_NAME = 4096
"""Characters of a member's name with its folders; Linux opens no longer ones."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive, and how its bytes are had."""

    name: str
    """With / between its parts; behind the name of the inner archive that it lies in, if it does."""
    size: int
    """In bytes, as the archive says."""
    is_folder: bool
    unsafe: str | None
    """Why it must not be unpacked, whatever its name."""
    open: Callable[[], BufferedReader]
    """Before the next member is asked for: archives are read in one direction."""


def unsafe_name(name: str) -> str | None:
    """Why nothing with such a name is unpacked; None where it may be."""
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        return "its name is a place of its own on the disk"
    if ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the folder"
    if "\\" in name or "\0" in name:
        return "its name holds a backslash or a NUL, which systems read differently"
    if len(name) > MAX_NAME or name.count("/") > MAX_DEPTH:
        return f"its name is longer than {MAX_NAME} characters, or deeper than {MAX_DEPTH} folders"
    return None


def plain(name: str) -> str:
    """The name without parts that mean nothing: ./cat//1.png is cat/1.png."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def refuse(name: str, archive: object, why: str) -> DataError:
    """The error for a member that must not be unpacked."""
    return DataError(
        f"unsafe member {name!r} in {archive}; nothing was written.",
        why=f"{why}.",
        fix="get the archive from a source you trust, or unpack it yourself and look.",
    )


def damaged(archive: object, why: object) -> DataError:
    """The error for an archive that does not hold what it says."""
    words = str(why).rstrip(".") or type(why).__name__
    return DataError(
        f"{archive} is cut off or damaged; nothing was kept.",
        why=f"{words}.",
        fix="download or copy it again; its size should be the same as at its source.",
    )


class Names:
    """The names of files that were met, to find two that some disk takes for one."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def add(self, name: str, archive: object) -> None:
        """Takes the name of one more file.

        Raises:
            DataError: Another has it already, perhaps in other letters; names both.
        """
        key = unicodedata.normalize("NFC", name).casefold()
        if key in self.seen:
            both = f"{self.seen[key]!a} and {name!a}"
            raise DataError(
                f"two members of {archive} have one name: {both}; nothing was written.",
                why="on many systems one would overwrite the other.",
                fix="rename one of them in the archive.",
            )
        self.seen[name if key == name else key] = name  # one text for both, for a million members
