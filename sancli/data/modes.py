"""An image of any mode -> RGB, by fixed rules: the same value gives the same colour in every picture."""

import numpy as np
from PIL import Image


class UnknownScale(Exception):  # noqa: N818 -- said of the values
    """Numbers of which nobody says what is black and what is white."""


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as RGB.

    Raises:
        UnknownScale: Its values have no known scale.
    """
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image.copy()  # free of the file and of what else it said
    if mode.startswith("I;16"):
        return _from_grey(np.asarray(image) >> 8)  # the upper byte, as libpng and RGB of 16 bits have it
    if mode == "I":
        return _from_grey(_scale_integers(np.asarray(image)))
    if mode == "F":
        return _from_grey(_scale_floats(np.asarray(image)))
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def _from_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _scale_integers(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UnknownScale(f"32-bit grey (mode I) from {low} to {high}; only 0 to 65535 has a known scale")
    return values if high <= 255 else values >> 8  # 8 or 16 bits of grey, kept in 32


def _scale_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN fails here too
        raise UnknownScale(f"float grey (mode F) from {low:g} to {high:g}; only 0 to 1 has a known scale")
    return np.rint(values * np.float32(255))


def _over_white(image: Image.Image) -> Image.Image:
    picture = Image.new("RGB", image.size, "white")
    picture.paste(image, mask=image.getchannel("A"))
    return picture
