"""Forest, glacier, mountain and sea."""

import math

from sancli.data.scenes.canvas import BLACK, Canvas, Colour, Point, mix


def mountain(canvas: Canvas) -> None:
    """Peaks behind peaks, each with a dark side and snow on top."""
    rand, colours = canvas.rand, canvas.colours
    for row, tone in enumerate(colours.tones):
        foot = 0.75 + 0.12 * row
        for slot in rand.sample(range(4), 3):
            x, top = (slot + rand.uniform(0, 1)) / 4, foot - rand.uniform(0.3, 0.55) * (1 - row / 6)
            half = (foot - top) * rand.uniform(0.65, 0.9)
            ridge = x + half * rand.uniform(-0.2, 0.1)
            canvas.polygon([(x - half, foot), (x, top), (x + half, foot)], tone)
            canvas.polygon([(ridge, foot), (x, top), (x + half, foot)], mix(tone, BLACK, 0.18))
            snow(canvas, (x, top), half / (foot - top), (foot - top) * rand.uniform(0.2, 0.35))
        canvas.box(0, foot, 1, 1, fill=tone)


def snow(canvas: Canvas, peak: Point, slope: float, depth: float) -> None:
    """A white cap that ends in a zigzag; the sides of the peak fall by 1 / `slope`."""
    edge = []
    for step in range(-3, 4):
        height = depth * (0.7 if step % 2 else 1.0)
        edge.append((peak[0] + slope * height * 0.75 * step / 3, peak[1] + height))
    canvas.polygon([peak, *edge], canvas.colours.light)


def forest(canvas: Canvas) -> None:
    """Rows of trees: firs of three triangles, or round crowns."""
    rand, colours = canvas.rand, canvas.colours
    tree = fir if rand.random() < 0.6 else leafy
    for row, tone in enumerate(colours.tones):
        floor, size = 0.62 + 0.13 * row, 0.26 + 0.09 * row
        canvas.box(0, floor - 0.02, 1, 1, fill=tone)
        x = rand.uniform(-0.1, 0.05)
        while x < 1.1:
            height = size * rand.uniform(0.75, 1.2)
            shade = mix(tone, BLACK, rand.uniform(0, 0.2))
            tree(canvas, (x, floor + rand.uniform(0, 0.05)), height, shade)
            x += size * rand.uniform(0.28, 0.5)


def fir(canvas: Canvas, foot: Point, height: float, tone: Colour) -> None:
    """A trunk and three triangles, one above the other."""
    x, y = foot
    canvas.box(x - height * 0.03, y - height * 0.2, x + height * 0.03, y, fill=canvas.colours.tones[-1])
    for share, half in ((0.12, 0.24), (0.38, 0.19), (0.62, 0.13)):
        low = y - height * share
        canvas.polygon([(x - height * half, low), (x, low - height * 0.38), (x + height * half, low)], tone)


def leafy(canvas: Canvas, foot: Point, height: float, tone: Colour) -> None:
    """A trunk and three discs."""
    x, y = foot
    canvas.box(x - height * 0.03, y - height * 0.5, x + height * 0.03, y, fill=canvas.colours.tones[-1])
    for dx, dy, radius in ((-0.13, 0.5, 0.17), (0.13, 0.52, 0.17), (0, 0.7, 0.2)):
        canvas.disc((x + height * dx, y - height * dy), height * radius, tone)


def sea(canvas: Canvas) -> None:
    """Rows of waves below a flat horizon, sometimes with a sail."""
    rand, colours = canvas.rand, canvas.colours
    horizon = rand.uniform(0.35, 0.58)
    for band, tone in enumerate(colours.tones):
        canvas.box(0, horizon + (1 - horizon) * (band / 4) ** 1.3, 1, 1, fill=tone)
    y = horizon + 0.025
    while y < 1.02:
        depth = (y - horizon) / (1 - horizon)
        waves(canvas, y, 0.05 + 0.14 * depth, 0.006 + 0.01 * depth)
        y += 0.028 + 0.06 * depth
    if rand.random() < 0.5:
        sail(canvas, (rand.uniform(0.15, 0.85), horizon + rand.uniform(0.04, 0.2)), rand.uniform(0.12, 0.24))


