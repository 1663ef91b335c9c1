"""Small pictures for a page, as JPEGs inside of it."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

Thumb = Image.Image
QUALITY = 72
"""Of pictures at the size of a thumb: artefacts do not show, and a third of the bytes of 90."""
PAPER = (128, 128, 128)
"""Behind a picture that cannot be shown, in a sheet: fits a light page and a dark one."""
BINS = 32
"""Bars of a histogram."""


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The whole picture, its longer side at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return small


def square(image: Image.Image, side: int) -> Image.Image:
    """The middle square of a picture, `side` pixels wide."""
    return ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def data_uri(image: Image.Image, *, quality: int = QUALITY) -> str:
    """The picture as a page holds it: no file beside it, and the same bytes each time."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def sheet(images: Sequence[Image.Image | None], *, side: int, columns: int) -> Image.Image:
    """Squares in a grid without gaps; None leaves its place empty."""
    rows = max(1, math.ceil(len(images) / columns))
    paper = Image.new("RGB", (columns * side, rows * side), PAPER)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        if image is not None:
            paper.paste(square(image, side), (column * side, row * side))
    return paper


def contrast(image: Image.Image) -> float:
    """The standard deviation of its brightness, from 0 (one grey) to 127.5 (half black, half white)."""
    counts = image.convert("L").histogram()
    total = sum(counts)
    mean = sum(value * count for value, count in enumerate(counts)) / total
    return math.sqrt(sum(count * (value - mean) ** 2 for value, count in enumerate(counts)) / total)


@dataclass(frozen=True)
class Equalized:
    """A picture before and after histogram equalization, each with its histogram."""

    before: Image.Image
    after: Image.Image
    before_lines: tuple[str, ...]
    """Red, green, blue: the points of a line in a box 64 wide and 24 high."""
    after_lines: tuple[str, ...]


def equalized(image: Image.Image, side: int) -> Equalized:
    """What --equalize does to a picture: on the whole of it, before it is made smaller, as in training."""
    after = ImageOps.equalize(image)
    return Equalized(shrunk(image, side), shrunk(after, side), _lines(image), _lines(after))


def _lines(image: Image.Image) -> tuple[str, ...]:
    counts = image.histogram()  # 256 numbers for each of red, green and blue
    bins = [sum(counts[at : at + 256 // BINS]) for at in range(0, 768, 256 // BINS)]
    scale = 24 / max(bins)
    lines = []
    for start in range(0, 3 * BINS, BINS):
        points: Any = enumerate(bins[start : start + BINS])
        lines.append(" ".join(f"{2 * x + 1},{24 - scale * count:.1f}" for x, count in points))
    return tuple(lines)
