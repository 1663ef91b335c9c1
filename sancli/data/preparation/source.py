"""What `san prepare` is given: a folder or an archive, seen as a listing and as files."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sancli.data.listing import Listing, list_folder
from sancli.data.preparation.archives import list_zip, unpack_zip
from sancli.data.preparation.scan import UNREAD, hash_file, hash_files, hash_source
from sancli.data.prepared import MANIFEST
from sancli.errors import DataError, StorageError, UsageError

MEMBERS = ".members"
"""Where the members of an archive wait, inside the folder that is being built."""


@dataclass(frozen=True)
class Source:
    """A folder, or an archive, and what it holds by name."""

    path: Path
    name: str
    """For people, and for the default output: without the ending of an archive."""
    is_folder: bool
    listing: Listing

    def sha256(self, paths: list[str], hashes: Iterable[str] | None, *, others: Iterable[str]) -> str:
        """One sha256 for everything that decides the result: an archive's own, or that of names and contents.

        Args:
            paths: The files that are read.
            hashes: Of their contents; None: they are read for it.
            others: Files whose names alone count.
        """
        if not self.is_folder:
            return hash_file(self.path)
        hashes = hash_files([self.path / path for path in paths]) if hashes is None else hashes
        return hash_source([*zip(paths, hashes, strict=True), *((path, UNREAD) for path in others)])

    @contextmanager
    def files(self, paths: list[str], building: Path | None) -> Iterator[list[Path]]:
        """Gives a file for each path; the members of an archive are unpacked, and removed at the end.

        Args:
            paths: Relative to the source.
            building: A folder on the disk where the files are wanted; None: a temporary one.
        """
        if self.is_folder:
            root = self.path.resolve()
            yield [root / path for path in paths]
            return
        with tempfile.TemporaryDirectory(prefix=MEMBERS, dir=building) as folder:
            unpacked = unpack_zip(self.path, paths, Path(folder))
            yield [unpacked[path] for path in paths]


def open_source(path: Path) -> Source:
    """Lists a folder or a zip.

    Raises:
        DataError: It is not there, or neither.
        StorageError: It cannot be read.
        UsageError: It was prepared already.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.is_file():
            return Source(path, path.stem, False, list_zip(path))
        exists = path.exists()
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read.", why=f"{error.strerror or error}.", fix="check its permissions."
        ) from None
    raise DataError(
        f"{path} {'is neither a folder nor a zip' if exists else 'does not exist'}.",
        why="it was named as the source of the images.",
        fix="check the path; a folder or a zip of images is needed.",
    )


def _open_folder(path: Path) -> Source:
    if (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} is prepared already.",
            why=f"it has a {MANIFEST}.",
            fix=f"san train {path}, or name its source.",
        )
    next(path.iterdir(), None)  # an OSError where the folder itself may not be read
    return Source(path, path.resolve().name or "images", True, list_folder(path))
