"""A file that is on its way: what has come of it, and what it takes to go on with it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sancli.console import size
from sancli.files import storage_errors, sync, write_text


@dataclass(frozen=True)
class Partial:
    """The bytes that have come, and beside them the version that they are of, and a digest of the address.

    The address itself can hold a secret.
    """

    path: Path

    @classmethod
    def of(cls, target: Path) -> "Partial":
        """The one that becomes `target`."""
        return cls(target.with_name(f"{target.name}.download"))

    @property
    def note(self) -> Path:
        """Whence the bytes are, and of which version."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def count(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> str | None:
        """What the server called the version (ETag or date) of the bytes from `url`; None: unknown."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return str(note["version"]) if note["url_sha256"] == _digest(url) else None
        return None

    def begin(self, url: str, version: str | None) -> None:
        """Starts with no bytes, of this version.

        Raises:
            StorageError: The place cannot be written.
        """
        self.drop()
        self.path.touch()
        if version is not None:
            self.remember(url, version)

    def remember(self, url: str, version: str) -> None:
        """Notes whence the bytes are, and of which version.

        Raises:
            StorageError: The place cannot be written.
        """
        write_text(self.note, json.dumps({"url_sha256": _digest(url), "version": version}) + "\n")

    def drop(self) -> None:
        """Forgets what has come.

        Raises:
            StorageError: The place cannot be written.
        """
        with storage_errors(self.path):
            for path in (self.path, self.note, *self.parts()):
                path.unlink(missing_ok=True)

    def parts(self) -> list[Path]:
        """What gdown has kept to go on with, the largest first."""
        found = self.path.parent.glob(f"{self.path.name}????????.part")
        return sorted(found, key=lambda path: path.stat().st_size, reverse=True)

    def place(self, target: Path) -> None:
        """Gives the whole file its name.

        Raises:
            StorageError: The place cannot be written.
        """
        with storage_errors(target):
            sync(self.path)
            self.path.replace(target)
            sync(target.parent)
        self.drop()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Says with Ctrl-C what is kept."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"{self.kept()}.")
            raise

    def kept(self) -> str:
        """Half a sentence about what is kept for the next try."""
        files = [path for path in (self.path, *self.parts()) if path.exists() and path.stat().st_size]
        if not files or (files[0] == self.path and not self.note.exists()):
            return "nothing of it was kept"
        kept = f"{size(files[0].stat().st_size)} are kept in {files[0]}"
        return f"{kept}, and the same command goes on from there"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()
