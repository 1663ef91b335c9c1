"""What a table says about images: each row led to an image, with its label, or the line that is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sancli.data.preparation.labels.columns import Columns
from sancli.data.preparation.labels.matching import Images, unsafe
from sancli.data.preparation.labels.table import Row, Table
from sancli.data.preparation.labels.text import shown, wrong_line
from sancli.errors import DataError

MAX_LABEL_BYTES = 200
"""A class becomes a folder, whose name has 255 bytes at the most on every disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row."""

    table: str
    line: int
    name: str
    """Of the image, as the row has it."""
    path: str | None
    """Of the image in the source; None: it is not there."""
    label: str
    split: str | None
    """As the row has it."""
    group: str | None = None
    """What tells which images belong together, where a column does."""

    def where(self) -> str:
        """For people."""
        return f"{self.table}, line {self.line:,}"


@dataclass
class Claim:
    """A table that says what images show."""

    table: Table
    columns: Columns
    entries: list[Entry] = field(default_factory=list)
    error: DataError | None = None
    """About the first row that cannot be used."""

    @property
    def found(self) -> list[Entry]:
        """The rows whose image is there."""
        return [entry for entry in self.entries if entry.path is not None]


def claim(
    table: Table, columns: Columns, images: Images, *, near: Callable[[str], bool] = lambda path: True
) -> Claim:
    """Leads each row to its image, up to the first that is wrong.

    Args:
        table: Its rows.
        columns: Of image, label and split.
        images: All that there are.
        near: Whether an image is likely to be meant, where a name can stand for several.
    """
    made = Claim(table, columns, error=table.error)
    beside, known = table.name.rpartition("/")[0], set[str]()
    try:
        for row in table.rows:  # what stands before a mistake counts
            found = images.find(row.cells[columns.image], beside=beside)
            made.entries.append(_entry(row, found, table=table, columns=columns, near=near, known=known))
    except DataError as error:
        made.error = error
    return made


def _entry(
    row: Row,
    found: list[str],
    *,
    table: Table,
    columns: Columns,
    near: Callable[[str], bool],
    known: set[str],
) -> Entry:
    name, label = row.cells[columns.image], row.cells[columns.label]
    split = None if columns.split is None else row.cells[columns.split]
    group = None if columns.group is None else row.cells[columns.group] or None
    if not name:
        raise wrong_line(
            table.name,
            row.line,
            "names no image",
            why=f"its column {shown([table.header[columns.image]])} is empty",
            fix="fill it, or remove the line",
        )
    if why := unsafe(name):
        raise wrong_line(
            table.name,
            row.line,
            f"unsafe name {name[:60]!r}; nothing was read or written",
            why=why,
            fix="write the place of the image below the source",
        )
    if len(found) > 1:
        found = list(filter(near, found)) or found
    if len(found) > 1:
        raise wrong_line(
            table.name,
            row.line,
            f"{shown([name])} can stand for {len(found)} images",
            why=f"there are {shown(found, most=3)}",
            fix="write the folders too, as in the first of them",
        )
    if label not in known:
        check_label(table.name, row.line, label)
        known.add(label)
    return Entry(table.name, row.line, name, found[0] if found else None, label, split, group)


def check_label(name: str, line: int, label: str) -> None:
    """Refuses what cannot be the name of a class.

    Raises:
        DataError: With the line.
    """
    if not label:
        raise wrong_line(
            name, line, "has no label", why="its label is empty", fix="fill it, or remove the line"
        )
    if label in (".", "..") or unsafe(label):
        raise wrong_line(
            name,
            line,
            f"unsafe label {label[:60]!r}; nothing was read or written",
            why="a label becomes the name of a folder",
            fix="write another label",
        )
    if len(label.encode("utf-8", "replace")) > MAX_LABEL_BYTES:
        raise wrong_line(
            name,
            line,
            f"has a label of {len(label):,} characters",
            why=f"a label becomes the name of a folder, which has {MAX_LABEL_BYTES} bytes at most",
            fix="shorten it",
        )
