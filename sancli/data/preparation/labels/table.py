"""A text with columns -> rows with their line numbers; commas, semicolons, tabs or bars between the cells."""

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from sancli.console import plural
from sancli.data.preparation.labels.text import Text, read_text, shown, wrong_line
from sancli.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row below the header."""

    line: int
    """In which it begins, counted from 1."""
    cells: list[str]


@dataclass
class Table:
    """What was read of a file, and what ended the reading."""

    name: str
    sha256: str
    header: list[str]
    encoding: str
    separator: str
    rows: list[Row] = field(default_factory=list)
    error: DataError | None = None
    """About the row behind the last of `rows`."""
    one_hot: bool = False
    """The labels were columns, with a 1 in one of them."""


def read_table(content: bytes, name: str) -> Table:
    """The table in a file, up to its first mistake.

    Raises:
        DataError: It is no text, or its first line cannot be read.
    """
    text = read_text(content, name)
    separator = _separator(text.content)
    rows = _rows(text, separator, name)
    header = next(rows, None)
    if header is None:
        raise DataError(
            f"{name} holds nothing but empty lines.",
            why="it was to hold labels.",
            fix="download or write it again.",
        )
    names = [cell.strip() for cell in header.cells]
    while names and not names[-1]:
        names.pop()
    table = Table(name, hashlib.sha256(content).hexdigest(), names, text.encoding, separator)
    try:
        for row in rows:
            table.rows.append(Row(row.line, _fitting(row, table)))
    except DataError as error:
        table.error = error
    return table


def _separator(text: str) -> str:
    """Whatever stands most often in the first line that is not empty, outside of quotes."""
    first = next((line for line in text[: 2**20].splitlines() if line.strip()), "")
    bare = "".join(first.split('"')[::2])
    return max(SEPARATORS, key=bare.count)


def _rows(text: Text, separator: str, name: str) -> Iterator[Row]:
    """Rows that are not empty; the csv module counts the lines."""
    reader = csv.reader(io.StringIO(text.content, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(line, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise _unreadable(name, line, str(error)) from None


def _unreadable(name: str, line: int, words: str) -> DataError:
    if "unexpected end of data" in words:
        return wrong_line(
            name,
            line,
            "a quotation mark that opens there never closes",
            why="all that follows would be one cell",
            fix='close it, or write "" for a quotation mark inside a cell',
        )
    if "field limit" in words:
        return wrong_line(
            name,
            line,
            f"a cell has more than {csv.field_size_limit():,} characters",
            why="no name or label is that long; a quotation mark may be missing",
            fix="mend the line",
        )
    return wrong_line(name, line, "cannot be read", why=words, fix="mend the line")


def _fitting(row: Row, table: Table) -> list[str]:
    """The cells of a row, as many as the header has; spreadsheets add empty ones."""
    cells, wanted = row.cells, len(table.header)
    if not any(cell.strip() for cell in cells[wanted:]):
        cells = cells[:wanted]
    if len(cells) != wanted:
        raise wrong_line(
            table.name,
            row.line,
            f"has {plural(len(cells), 'column')}, and the header {wanted}",
            why=f"the columns are {shown(table.header)}, with {SEPARATORS[table.separator]} between them",
            fix="mend the line; a cell that holds a separator stands in quotation marks",
        )
    return [cell.strip() for cell in cells]
