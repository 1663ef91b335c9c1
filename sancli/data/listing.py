"""What a source holds, by name alone: images, other files, folders, and what cannot be used."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sancli.data.images import ENDINGS, SUFFIXES

GHOSTS = {  # what systems and tools leave behind, in lower case; names that begin with a dot are ghosts too
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"),
    *("lost+found", "__pycache__", "ehthumbs.db", "icon\r"),
}
TABLES = (".csv", ".tsv", ".txt", ".mat")
"""Endings of files that may say what images show."""
ARCHIVES = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"),
    *(".tar.gzip", ".taz", ".tb2"),
)
"""Endings of archives that are read, in lower case; the content decides which of them one is."""
MAX_DEPTH = 64
"""Deeper trees are a mistake or an attack; real ones have under ten levels."""


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """Something about one file of the source that the user should know, and what was done."""

    path: str
    problem: str
    action: str


@dataclass
class Listing:
    """Paths are relative to the source, with / between their parts, in an order no file system decides."""

    images: list[str] = field(default_factory=list)
    """Regular files with an ending of an image."""
    folders: list[str] = field(default_factory=list)
    """Without the ghosts."""
    others: Counter[str] = field(default_factory=Counter)
    """Files with other endings, by ending in lower case."""
    tables: list[str] = field(default_factory=list)
    """Those among them that may say what images show."""
    archives: list[str] = field(default_factory=list)
    """Those among them that may hold images."""
    problems: list[Problem] = field(default_factory=list)

    links: int = 0
    """Images that are links to files in the source."""
    nested: bool = False
    """Some of the folders are archives in an archive: the endings of their names say nothing."""

    def add_file(self, path: str) -> None:
        """Counts a regular file by its ending."""
        ending = _ending(path)
        if ending in SUFFIXES:
            self.images.append(path)
        else:
            self.others[ending or "without extension"] += 1
            if ending in TABLES:
                self.tables.append(path)
            elif path.lower().endswith(ARCHIVES):
                self.archives.append(path)

    def sort(self) -> "Listing":
        """Puts the paths in the order of their bytes."""
        self.images.sort(key=os.fsencode)
        self.folders.sort(key=os.fsencode)
        self.tables.sort(key=os.fsencode)
        self.archives.sort(key=os.fsencode)
        self.problems.sort(key=lambda problem: os.fsencode(problem.path))
        return self

    def use(self, tables: Iterable[str]) -> None:
        """Takes files that are used after all from those with other endings."""
        self.others -= _endings(path for path in tables if path in self.tables)

    def unused(self) -> Counter[str]:
        """The files with other endings that neither hold images nor may say what they show."""
        return self.others - _endings([*self.tables, *self.archives])


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 -- a name is text here, not a place


def _endings(paths: Iterable[str]) -> Counter[str]:
    return Counter(map(_ending, paths))


def describe_endings(others: Counter[str], most: int | None = None) -> str:
    """For people: .txt 2, without extension 1; and how those that an extra reads are read."""
    words = ", ".join(f"{ending} {count:,}" for ending, count in others.most_common(most))
    unread = any(ending in others for ending in ENDINGS["HEIF"])
    return words + ('; HEIC is read after pip install "sancli[heic]"' if unread else "")


def is_ghost(name: str) -> bool:
    """Whether a file or folder is a system's own, and no data: .git, __MACOSX, Thumbs.db, ._x.jpg."""
    return name.startswith(".") or name.lower() in GHOSTS


def list_folder(root: Path) -> Listing:
    """Everything below `root`; links are followed to files inside it, and never to folders or outside.

    Nothing is opened, so no fifo can hold it up, and no loop of links is entered.
    """
    listing = Listing()
    _walk(root.resolve(), "", listing, depth=0)
    return listing.sort()


def _walk(root: Path, inside: str, listing: Listing, *, depth: int) -> None:
    try:
        with os.scandir(root / inside) as found:
            entries = list(found)
    except OSError as error:
        listing.problems.append(Problem(inside or ".", f"folder: {_words(error)}", "skipped"))
        return
    for entry in entries:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if is_ghost(entry.name):
            continue
        if not entry.is_dir(follow_symlinks=False):
            _add_leaf(root, path, entry, listing)
        elif depth == MAX_DEPTH:
            listing.problems.append(Problem(path, f"deeper than {MAX_DEPTH} folders", "skipped"))
        else:
            listing.folders.append(path)
            _walk(root, path, listing, depth=depth + 1)


def _add_leaf(root: Path, path: str, entry: os.DirEntry[str], listing: Listing) -> None:
    if entry.is_file(follow_symlinks=False):
        listing.add_file(path)
    elif problem := _link_problem(root, entry) if entry.is_symlink() else _kind(entry):
        listing.problems.append(Problem(path, problem, "skipped"))
    else:
        before = len(listing.images)
        listing.add_file(path)
        listing.links += len(listing.images) - before


def _link_problem(root: Path, entry: os.DirEntry[str]) -> str | None:
    try:
        target = Path(entry.path).resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        return "link in a circle" if "loop" in str(error).lower() else "link to nothing"
    if stat.S_ISDIR(mode):
        return "link to a folder, not followed"
    if not target.is_relative_to(root):
        return "link to a file outside the source, not followed"
    return None if stat.S_ISREG(mode) else "not a regular file"


def _kind(entry: os.DirEntry[str]) -> str | None:
    """Fifos, sockets and devices are named when they pretend to be images."""
    return "not a regular file" if Path(entry.name).suffix.lower() in SUFFIXES else None


def _words(error: OSError) -> str:
    return "permission denied" if isinstance(error, PermissionError) else str(error.strerror or error).lower()


def parents(paths: Iterable[str]) -> set[str]:
    """Every folder that the paths lie in."""
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found