def waves(canvas: Canvas, y: float, length: float, width: float) -> None:
    """One row of crests, with gaps."""
    rand, x = canvas.rand, canvas.rand.uniform(-0.15, 0)
    while x < 1:
        crest = [(x + length * t / 8, y - 0.25 * length * math.sin(math.pi * t / 8)) for t in range(9)]
        if rand.random() < 0.75:
            fill = mix(canvas.colours.light, canvas.colours.tones[1], rand.uniform(0, 0.5))
            canvas.line(crest, width, fill)
        x += length * rand.uniform(1.0, 1.5)


def sail(canvas: Canvas, foot: Point, height: float) -> None:
    """A boat of three pieces."""
    pieces = (  # in heights from the foot of the mast
        (canvas.colours.tones[-1], ((-0.45, -0.12), (0.45, -0.12), (0.28, 0.06), (-0.28, 0.06))),
        (canvas.colours.light, ((0, -1), (0, -0.16), (0.4, -0.16))),
        (canvas.colours.accent, ((-0.05, -0.85), (-0.05, -0.16), (-0.35, -0.16))),
    )
    for fill, corners in pieces:
        canvas.polygon([(foot[0] + height * dx, foot[1] + height * dy) for dx, dy in corners], fill)


def glacier(canvas: Canvas) -> None:
    """A tongue of ice that winds down from a snow field between two slopes, crossed by crevasses."""
    rand, colours = canvas.rand, canvas.colours
    ice, top = mix(colours.light, colours.tones[0], 0.25), rand.uniform(0.3, 0.42)
    canvas.box(0, 0.55, 1, 1, fill=colours.tones[2])
    summit = rand.uniform(0.35, 0.65), top - rand.uniform(0.12, 0.2)
    field = [(-0.1, 0.6), (0.2, top), summit, (0.75, top + 0.02), (1.1, 0.6)]
    canvas.polygon(field, mix(ice, colours.tones[1], 0.3))
    for side in (-1, 1):
        x, peak = 0.5 + side * rand.uniform(0.32, 0.48), top - rand.uniform(-0.04, 0.1)
        canvas.polygon([(x - 0.5, 0.98), (x, peak), (x + 0.5, 0.98)], colours.tones[1])
        canvas.polygon([(x, 0.98), (x, peak), (x + 0.5, 0.98)], mix(colours.tones[1], BLACK, 0.15))
    tongue(canvas, top, ice)


def tongue(canvas: Canvas, top: float, ice: Colour) -> None:
    """The ice from `top` down to the lower edge."""
    rand, colours = canvas.rand, canvas.colours
    bend, phase = rand.uniform(0.08, 0.18) * rand.choice((-1, 1)), rand.random()

    def at(down: float, across: float) -> Point:
        """A place on the ice: `down` from 0 to 1 along it, `across` from -1 to 1."""
        middle = 0.5 + bend * math.sin(math.tau * (down + phase))
        return middle + across * (0.05 + 0.32 * down**1.2), top + (1.02 - top) * down

    steps = [step / 24 for step in range(25)]
    canvas.polygon([at(t, -1) for t in steps] + [at(t, 1) for t in reversed(steps)], ice)
    for across in (-0.55, 0.0, 0.5):  # moraines
        canvas.line([at(t, across) for t in steps], 0.006, mix(ice, colours.tones[2], 0.4))
    down = 0.06
    while down < 1:
        reach, sag = rand.uniform(0.5, 0.95), 0.04 + 0.05 * down
        places = [reach * step / 4 for step in range(-4, 5)]
        arc = [at(down + sag * (1 - u * u) + rand.uniform(-0.008, 0.008), u) for u in places]
        canvas.line(arc, 0.005 + 0.01 * down, mix(colours.tones[3], ice, 0.15))
        down += 0.04 + 0.06 * down
