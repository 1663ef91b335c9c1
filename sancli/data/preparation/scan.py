"""Every image read once, in parallel: size, mode, rotation, sha256, and what is wrong with it."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sancli.console import progress
from sancli.data.images import MAX_FILE_BYTES, BadImage, decode, has_frames, read_file

CHUNK = 16
"""Images handed to a worker at once: enough to hide the hand-over, few enough for a smooth bar."""
IN_PROCESS = 64
"""Up to so many images are read here: starting the workers would take longer."""
UNREAD = "-"
"""Stands for the sha256 of a file that could not be read."""


@dataclass(frozen=True)
class Scan:
    """What one file turned out to be."""

    sha256: str = UNREAD
    width: int = 0
    """In pixels, upright."""
    height: int = 0
    mode: str = ""
    format: str = ""
    turned: bool = False
    """EXIF asked for a rotation or a reflection."""
    frames: bool = False
    """It holds more pictures; the first is used."""
    reason: str | None = None
    """Why it is no usable image; None where it is one."""


def scan_file(path: Path, max_pixels: int) -> Scan:
    """Reads, hashes and fully decodes one file."""
    sha256 = UNREAD
    try:
        data = read_file(path)
        sha256 = hashlib.sha256(data).hexdigest()
        found = decode(data, max_pixels=max_pixels)
    except BadImage as bad:
        return Scan(sha256, reason=bad.reason)
    width, height = found.image.size
    frames = has_frames(data)
    return Scan(sha256, width, height, found.mode, found.format, found.turned, frames)


def scan_files(paths: Sequence[Path], *, max_pixels: int, workers: int | None = None) -> list[Scan]:
    """Scans all files, in their order, in as many processes as there are processors.

    A worker that dies on a file (a decoder that crashes) makes that file a bad one, and the rest goes on.
    """
    workers = min(workers or processors(), -(-len(paths) // CHUNK))
    scans: list[Scan] = [Scan()] * len(paths)
    with progress("Checking images", total=len(paths), unit="images") as bar:
        if len(paths) <= IN_PROCESS or workers == 1:
            for index, path in enumerate(paths):
                scans[index] = scan_file(path, max_pixels)
                bar.advance()
            return scans
        chunks = [range(at, min(at + CHUNK, len(paths))) for at in range(0, len(paths), CHUNK)]
        while chunks:
            for chunk, found in _in_workers(chunks, paths, max_pixels=max_pixels, workers=workers):
                scans[chunk.start : chunk.stop] = found
                bar.advance(len(chunk))
    return scans


def _in_workers(
    chunks: list[range], paths: Sequence[Path], *, max_pixels: int, workers: int
) -> Iterator[tuple[range, list[Scan]]]:
    """Takes chunks off the list and scans them in processes, until all are done or one process has died.

    Few are under way at a time: after a death their files are scanned one by one, to find the one to blame.
    """
    running: dict[Future[list[Scan]], range] = {}
    with _pool(workers) as pool:
        try:
            while chunks or running:
                while chunks and len(running) < 2 * workers:
                    future = pool.submit(_scan_chunk, [paths[i] for i in chunks[-1]], max_pixels)
                    running[future] = chunks.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running[future], future.result()
                    del running[future]
        except BrokenProcessPool:
            pass  # what was under way is in `running` still
    stuck = list(running.values())
    if stuck and not _workers_start():  # it is no image's fault: all that is left is scanned here
        stuck, scan = stuck + chunks, _scan_chunk
        chunks.clear()
    else:
        scan = _one_by_one
    for chunk in stuck:
        yield chunk, scan([paths[i] for i in chunk], max_pixels)


def _workers_start() -> bool:
    """Whether processes can be had at all: not in a script that does its work when it is imported."""
    with _pool(1) as pool:
        try:
            return pool.submit(bool, True).result()
        except BrokenProcessPool:
            return False


def _one_by_one(paths: list[Path], max_pixels: int) -> list[Scan]:
    scans: list[Scan] = []
    while len(scans) < len(paths):
        with _pool(1) as pool:
            try:
                for path in paths[len(scans) :]:
                    scans.append(pool.submit(scan_file, path, max_pixels).result())  # noqa: PERF401
            except BrokenProcessPool:
                scans.append(Scan(hash_file(paths[len(scans)]), reason="the decoder crashed on it"))
    return scans


def _scan_chunk(paths: list[Path], max_pixels: int) -> list[Scan]:
    return [scan_file(path, max_pixels) for path in paths]


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, on every system: a fork would copy locks that other threads hold."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers run this"
    parent.join()
    os._exit(1)


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def hash_files(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, several at a time: far faster than a scan."""
    with ThreadPoolExecutor(processors()) as pool:  # hashing and reading both let other threads run
        return list(pool.map(hash_file, paths))
