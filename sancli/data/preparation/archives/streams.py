"""Bytes that can be read once, from the beginning to the end, and are counted on the way."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from sancli.data.preparation.archives.budget import Budget

BUFFER_BYTES = 2**18
XZ_MEMORY = 2**28
"""Bytes that unpacking an xz may need: four times what `xz -9` asks for."""


class Engine(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...  # noqa: D102


class Gunzip:
    """zlib's decompressor, as bz2 and lzma have theirs; it checks gzip's sum and size at the end."""

    def __init__(self) -> None:
        self.zlib, self.needs_input = zlib.decompressobj(31), True  # 31: with the header of gzip

    @property
    def eof(self) -> bool:
        """Whether the stream has ended well."""
        return self.zlib.eof

    @property
    def unused_data(self) -> bytes:
        """What was handed in and lies behind the end."""
        return self.zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """As much as there is, up to `max_length`."""
        out = self.zlib.decompress(self.zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(out) < max_length and not self.zlib.unconsumed_tail
        return out


ENGINES: dict[str, Callable[[], Engine]] = {
    "gzip": Gunzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY),
}


class Decompressed(io.RawIOBase):
    """What a file of one of the ENGINES expands to; several streams in a row are one.

    Args:
        file: The compressed one.
        kind: One of the ENGINES.
        budget: Counts what comes out.
    """

    def __init__(self, file: BinaryIO, kind: str, budget: Budget) -> None:
        self.file, self.begin, self.budget = file, ENGINES[kind], budget
        self.engine, self.waiting, self.ended = self.begin(), b"", False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fills the buffer; less is there at the end alone.

        Raises:
            EOFError: The file ends in the middle.
        """
        filled = 0
        while filled < len(buffer) and (data := self._some(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        self.budget.add(filled)
        return filled

    def _some(self, limit: int) -> bytes:
        while not self.ended:
            if self.engine.eof:
                self._next_stream()
                continue
            data = b""
            if self.engine.needs_input and not (data := self.waiting or self.file.read(BUFFER_BYTES)):
                raise EOFError("the compressed data end in the middle")
            self.waiting = self.waiting if not data else b""
            if out := self.engine.decompress(data, limit):
                return out
        return b""

    def _next_stream(self) -> None:
        """Begins the one that follows, behind any zeros that fill up; there may be none."""
        rest = self.engine.unused_data.lstrip(b"\0")
        while not rest and (data := self.file.read(BUFFER_BYTES)):
            rest = data.lstrip(b"\0")
        self.ended, self.waiting = not rest, rest
        self.engine = self.begin()


class Counted(io.RawIOBase):
    """A member of a zip, whose bytes are counted as they come."""

    def __init__(self, file: BinaryIO, budget: Budget) -> None:
        self.file, self.budget = file, budget

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Fills the buffer; less is there at the end alone."""
        data = self.file.read(len(buffer))
        self.budget.add(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the member too."""
        self.file.close()
        super().close()


def buffered(stream: io.RawIOBase) -> io.BufferedReader:
    """With `peek`, and quick for small pieces."""
    return io.BufferedReader(stream, BUFFER_BYTES)
