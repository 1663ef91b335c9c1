"""Drawn landscapes in six classes, for the demo and for tests: no download, and nobody's photographs.

Every image takes its colours from the same distribution, whatever its class, so that nothing but shape and
texture tells the classes apart.
"""

import random
from collections.abc import Callable

from PIL import Image

from sancli.data.scenes import nature, town
from sancli.data.scenes.canvas import Canvas

CLASSES: dict[str, Callable[[Canvas], None]] = {  # those of the Intel scenes
    "buildings": town.buildings,
    "forest": nature.forest,
    "glacier": nature.glacier,
    "mountain": nature.mountain,
    "sea": nature.sea,
    "street": town.street,
}


def scene(kind: str, *, seed: str, side: int) -> Image.Image:
    """One drawn scene of the class `kind`, `side` pixels wide; the same seed gives the same picture."""
    canvas = Canvas(random.Random(seed), side)
    CLASSES[kind](canvas)
    return canvas.finished()
