"""A square picture and its colours: what every drawn scene starts from. Coordinates run from 0 to 1."""

import colorsys
import random
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]
BLACK = (0, 0, 0)
OVERSAMPLING = 2  # drawn twice as large and scaled down: Pillow's own edges are not smooth
HUES = (  # of the sky and of the ground, in turns of the colour wheel: pairs that look well together
    (0.03, -0.07), (0.08, -0.01), (0.12, 0.05), (0.30, 0.42), (0.45, 0.55), (0.52, 0.62),
    (0.58, 0.50), (0.62, 0.75), (0.72, 0.80), (0.80, 0.68), (0.90, 0.78), (0.96, 0.88),
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """The colours of one image."""

    sky: tuple[Colour, Colour]
    """At the top, and at the horizon."""
    tones: tuple[Colour, ...]
    """From far, nearly the sky's, to near."""
    light: Colour
    accent: Colour


def draw_palette(rand: random.Random) -> Palette:
    """Two hues and a third opposite; by day the ground is darker than the sky, by night it is lighter."""
    sky_hue, ground_hue = rand.choice(HUES)
    sky, ground = rand.uniform(0.8, 0.95), rand.uniform(0.2, 0.35)
    if rand.random() < 0.5:
        sky, ground = ground, sky
    saturation = rand.uniform(0.3, 0.6)
    shares = (0.3, 0.53, 0.77, 1.0)
    return Palette(
        sky=(_colour(sky_hue, saturation, sky), _colour(ground_hue, saturation * 0.5, min(1, sky * 1.15))),
        tones=tuple(
            _colour(sky_hue + (ground_hue - sky_hue) * share, saturation, sky + (ground - sky) * share)
            for share in shares
        ),
        light=_colour(ground_hue, 0.07, 0.97),
        accent=_colour(ground_hue + 0.5, 0.55, 0.95),
    )


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with `share` of the `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


class Canvas:
    """A square picture that is drawn on in coordinates from 0 to 1."""

    def __init__(self, rand: random.Random, side: int) -> None:
        self.rand, self.colours = rand, draw_palette(rand)
        self.side, self.pixels = side, side * OVERSAMPLING
        top, low = self.colours.sky
        column = Image.new("RGB", (1, 64))
        column.putdata([mix(top, low, y / 63) for y in range(64)])
        self.image = column.resize((self.pixels, self.pixels), Image.Resampling.BILINEAR)
        self.draw = ImageDraw.Draw(self.image)
        if rand.random() < 0.6:  # a sun or a moon, in every class
            place = rand.uniform(0.1, 0.9), rand.uniform(0.08, 0.25)
            self.disc(place, rand.uniform(0.03, 0.07), self.colours.light)

    def polygon(self, points: Iterable[Point], fill: Colour) -> None:
        """Fills the polygon."""
        self.draw.polygon([(x * self.pixels, y * self.pixels) for x, y in points], fill=fill)

    def box(self, left: float, top: float, right: float, low: float, *, fill: Colour) -> None:
        """Fills an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, low), (left, low)], fill)

    def line(self, points: Iterable[Point], width: float, fill: Colour) -> None:
        """Draws a line with round joints; `width` is a share of the side."""
        scaled = [(x * self.pixels, y * self.pixels) for x, y in points]
        self.draw.line(scaled, fill=fill, width=max(1, round(width * self.pixels)), joint="curve")

    def disc(self, centre: Point, radius: float, fill: Colour) -> None:
        """Fills a circle."""
        x, y, r = (value * self.pixels for value in (*centre, radius))
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def finished(self) -> Image.Image:
        """The picture at its size, under light from one side: hardly two pixels keep the same colour."""
        small = self.image.resize((self.side, self.side), Image.Resampling.LANCZOS)
        light = Image.linear_gradient("L").rotate(self.rand.uniform(0, 360), Image.Resampling.BILINEAR)
        # turned by any angle, the middle 180 of its 256 pixels have no empty corner
        light = light.crop((38, 38, 218, 218)).resize(small.size, Image.Resampling.BILINEAR)
        shaded = ImageChops.soft_light(small, light.convert("RGB"))
        return Image.blend(small, shaded, self.rand.uniform(0.3, 0.9))
