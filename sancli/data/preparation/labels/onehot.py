"""Tables with a column for each class and a 1 in one of them (as ISIC has them): to one column of labels."""

from dataclasses import replace

from sancli.data.preparation.labels.columns import find_image
from sancli.data.preparation.labels.table import Row, Table

NONE, ONE = ("", "0", "0.0", "false", "no"), ("1", "1.0", "true", "yes", "x")


def from_one_hot(table: Table, image: str | None = None) -> Table | None:
    """The table with the columns image and label; None where it is not of this kind.

    Args:
        table: Any.
        image: The column of the images, where the user named it.
    """
    place = find_image(table, image)
    classes = [at for at in range(len(table.header)) if at != place]
    if place is None or len(classes) < 2 or not table.rows:
        return None
    rows = []
    for row in table.rows:
        marks = [row.cells[at].lower() for at in classes]
        if not all(mark in NONE or mark in ONE for mark in marks):
            return None
        chosen = [at for at, mark in zip(classes, marks, strict=True) if mark in ONE]
        if len(chosen) != 1:
            return None
        rows.append(Row(row.line, [row.cells[place], table.header[chosen[0]]]))
    return replace(table, header=[table.header[place], "label"], rows=rows)
