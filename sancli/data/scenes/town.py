"""Buildings and street."""

from sancli.data.scenes.canvas import BLACK, Canvas, Colour, Point, mix


def buildings(canvas: Canvas) -> None:
    """Upright blocks before upright blocks, with rows of windows."""
    rand, colours = canvas.rand, canvas.colours
    for row, tone in enumerate(colours.tones[:3]):
        x = rand.uniform(-0.15, 0.0)
        while x < 1:
            width, top = rand.uniform(0.12, 0.24), 0.2 + 0.15 * row + rand.uniform(0, 0.25)
            canvas.box(x, top, x + width, 1, fill=mix(tone, BLACK, rand.uniform(0, 0.12)))
            if rand.random() < 0.3:  # a mast
                middle = x + width / 2
                canvas.line([(middle, top - rand.uniform(0.04, 0.1)), (middle, top)], 0.008, tone)
            windows(canvas, (x, top), width, tone)
            x += width + rand.choice((0.0, 0.0, rand.uniform(0.01, 0.08)))


def windows(canvas: Canvas, corner: Point, width: float, tone: Colour) -> None:
    """The windows of one block, some lit."""
    rand, colours = canvas.rand, canvas.colours
    (left, top), columns = corner, rand.randint(3, 4)
    pitch, lit = width / (columns + 0.4), rand.uniform(0.3, 0.8)
    for row in range(int((1 - top) / (pitch * 1.35))):
        for column in range(columns):
            x, y = left + pitch * (column + 0.45), top + pitch * (0.5 + 1.35 * row)
            fill = colours.accent if rand.random() < lit else mix(tone, BLACK, 0.35)
            canvas.box(x, y, x + pitch * 0.5, y + pitch * 0.75, fill=fill)


def street(canvas: Canvas) -> None:
    """A road between two rows of houses, all running to one point on the horizon."""
    rand, colours = canvas.rand, canvas.colours
    eye = rand.uniform(0.35, 0.65), rand.uniform(0.45, 0.58)
    canvas.box(0, eye[1], 1, 1, fill=colours.tones[1])
    canvas.polygon([eye, (eye[0] + 0.62, 1.02), (eye[0] - 0.62, 1.02)], colours.tones[3])
    for side in (-1, 1):
        houses(canvas, eye, side)
    for dash in range(6):  # each is nearer to the eye by the same factor: perspective
        near = 0.62**dash
        ends = ((near, -1), (near, 1), (near * 0.8, 1), (near * 0.8, -1))
        stripe = [(eye[0] + 0.02 * share * edge, eye[1] + (1.05 - eye[1]) * share) for share, edge in ends]
        canvas.polygon(stripe, colours.light)


def houses(canvas: Canvas, eye: Point, side: int) -> None:
    """The fronts along one side of a street."""
    rand, reach = canvas.rand, eye[0] + 0.08 if side < 0 else 1.08 - eye[0]

    def at(share: float, height: float) -> Point:
        """A place on the row: `share` is 0 at the vanishing point and 1 at the picture's edge."""
        return eye[0] + side * reach * share, eye[1] + (0.32 - height) * share

    far = 0.07
    while far < 1:
        near, height = far * rand.uniform(1.35, 1.7), rand.uniform(0.6, 1.0)
        tone = mix(rand.choice(canvas.colours.tones[:3]), BLACK, rand.uniform(0, 0.15))
        canvas.polygon([at(near, 0), at(near, height), at(far, height), at(far, 0)], tone)
        for low in (low for low in (0.2, 0.45, 0.7) if low + 0.12 < height):
            for start, end in ((0.15, 0.4), (0.6, 0.85)):
                left, right = far + (near - far) * start, far + (near - far) * end
                fill = canvas.colours.accent if rand.random() < 0.5 else mix(tone, BLACK, 0.35)
                pane = [at(left, low), at(left, low + 0.12), at(right, low + 0.12), at(right, low)]
                canvas.polygon(pane, fill)
        far = near
