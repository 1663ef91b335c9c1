"""Zips by the standard library's zipfile, after every entry of the table of contents was looked at."""

import stat
import struct
import zipfile
from functools import partial
from io import BufferedReader
from typing import BinaryIO, cast

from sancli.data.images import SUFFIXES
from sancli.data.preparation.archives.budget import Budget
from sancli.data.preparation.archives.members import Member
from sancli.data.preparation.archives.streams import Counted, buffered

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL_HEADER_BYTES = 30
"""Before its name and extra field."""
LOCAL_HEADER = b"PK\x03\x04"
ENTRY_BYTES = 46
"""Of the table of contents, before its name, extra field and comment."""
TABLE_ENDS = (b"PK\x05\x06", b"PK\x06\x06", b"PK\x05\x05")
"""What follows the table: the end of a zip, that of a large one, or a signature."""
UTF_8_FLAG = 0x800


def zip_members(file: BinaryIO, budget: Budget) -> list[Member]:
    """All members of a zip, in the order of its table of contents.

    Raises:
        zipfile.BadZipFile: It is damaged, or members share bytes, as those of bombs do.
        DataError: It expands too far.
    """
    archive = zipfile.ZipFile(file)  # the file is closed by whoever has opened it
    infos = archive.infolist()
    budget.expect(sum(info.file_size for info in infos))
    file.seek(0)
    first = min((info.header_offset for info in infos), default=0)
    if first > 0 and file.read(len(LOCAL_HEADER)) == LOCAL_HEADER:
        raise zipfile.BadZipFile("it is the table of an archive inside it, and its own is missing")
    _check_table(file, archive.start_dir, len(infos))
    _check_overlap(infos, archive.start_dir)
    _check_names(file, infos)
    return [
        Member(
            info.orig_filename,
            info.file_size,
            info.is_dir(),
            _unsafe(info),
            partial(_open, archive, info, budget),
        )
        for info in infos
    ]


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> BufferedReader:
    return buffered(Counted(cast("BinaryIO", archive.open(info)), budget))


def _check_table(file: BinaryIO, at: int, count: int) -> None:
    """Python stops at an entry of a wrong length and says nothing: one flipped bit, and the rest is lost."""
    for _ in range(count):
        file.seek(at)
        entry = file.read(ENTRY_BYTES)
        at += ENTRY_BYTES + sum(struct.unpack("<3H", entry[28:34]))  # of its name, extra field and comment
    file.seek(at)
    if file.read(4) not in TABLE_ENDS:
        raise zipfile.BadZipFile("its table of contents does not end where it should")


def _check_overlap(infos: list[zipfile.ZipInfo], end: int) -> None:
    """Python looks for this from 3.11.8 on: 18 KB that overlap have unpacked to a gigabyte."""
    for info in sorted(infos, key=lambda info: info.header_offset, reverse=True):
        if info.header_offset + LOCAL_HEADER_BYTES + info.compress_size > end:
            raise zipfile.BadZipFile(f"member {info.orig_filename!r} overlaps what follows it")
        end = info.header_offset


def _check_names(file: BinaryIO, infos: list[zipfile.ZipInfo]) -> None:
    """Python compares both names of a member that it reads; one flipped bit, and an image is passed over."""
    for info in infos:
        if info.orig_filename.lower().endswith(SUFFIXES):
            continue
        file.seek(info.header_offset)
        head = file.read(LOCAL_HEADER_BYTES)
        name = file.read(int.from_bytes(head[26:28], "little"))
        if name.decode("utf-8" if info.flag_bits & UTF_8_FLAG else "cp437") != info.orig_filename:
            raise zipfile.BadZipFile(f"member {info.orig_filename!r} has another name where it stands")


def _unsafe(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is a link or a device, not a file"
    if info.flag_bits & 1:
        return "it is encrypted; unpack it with its password, then give the folder to san prepare"
    if info.compress_type not in METHODS:
        return f"it is packed by method {info.compress_type}, which Python cannot read; unpack it yourself"
    return None
