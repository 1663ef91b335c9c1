"""report.html of `san prepare`: what the data holds, what is wrong with it, and what was done about it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from sancli import __version__
from sancli.config import SPLITS
from sancli.console import plural
from sancli.files import write_text
from sancli.report.pages.findings import findings, tiles
from sancli.report.pages.rendering import render
from sancli.report.pages.thumbnails import Equalized, data_uri, sheet

MOST_ROWS = 1000
"""Classes in the table, and with a sheet: nobody reads more."""
SHEETS = (  # pictures of a class and their side in pixels; the first that fits is taken
    *((12, 128), (12, 96), (10, 80), (8, 72), (6, 64), (5, 56), (4, 48), (3, 44), (2, 44)),
)
SHEET_PIXELS = 4_500_000
"""In all sheets together.

Source: the Intel scenes as 1,000 classes, 2 pictures of 44 px each: 2.0 MB in base64, in a page of 2.5 MB; as
6 classes, 12 of 128 px each, 0.45 MB."""
TWINS = {
    "across_classes": (
        "Contradictory labels",
        "The same file is in more than one class, and nothing says which is right.",
    ),
    "across_splits": (
        "Leaks between splits",
        "The same file is in two splits: a network would be asked what it was told. "
        "Sets with contradictory labels stand under these.",
    ),
    "inside_class": ("Copies inside a class", "The same file more than once: it would count double."),
    "near_across_classes": (
        "Near duplicates in several classes",
        "Pictures that look alike, with different labels: one of these may be wrong. None was dropped.",
    ),
    "near_across_splits": (
        "Near duplicates in several splits",
        "Pictures that look alike, one to learn from and one to be tested on. None was dropped; "
        "--group-by keeps images that belong together in one split.",
    ),
    "near_inside_class": (
        "Near duplicates inside a class",
        "Pictures that look alike. None was dropped.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A file on the page: its picture, and what is said about it."""

    path: str
    image: Image.Image | None = None
    """None: it cannot be shown."""
    label: str = ""
    split: str = ""
    note: str = ""
    action: str = ""

    @property
    def uri(self) -> str | None:
        """The picture as the page holds it."""
        return None if self.image is None else data_uri(self.image)


@dataclass(frozen=True)
class Group:
    """Files that belong together: a set of duplicates, or everything with one fault."""

    shots: list[Shot]
    count: int
    """Of files; more than there are shots where the page does not show all."""
    title: str = ""


@dataclass(frozen=True)
class Sets:
    """Sets of duplicates of one kind."""

    groups: list[Group]
    count: int
    """Of sets; more than there are groups where the page does not show all."""


@dataclass
class Pictures:
    """Everything on the page that is not a number."""

    sheets: dict[str, list[Shot]] = field(default_factory=dict)
    """By class; those without a class under ""."""
    twins: dict[str, Sets] = field(default_factory=dict)
    """By kind."""
    problems: list[Group] = field(default_factory=list)
    """A group for each kind of fault."""
    equalized: list[Equalized] = field(default_factory=list)


def sheet_of(classes: int) -> tuple[int, int]:
    """How many pictures a class gets in its sheet, and how many pixels wide each is."""
    for count, side in SHEETS:
        if min(classes, MOST_ROWS) * count * side**2 <= SHEET_PIXELS:
            return count, side
    return SHEETS[-1]


def shown_classes(counts: dict[str, dict[str, int]]) -> list[str]:
    """The classes on the page, in their order: all, or the smallest where there are too many."""
    sums = _sums(counts)
    smallest = sorted(sums, key=lambda name: (sums[name], name))[:MOST_ROWS]
    return sorted(smallest)


def write_page(path: Path, facts: dict[str, Any], pictures: Pictures) -> None:
    """Writes the page; equal facts and pictures give equal bytes.

    Args:
        path: Where to.
        facts: What --json prints; and name, options, origin, again (the command), known_as (what people call
            a class) of the preparation.
        pictures: Thumbnails.
    """
    values = {
        "facts": facts,
        "version": __version__,
        "plural": plural,
        "tiles": tiles(facts),
        "findings": findings(facts),
        "table": _table(facts["counts"]),
        "sheets": _sheets(facts, pictures.sheets),
        "twins": [(*words, pictures.twins[kind]) for kind, words in TWINS.items() if kind in pictures.twins],
        "problems": pictures.problems,
        "equalized": pictures.equalized,
        "data_uri": data_uri,
        "options": {key: _value(value) for key, value in facts["options"].items()},
    }
    write_text(path, render("preparation.html", values) + "\n")


def _sums(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    """Images of each class in all splits."""
    names = dict.fromkeys(name for row in counts.values() for name in row)
    return {name: sum(row.get(name, 0) for row in counts.values()) for name in names}


def _table(counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Rows of the table of classes, with the widths of their bars in percent of the longest."""
    splits = [split for split in SPLITS if split in counts]
    sums, shown = _sums(counts), shown_classes(counts)
    longest = max(sums.values(), default=1)
    rows = [
        {
            "name": name,
            "numbers": [counts[split].get(name, 0) for split in splits],
            "bars": [(split, round(100 * counts[split].get(name, 0) / longest, 2)) for split in splits],
            "sum": sums[name],
        }
        for name in shown
    ]
    totals = [sum(counts[split].values()) for split in splits]
    return {"splits": splits, "rows": rows, "totals": totals, "sum": sum(totals), "classes": len(sums)}


def _sheets(facts: dict[str, Any], sheets: dict[str, list[Shot]]) -> list[dict[str, Any]]:
    _, side = sheet_of(len(facts["classes"]))
    sums = _sums(facts["counts"])
    return [
        {
            "name": name or "without a class",
            "count": sums[name] if name else facts["unlabelled"],
            "columns": (columns := _columns(len(shots))),
            "uri": data_uri(sheet([shot.image for shot in shots], side=side, columns=columns)),
            "shots": shots,
        }
        for name, shots in sheets.items()
        if shots
    ]


def _columns(shots: int) -> int:
    """Six pictures in a row, or all where there are fewer than eight."""
    return shots if shots < 8 else -(-shots // 2)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else str(value)
