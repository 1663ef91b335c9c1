"""Tars by the standard library's tarfile; what it ends at silently, or hangs on, is refused here."""

import re
import tarfile
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from typing import IO, BinaryIO, cast

from sancli.data.preparation.archives.members import Member

BLOCK = tarfile.BLOCKSIZE
HEADER_BYTES = 2**16
"""Of all headers of one member: real ones take a few hundred, and tarfile holds them in memory."""
PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
BODY = b"\1"
"""Stands for what follows a header of these types, and is no header itself."""
DIGITS = re.compile(rb"\d{200}")
"""Python before 3.11.10 spends time by the square of their number (CVE-2024-6232)."""
TAIL_BYTES = 2**20


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar, by the sum of its first header."""
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """The members of an unpacked tar, in their order; the bytes behind its end are looked at too.

    Raises:
        tarfile.TarError: It is damaged, or cut off, between two members too.
    """
    forward = Forward(file)
    # the stubs ask for more of a file than tarfile does
    archive = tarfile.TarFile(fileobj=cast("IO[bytes]", forward), encoding="utf-8", errors="surrogateescape")
    while (info := forward.header(archive)) is not None:
        yield Member(info.name, info.size, info.isdir(), _unsafe(info), partial(_open, archive, info))
        vars(archive)["members"].clear()  # else a million of them stay in memory; the stubs hide it
    forward.check_end()


def _open(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BufferedReader:
    return cast("BufferedReader", archive.extractfile(info))


def _unsafe(info: tarfile.TarInfo) -> str | None:
    if info.issparse():
        return "it is stored with holes (sparse); make the tar without them"
    if not (info.isreg() or info.isdir()):
        return "it is a link or a device, not a file"
    return "its size is negative" if info.size < 0 else None


class Forward:
    """What tarfile reads from: in one direction, and no more than headers need while it reads headers."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.seeks = file, file.seekable()
        self.position = self.floor = 0
        self.left: int | None = HEADER_BYTES
        """Bytes that headers may still take; None while data is read."""
        self.block = b""
        """The header that was read last."""

    def header(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The next member; None where tarfile sees an end."""
        self.left = HEADER_BYTES
        info = archive.next()
        self.left, self.floor = None, self.position
        return info

    def check_end(self) -> None:
        """Looks at what made tarfile stop, and at the rest.

        Raises:
            tarfile.ReadError: It was no mark of the end, or more follows.
        """
        if not self.block:
            raise tarfile.ReadError("it ends without the mark of its end, so members may be missing")
        if self.block.count(0) != BLOCK:
            raise tarfile.ReadError(f"there is no header at byte {self.position - len(self.block):,}")
        while data := self.file.read(TAIL_BYTES):
            if data.count(0) != len(data):
                raise tarfile.ReadError("more follows behind its end, as when tars are joined")

    def seekable(self) -> bool:
        """Yes, forward."""
        return True

    def tell(self) -> int:
        """Where it is."""
        return self.position

    def seek(self, position: int, whence: int = 0) -> int:
        """Goes on to a place.

        Raises:
            tarfile.ReadError: Back into what was read: Python has hung on negative sizes (CVE-2025-8194).
        """
        if whence or position < (self.floor if self.seeks else self.position):
            raise tarfile.ReadError("a size in a header is negative")
        if self.seeks:
            self.file.seek(position)
            self.position = position
        while self.position < position and (
            data := self.file.read(min(TAIL_BYTES, position - self.position))
        ):
            self.position += len(data)
        return self.position

    def read(self, count: int) -> bytes:
        """So many bytes; fewer at the end.

        Raises:
            tarfile.ReadError: Of a header too long, or not well formed.
        """
        if self.left is not None:
            self.left -= count
            if count < 0 or self.left < 0:
                raise tarfile.ReadError("a header is longer than any name needs")
        data = self.file.read(count)
        self.position += len(data)
        if self.left is not None and count != 1:  # 1: tarfile looks whether the data before it end there
            self._check_header(data)
        return data

    def _check_header(self, data: bytes) -> None:
        kind = self.block[156:157]
        if kind in PAX_TYPES:
            _check_records(data)
        self.block = BODY if kind in PAX_TYPES + NAME_TYPES else data


def _check_records(data: bytes) -> None:
    """Holds pax records to their form: tarfile lets them overlap, which fills the memory."""
    if DIGITS.search(data):
        raise tarfile.ReadError("a number in a header is longer than any size")
    at = 0
    while at < len(data) and data[at]:
        digits = data[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = data[at : at + length]
        if length < 5 or len(record) < length or b"=" not in record or not record.endswith(b"\n"):
            raise tarfile.ReadError("a header of the pax format is not well formed")
        at += length
