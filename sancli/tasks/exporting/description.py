"""What an exported model says about itself: everything that others need, and nothing that is private."""

import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from sancli.files import write_json
from sancli.runs import ModelInfo

LOCAL = "path"
"""The entry of `data` that says where the images lie; name and sha256 still tell which they are."""


def shareable(info: ModelInfo) -> ModelInfo:
    """The same description without the places of this machine."""
    return dataclasses.replace(info, data={key: value for key, value in info.data.items() if key != LOCAL})


def plain(info: ModelInfo) -> dict[str, Any]:
    """What is written of a description, as JSON gives it back."""
    return dict(json.loads(json.dumps(shareable(info).to_dict())))


def write_beside(target: Path, info: ModelInfo) -> None:
    """Writes classes and preprocessing as JSON beside a file, for people and for other programs.

    Raises:
        StorageError: The place cannot be written.
    """
    write_json(described_in(target), plain(info))


def described_in(target: Path) -> Path:
    """Where the JSON of an exported file lies."""
    return target.with_suffix(".json")


def is_described(target: Path, info: ModelInfo) -> bool:
    """Whether the JSON beside a file says just this already."""
    with suppress(OSError, ValueError):
        return bool(json.loads(described_in(target).read_text(encoding="utf-8")) == plain(info))
    return False


def file_name(info: ModelInfo) -> str:
    """The model's name as that of a file: a file from elsewhere may call itself ../../etc."""
    return re.sub(r"[^\w.-]+", "-", info.name).strip(".-")[:100] or "model"
