"""The tables of an evaluation, as CSV: per_class.csv, confusion_matrix.csv, most_confused.csv."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sancli.files import write_csv


def write_per_class(path: Path, classes: Sequence[str], columns: dict[str, Tensor]) -> None:
    """Writes one row a class: its number, its name, and its value in each column."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = [
        (number, name, *map(rounded, row))
        for number, (name, row) in enumerate(zip(classes, values, strict=True))
    ]
    write_csv(path, ("number", "class", *columns), rows)


def write_matrix(path: Path, matrix: Tensor, classes: Sequence[str]) -> None:
    """Writes counts with the true classes in the first column and the predicted ones in the first row."""
    rows = [(name, *row) for name, row in zip(classes, matrix.tolist(), strict=True)]
    write_csv(path, ("true \\ predicted", *classes), rows)


def write_most_confused(path: Path, mistakes: Sequence[tuple[str, str, int]]) -> None:
    """Writes (true class, predicted class, images), in the order given."""
    write_csv(path, ("true", "predicted", "images"), mistakes)


def rounded(value: float) -> float:
    """The value with the digits that mean something."""
    return value if isinstance(value, int) else round(value, 6)
