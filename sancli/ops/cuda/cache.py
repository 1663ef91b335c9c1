"""The folder where CuPy keeps what it compiled: whether it can, whether it has, and one process at a time."""

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sancli.errors import StorageError, UsageError
from sancli.files import locked

PATIENCE = 300.0
"""Seconds to wait for another process that compiles."""
IN_MEMORY = "CUPY_CACHE_IN_MEMORY"
FOLDER = "CUPY_CACHE_DIR"


def folder() -> Path | None:
    """CuPy's own; None where it was told to keep nothing."""
    if os.environ.get(IN_MEMORY, "0") not in ("", "0"):
        return None
    return Path(os.environ.get(FOLDER) or Path.home() / ".cupy" / "kernel_cache")


@functools.cache
def prepare() -> str:
    """Before CuPy is imported, which would fail: a folder that cannot be written is not used.

    Returns:
        Why nothing is kept; empty where it is.
    """
    path = folder()
    if path is None:
        return f"{IN_MEMORY} is set"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return ""
    except OSError as error:
        keep_nothing()
        os.environ[FOLDER] = tempfile.gettempdir()  # it makes its folder all the same
        return f"{path} cannot be written ({error.strerror})"


def keep_nothing() -> None:
    """From now on."""
    os.environ[IN_MEMORY] = "1"


def mark(*parts: str) -> Path | None:
    """The file that says that a kernel lies in the cache; None where there is none."""
    path = folder()
    return path and path / f"san-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.compiled"


@contextmanager
def held() -> Iterator[None]:
    """One process compiles while the others wait, and then find its kernel: ranks of one training."""
    path = folder()
    lock = locked(path, wait=PATIENCE) if path else None
    try:
        if lock:
            lock.__enter__()
    except (StorageError, UsageError):
        lock = None  # no lock, or never free: both may compile the same, and both are right
    try:
        yield
    finally:
        if lock:
            lock.__exit__(None, None, None)


def remember(path: Path | None) -> None:
    """That a kernel lies in the cache."""
    if path:
        with suppress(OSError):
            path.touch()
