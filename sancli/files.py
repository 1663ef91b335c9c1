"""Writing files so that a reader sees the old one or the new one, whole; and holding a folder for oneself."""

import csv
import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from sancli.errors import StorageError, UsageError, printable


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes the name only when the block has ended well.

    A full disk, a kill or an exception leaves the old file, and no litter but after a kill.

    Raises:
        StorageError: No space, a place that cannot be written, a folder that is gone.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # same disk, so a rename
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            sync(partial)  # on the disk before it takes the name
            partial.replace(path)
            sync(path.parent)  # and the name too
        finally:
            partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder; its renames are ordered
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write below `path` into one error that says what to do.

    Raises:
        StorageError: In place of any OSError of the block.
    """
    try:
        yield
    except OSError as error:
        where = printable(error.filename2 or error.filename or path)  # of a copy the first is its source
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space to write {where}.",
                why=f"{error.strerror}; {free_bytes(path):,} bytes are free there.",
                fix="free some space, or name a place on another disk.",
            ) from error
        raise StorageError(
            f"{where} cannot be written.",
            why=f"{error.strerror or error}.",
            fix="name a place you may write to.",
        ) from error


def free_bytes(path: Path) -> int:
    """Bytes that are free on the disk that holds `path`, which need not exist yet."""
    existing = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    with suppress(OSError):
        return shutil.disk_usage(existing).free
    return 0


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all; undecodable file names keep their bytes."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` as readable JSON with a newline at the end."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table that a spreadsheet may open without running anything."""
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        plain = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        plain.writerow(header)
        for row in rows:  # Python before 3.13 leaves a lone \r bare, and a reader takes it for a line's end
            writer = quoted if any("\r" in str(value) for value in row) else plain
            writer.writerow([cell(value) for value in row])


def cell(value: Any) -> Any:
    """The value as a spreadsheet may see it: text that would be taken for a formula starts with a quote."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula else value


@contextmanager
def locked(folder: Path, *, wait: float = 0, name: str = "") -> Iterator[None]:
    """Holds `folder` for this process until the block ends.

    Args:
        folder: It exists.
        wait: Seconds to wait for another process that holds it.
        name: Of a thing in it, where not all of the folder is meant.

    Raises:
        UsageError: Another process holds it; its number is named.
    """
    lock, holder = FileLock(folder / f"{name}.lock"), folder / f"{name}.lock.holder"
    with storage_errors(folder):
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            pid = holder.read_text() if holder.exists() else "unknown"
            raise UsageError(
                f"{printable(folder)} is in use.",
                why=f"process {pid} is writing there.",
                fix="wait for it to end, or stop it.",
            ) from None
        holder.write_text(str(os.getpid()))
    try:
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether some process holds `folder` now."""
    if not (folder / ".lock").is_file():
        return False
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # OSError: not ours to lock, so that nobody can say
        return True
    lock.release()
    return False


def cache_folder(name: str) -> Path:
    """The folder `name` for what sancli can get again: below $SAN_CACHE, or else in the user's cache."""
    return Path(os.environ.get("SAN_CACHE") or platformdirs.user_cache_dir("sancli")) / name


def unused(path: Path) -> Path:
    """The path itself, or where it exists the first of path-002, path-003, ... that does not."""
    numbered = (path.with_stem(f"{path.stem}-{number:03}") for number in itertools.count(2))
    return next(
        candidate for candidate in itertools.chain([path], numbered) if not os.path.lexists(candidate)
    )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` to fill; it takes the name only when the block has ended well.

    Raises:
        StorageError: The place cannot be written, or the name is taken: nothing is ever overwritten.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storage_errors(path):
        partial.mkdir(parents=True)
    try:
        yield partial
        with storage_errors(path):
            partial.rename(path)
            sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
