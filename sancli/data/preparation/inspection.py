"""What one file turns out to be: size, mode, rotation, sha256, and what is wrong with it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sancli.data.images import BadImage, decode, has_frames, read_file

UNREAD = "-"
"""Stands for the sha256 of a file that could not be read."""


@dataclass(frozen=True, slots=True)
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
