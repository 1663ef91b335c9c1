"""How a source was understood, and what it is recognised from."""

from collections.abc import Callable
from dataclasses import dataclass, field

from sancli.data.listing import Listing, Problem
from sancli.data.prepared import UNLABELLED

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Placed:
    """An image of the source, and what its place says about it."""

    path: str
    label: str | None
    """None: unlabelled."""
    split: str | None
    """None: the source does not say."""


def unlabelled(path: str) -> Placed:
    """An image of which nobody says what it shows."""
    return Placed(path, None, UNLABELLED)


@dataclass
class Layout:
    """How a source was understood."""

    name: str
    why: str
    images: list[Placed] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    """Images whose place says nothing."""
    empty: list[str] = field(default_factory=list)
    """Class folders without an image."""
    whole: bool = False
    """A benchmark, in which nothing is split, dropped or filtered."""
    label_files: dict[str, str] = field(default_factory=dict)
    """Files that say what images show, and the sha256 of each: they decide the result as images do."""
    notes: list[str] = field(default_factory=list)
    """Lines for people: what was assumed."""


@dataclass(frozen=True)
class LabelFile:
    """A file that may say what images show."""

    name: str
    """As people know it: relative to the source, or as it was given."""
    content: bytes


@dataclass(frozen=True)
class Hints:
    """What the user says about labels; each is None or False where nothing was said."""

    labels: LabelFile | None = None
    image_col: str | None = None
    label_col: str | None = None
    split_col: str | None = None
    label_regex: str | None = None
    skip_missing: bool = False


def _unreadable(name: str) -> bytes:
    raise FileNotFoundError(name)


@dataclass(frozen=True)
class Seen:
    """All that a layout is recognised from."""

    listing: Listing
    source: str = "the source"
    """For people."""
    hints: Hints = field(default_factory=Hints)
    read: Callable[[str], bytes] = _unreadable
    """Gives the content of one of listing.tables."""


def split_of(name: str) -> str | None:
    """The split that a folder or a cell is named for."""
    return SPLIT_NAMES.get(name.lower())
