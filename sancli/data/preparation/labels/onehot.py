"""Tables with a column for each class and a 1 in one of them (as ISIC has them): to one column of labels."""

from dataclasses import replace

from sancli.data.preparation.labels.columns import find_image
from sancli.data.preparation.labels.table import Row, Table
from sancli.data.preparation.labels.text import shown, wrong_line
from sancli.errors import DataError

NONE, ONE = ("", "0", "0.0", "false", "no"), ("1", "1.0", "true", "yes", "x")


def from_one_hot(table: Table, image: str | None = None) -> Table | None:
    """The table with the columns image and label; None where it is not of this kind.

    Args:
        table: Any.
        image: The column of the images, where the user named it.

    Raises:
        DataError: A row marks no class, or several, where others mark one.
    """
    place = find_image(table, image)
    classes = [at for at in range(len(table.header)) if at != place]
    if place is None or len(classes) < 2 or not table.rows:
        return None
    rows, wrong = [], []
    for row in table.rows:
        marks = [row.cells[at].lower() for at in classes]
        if not all(mark in NONE or mark in ONE for mark in marks):
            return None
        chosen = [table.header[at] for at, mark in zip(classes, marks, strict=True) if mark in ONE]
        if len(chosen) == 1:
            rows.append(Row(row.line, [row.cells[place], chosen[0]]))
        else:
            wrong.append((row.line, chosen))
    if rows and wrong:
        raise _not_one(table.name, *wrong[0])
    return replace(table, header=[table.header[place], "label"], rows=rows, one_hot=True) if rows else None


def _not_one(name: str, line: int, chosen: list[str]) -> DataError:
    return wrong_line(
        name,
        line,
        f"marks {shown(chosen, most=5)}" if chosen else "marks no class",
        why="where each class has a column, every row has a 1 in one of them: an image is of one class",
        fix="leave one 1 in each row, or name the column with the label: --label-col NAME",
    )
