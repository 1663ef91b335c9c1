"""What `san prepare` is given: a folder or an archive, seen as a listing and as files."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from sancli.console import plural, say
from sancli.data.images import BadImage, read_file
from sancli.data.listing import Listing, list_folder
from sancli.data.preparation.archives import Contents, list_archive, read_members, unpack, without_ending
from sancli.data.preparation.scan import UNREAD, hash_archive, hash_files, hash_source
from sancli.data.prepared import MANIFEST
from sancli.errors import DataError, StorageError, UsageError, command, printable

MEMBERS = ".members"
"""Where the members of an archive wait, inside the folder that is being built."""


@dataclass(frozen=True)
class Source:
    """A folder, an archive or a folder of archives, and what it holds by name."""

    path: Path
    name: str
    """For people, and for the default output: without the ending of an archive."""
    listing: Listing
    archive: Contents | None = None
    """None: it is a folder."""

    @property
    def is_folder(self) -> bool:
        """Whether its images lie there as files, in no archive."""
        return self.archive is None

    @property
    def kind(self) -> str:
        """folder, archives (a folder of them), or the ending of an archive without its dot: zip, tar.gz."""
        if self.path.is_dir():
            return "folder" if self.is_folder else "archives"
        return self.path.name[len(without_ending(self.path.name)) + 1 :].lower() or "archive"

    def sha256(self, paths: list[str], hashes: Iterable[str] | None, *, others: Iterable[str]) -> str:
        """One sha256 for everything that decides the result: an archive's own, or that of names and contents.

        Args:
            paths: The files that are read.
            hashes: Of their contents; None: they are read for it.
            others: Files whose names alone count.
        """
        if not self.is_folder:
            if not self.path.is_dir():
                return hash_archive(self.path)
            return hash_source(
                (name, hash_archive(self.path / name)) for name in list_folder(self.path).archives
            )
        hashes = hash_files(self.path / path for path in paths) if hashes is None else hashes
        return hash_source(chain(zip(paths, hashes, strict=True), zip(others, repeat(UNREAD))))

    @contextmanager
    def files(self, paths: list[str], building: Path | None) -> Iterator[list[str]]:
        """Gives a file for each path; the members of an archive are unpacked, and removed at the end.

        Args:
            paths: Relative to the source.
            building: A folder on the disk where the files are wanted; None: a temporary one.
        """
        if self.archive is None:
            root = self.path.resolve()
            yield [str(root / path) for path in paths]
            return
        with tempfile.TemporaryDirectory(prefix=MEMBERS, dir=building) as folder:
            yield unpack(self.archive, paths, Path(folder))

    def read(self, names: Sequence[str], *, limit: int) -> dict[str, bytes]:
        """The bytes of small files of the source, such as tables of labels: an archive is read once for all.

        Args:
            names: Relative to the source.
            limit: Bytes of one.

        Raises:
            DataError: One is damaged, larger than `limit`, or cannot be read.
        """
        if self.archive is not None:
            return read_members(self.archive, names, limit=limit)
        return {name: self._read(name, limit) for name in names}

    def _read(self, name: str, limit: int) -> bytes:
        try:
            return read_file(self.path / name, limit=limit)
        except BadImage as bad:
            raise DataError(
                f"{self.path / name} cannot be read.", why=f"{bad.reason}.", fix="look at what it is."
            ) from None


def open_source(path: Path) -> Source:
    """Lists a folder or an archive.

    Raises:
        DataError: It is not there, or neither.
        StorageError: It cannot be read.
        UsageError: It was prepared already.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.is_file():
            contents = list_archive(path)
            return Source(path, without_ending(path.name), contents.listing, contents)
        exists = path.exists()
    except OSError as error:
        raise StorageError(
            f"{printable(error.filename or path)} cannot be read.",
            why=f"{error.strerror or error}.",
            fix="check its permissions.",
        ) from None
    raise DataError(
        f"{path} {'is neither a folder nor an archive' if exists else 'does not exist'}.",
        why="it was named as the source of the images.",
        fix="check the path; a folder of images is needed, or a zip or a tar of one.",
    )


def _open_folder(path: Path) -> Source:
    if (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} is prepared already.",
            why=f"it has a {MANIFEST}.",
            fix=f"{command('san', 'train', path)}, or name its source.",
        )
    next(path.iterdir(), None)  # an OSError where the folder itself may not be read
    listing, name = list_folder(path), path.resolve().name or "images"
    if listing.images or not listing.archives:
        return Source(path, name, listing)
    return _open_archives(path, name, listing)


def _open_archives(path: Path, name: str, listing: Listing) -> Source:
    """A folder of archives: the only one, or all of them, with the tables that lie beside them."""
    first = path / listing.archives[0]
    if len(listing.archives) == 1:
        name = without_ending(first.name)
    say(f"{path} holds no images but {plural(len(listing.archives), 'archive')}: {_some(listing.archives)}")
    if len(listing.archives) == 1 and not listing.tables:
        return open_source(first)
    contents = list_archive(path)
    return Source(path, name, contents.listing, contents)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")
