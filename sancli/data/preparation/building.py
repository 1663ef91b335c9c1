"""A prepared folder is built beside its place and renamed at the end: there whole, or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sancli.data.prepared import MANIFEST
from sancli.errors import StorageError, UsageError, command
from sancli.files import locked, storage_errors, sync

LOCKS = (".lock", ".lock.holder")


def check_places(source: Path, out: Path) -> None:
    """Refuses an output folder that lies in its own source, or around it.

    Raises:
        UsageError: With both places.
    """
    inside, around = out.resolve(), source.resolve()
    if inside.is_relative_to(around) or around.is_relative_to(inside):
        raise UsageError(
            f"the output {out} and the source {source} lie in each other.",
            why="the next run would take its own results for images.",
            fix="name another place: "
            + command("san", "prepare", source, around.parent / (around.name + "-prepared")),
        )


def check_free(out: Path, *, force: bool, differs: Callable[[], str]) -> None:
    """Refuses to replace what is there, unless it is a prepared folder and --force was given.

    Args:
        out: The place.
        force: Whether --force was given.
        differs: Says how the prepared folder there differs from what is wanted.

    Raises:
        StorageError: Saying which of the two it is.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise StorageError(
            f"{out} exists and is not a prepared folder.",
            why="it holds something else, which is never replaced.",
            fix="name another OUT.",
        )
    if not force:
        raise StorageError(
            f"{out} exists already.",
            why=f"{differs()}.",
            fix="--force replaces it; or name another OUT.",
        )


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Gives an empty folder that becomes `out` when the block ends well, and is removed when it does not.

    What runs that were killed have left there is removed first.

    Raises:
        StorageError: The place cannot be written, or `out` was made by somebody else meanwhile.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    made = [folder for folder in out.parents if not folder.exists()]
    with storage_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out)
        partial.mkdir()
    try:
        with locked(partial):
            yield partial
        for name in LOCKS:
            (partial / name).unlink(missing_ok=True)
        with storage_errors(out):
            _rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # not empty: that is what was to be made
                folder.rmdir()


def _rename(partial: Path, out: Path) -> None:
    old = partial.with_name(f"{partial.stem}-old.partial")
    if out.exists():
        out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    for folder in out.parent.iterdir():
        if folder.name.startswith(f".{out.name}.") and folder.name.endswith(".partial") and folder.is_dir():
            with suppress(UsageError), locked(folder):  # a lock that is held: that run is alive
                shutil.rmtree(folder, ignore_errors=True)
