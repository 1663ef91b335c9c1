"""What a truncated JPEG still shows, so that people recognise it in a report: never for training."""

from pathlib import Path

from sancli.data.images import BadImage, Decoded, decode, read_file

BEGIN_OF_IMAGE = b"\xff\xd8\xff"
END_OF_IMAGE = b"\xff\xd9"
"""What every whole JPEG ends with; where it comes too early the decoder leaves the rest grey."""


def remains(path: Path, *, max_pixels: int) -> Decoded | None:
    """The upper part of a truncated JPEG; None where nothing is left, or it is something else."""
    try:
        data = read_file(path)
        return decode(data + END_OF_IMAGE, max_pixels=max_pixels) if data[:3] == BEGIN_OF_IMAGE else None
    except BadImage:
        return None
