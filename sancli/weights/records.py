"""What was downloaded, as JSON beside the weights: what the model is, and where its bytes are from."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from sancli.errors import WeightsError
from sancli.files import storage_errors, write_json

ENTRY = "download"
BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """The file that weights were made of."""

    source: str
    """An address, a file of a repository, or the name of a file."""
    sha256: str
    bytes: int

    def beside(self, target: Path, description: dict[str, Any]) -> None:
        """Writes it beside the weights, with the description of the model.

        Raises:
            StorageError: The place cannot be written.
        """
        write_json(json_of(target), description | {ENTRY: asdict(self)})

    @classmethod
    def of(cls, target: Path) -> Self | None:
        """The record beside these weights; None: there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return cls(**json.loads(json_of(target).read_text(encoding="utf-8"))[ENTRY])
        return None

    def check(self, target: Path) -> None:
        """Refuses other bytes from the source of the first download.

        Raises:
            WeightsError: They differ.
        """
        first = Record.of(target)
        if first and first.source == self.source and first.sha256 != self.sha256:
            raise WeightsError(
                f"{self.source} is another file than at the first download.",
                why=f"its sha256 was {first.sha256[:16]}..., and is {self.sha256[:16]}... now.",
                fix="ask there why it changed; --force takes the new one.",
            )


def json_of(target: Path) -> Path:
    """Where the record of these weights lies."""
    return target.with_suffix(".json")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        StorageError: It cannot be read.
    """
    digest = hashlib.sha256()
    with storage_errors(path), path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
