"""Images with captions on one sheet: samples.jpg and worst.jpg."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sancli.errors import printable
from sancli.files import replacing

INK, RIGHT, WRONG = "#333333", "#2f7d3b", "#b3322c"
TILE_PX, GAP_PX, LINE_PX, FONT_PX = 192, 12, 18, 13
MOST_TILES = 400
"""On one sheet, of about 4000 x 5000 pixels: nobody looks at more."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A picture with its true label, and the wrong one that it was given."""

    image: Image.Image
    true: str
    predicted: str
    confidence: float
    """In the wrong label, from 0 to 1."""


@dataclass(frozen=True)
class Tile:
    """A picture with lines of text below it, each with its colour."""

    image: Image.Image
    caption: tuple[tuple[str, str], ...]


def write_samples(path: Path, images: Tensor, titles: Sequence[str]) -> None:
    """Writes a batch with its labels as one JPEG.

    Args:
        path: Where to.
        images: [N, 3, H, W], from 0 to 1.
        titles: One for each image.
    """
    bytes_ = (images.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    tiles = [
        Tile(Image.fromarray(image), ((title, INK),)) for image, title in zip(bytes_, titles, strict=True)
    ]
    write_sheet(path, tiles)


def write_worst(path: Path, mistakes: Sequence[Mistake]) -> None:
    """Writes wrongly labelled images as one JPEG, each with its true and its predicted label."""
    tiles = [
        Tile(one.image, ((f"true: {one.true}", RIGHT), (f"{one.confidence:.0%}: {one.predicted}", WRONG)))
        for one in mistakes
    ]
    write_sheet(path, tiles)


def write_sheet(path: Path, tiles: Sequence[Tile]) -> None:
    """Writes tiles in a grid."""
    tiles = tiles[:MOST_TILES]
    columns = columns_for(len(tiles))
    lines = max((len(tile.caption) for tile in tiles), default=0)
    cell = TILE_PX + GAP_PX, TILE_PX + lines * LINE_PX + GAP_PX
    rows = max(1, math.ceil(len(tiles) / columns))
    sheet = Image.new("RGB", (columns * cell[0] + GAP_PX, rows * cell[1] + GAP_PX), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        place(sheet, tile, GAP_PX + column * cell[0], GAP_PX + row * cell[1])
    with replacing(path) as partial:
        sheet.save(partial, format="JPEG", quality=90)


def columns_for(tiles: int) -> int:
    """The number of columns, for a grid a little wider than high, that leaves the fewest places empty."""
    lowest, highest = math.ceil(math.sqrt(tiles)), math.ceil(math.sqrt(1.8 * tiles))
    return min(range(max(1, lowest), max(1, highest) + 1), key=lambda columns: -tiles % columns)


def place(sheet: Image.Image, tile: Tile, left: int, top: int) -> None:
    """Puts one tile onto the sheet: the whole image, as large as fits, and its caption below."""
    scale = TILE_PX / max(tile.image.size)
    width, height = (max(1, round(side * scale)) for side in tile.image.size)
    image = tile.image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    sheet.paste(image, (left + (TILE_PX - width) // 2, top + TILE_PX - height))
    draw = ImageDraw.Draw(sheet)
    for line, (text, color) in enumerate(tile.caption):
        draw.text((left, top + TILE_PX + 3 + line * LINE_PX), fitting(text), color, font())


def fitting(text: str) -> str:
    """The text in one line, cut where the tile ends."""
    text = printable(text)
    if font().getlength(text) <= TILE_PX:
        return text
    while font().getlength(f"{text}\u2026") > TILE_PX:
        text = text[:-1]
    return f"{text}\u2026"


@cache
def font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own has no Greek and no Cyrillic."""
    import matplotlib as mpl

    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), FONT_PX)
