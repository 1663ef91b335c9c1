"""Keeps what C libraries write to file descriptor 2 off the screen; Python's own stderr goes on."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO, TextIOWrapper
from typing import BinaryIO, TextIO

_one_at_a_time = threading.Lock()  # there is one descriptor 2 in a process
_real: dict[tuple[int, int], TextIO] = {}
"""Python's stderr on a descriptor of its own, by the device and inode it leads to; never closed, as another
thread may be writing to it."""


@contextmanager
def captured(lines: list[str]) -> Iterator[None]:
    """Adds the lines written to descriptor 2 inside the block to `lines`, when it ends.

    A progress bar in another thread is not disturbed: meanwhile `sys.stderr` writes to a duplicate of the
    descriptor.
    """
    with _one_at_a_time, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr at all (a service, pythonw): nothing can reach a screen
            yield
            return
        python_stderr = sys.stderr
        try:
            if _writes_to_2(python_stderr):
                python_stderr.flush()
                sys.stderr = _duplicate(kept)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sys.stderr = python_stderr
            lines += _read_lines(file)


def _writes_to_2(stream: TextIO | None) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return stream is not None and stream.fileno() == 2
    return False


def _duplicate(descriptor: int) -> TextIO:
    status = os.fstat(descriptor)
    key = (status.st_dev, status.st_ino)
    if key not in _real:
        raw = FileIO(os.dup(descriptor), "w")
        _real[key] = TextIOWrapper(
            raw,  # unbuffered, as `python -u` has it: no write is lost or late
            encoding=getattr(sys.stderr, "encoding", None) or "utf-8",
            errors="backslashreplace",
            write_through=True,
        )
    return _real[key]


def _read_lines(file: BinaryIO) -> list[str]:
    file.seek(0)
    return file.read(10_000).decode("utf-8", "replace").splitlines()
