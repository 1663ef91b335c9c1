"""Every image read once, in parallel: size, mode, rotation, sha256, and what is wrong with it."""

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sancli.console import progress
from sancli.data.images import MAX_FILE_BYTES
from sancli.data.preparation.bounds import Bounds
from sancli.data.preparation.inspection import UNREAD, Scan, scan_file
from sancli.data.preparation.threads import in_threads, processors
from sancli.data.preparation.workers import CHUNK, Crew, Lost

__all__ = ["UNREAD", "Scan", "hash_archive", "hash_file", "hash_files", "hash_source", "scan_files"]

IN_PROCESS = 0
"""Up to so many images are read here, where a crash or a hang is not held up; the tests save time by it."""
MEMORY_BYTES = 2**30
"""What a decoder may need beside the pixels."""
MEMORY_PER_PIXEL = 16
"""Bytes: floats take four in the file's mode, four scaled, and RGB three twice."""
MEMORY_PER_THREAD = 2**27
"""Bytes of addresses that a thread of a decoder (AVIF has one for each processor) sets aside."""


def scan_files(paths: Sequence[str | Path], *, max_pixels: int, workers: int | None = None) -> list[Scan]:
    """Scans all files, in their order, in as many processes as there are processors.

    A decoder that crashes, hangs or takes too much memory costs its file, and the rest goes on.
    """
    scans: list[Scan] = [Scan()] * len(paths)
    with progress("Checking images", total=len(paths), unit="images") as bar:
        for index, scan in _scanned(paths, max_pixels, workers or processors()):
            scans[index] = shared(scan)
            bar.advance()
    return scans


def shared(scan: Scan) -> Scan:
    """The same with one text for each mode and format: every result of a worker brings its own."""
    return replace(scan, mode=sys.intern(scan.mode), format=sys.intern(scan.format))


def _scanned(paths: Sequence[str | Path], max_pixels: int, workers: int) -> Iterator[tuple[int, Scan]]:
    work = functools.partial(scan_file, max_pixels=max_pixels)
    if len(paths) <= IN_PROCESS:
        yield from enumerate(map(work, map(Path, paths)))
        return
    memory = MEMORY_BYTES + MEMORY_PER_PIXEL * max_pixels + MEMORY_PER_THREAD * processors()
    bounds = Bounds(memory)
    for index, found in Crew(work, paths, bounds, min(workers, -(-len(paths) // CHUNK))).results():
        if isinstance(found, Lost):
            found = Scan(hash_file(Path(paths[index])), reason=found.reason)
        yield index, found


def hash_file(path: Path) -> str:
    """The sha256 of a file's content, without holding it in memory; UNREAD where it cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return UNREAD
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNREAD


def hash_archive(path: Path) -> str:
    """The sha256 of an archive, however large it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_source(files: Iterable[tuple[str, str]]) -> str:
    """One sha256 for many files: their paths and the sha256 of each, in an order of their own."""
    whole = hashlib.sha256()
    for path, sha256 in sorted((os.fsencode(path), sha256) for path, sha256 in files):
        whole.update(path + b"\0" + sha256.encode() + b"\n")
    return whole.hexdigest()


def hash_files(paths: Iterable[Path]) -> list[str]:
    """The sha256 of each file, several at a time: far faster than a scan."""
    return list(in_threads(hash_file, paths))
