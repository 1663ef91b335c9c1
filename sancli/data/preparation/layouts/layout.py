"""How a source was understood, and what it is recognised from."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sancli.data.listing import Listing, Problem
from sancli.data.preparation.archives import without_ending
from sancli.data.prepared import UNLABELLED

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DIGITS = "0123456789"
"""At the end of a folder's name, such as Kaggle's test1 and COCO's train2017."""
FILLERS = ("set", "data", "image", "images", "img", "imgs", "split", "folder", "files", "")
"""Words beside the split's in a folder's name, such as Training Set and test_images."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An image of the source, and what its place says about it."""

    path: str
    label: str | None
    """None: unlabelled."""
    split: str | None
    """None: the source does not say."""
    group: str | None = None
    """What it shares with the images that must go where it goes; None: it stands alone."""

    def __post_init__(self) -> None:
        if self.label is not None:  # one text for the label of a thousand images
            object.__setattr__(self, "label", sys.intern(self.label))


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
    group_by: str | None = None
    """Where a table has such a column, its values are the groups."""
    skip_missing: bool = False


def _unreadable(names: Sequence[str]) -> dict[str, bytes]:
    raise FileNotFoundError(names[0])


@dataclass(frozen=True)
class Seen:
    """All that a layout is recognised from."""

    listing: Listing
    source: str = "the source"
    """For people."""
    hints: Hints = field(default_factory=Hints)
    read: Callable[[Sequence[str]], dict[str, bytes]] = _unreadable
    """Gives the contents of some of listing.tables: in one go, for a tar is read from its beginning."""


def split_of(name: str) -> str | None:
    """The split that a name stands for: train, Training Set, test_images.zip, val2017."""
    name = without_ending(name).lower().rstrip(DIGITS)
    words = [word for word in re.split(r"[ _.-]+", name) if word not in FILLERS]
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def splits_by_folder(paths: Sequence[str]) -> list[str | None]:
    """The split of each image by a folder above it; None for all, unless every one has such a folder."""
    known = {folder: split_above(f"{folder}/") for folder in {path.rpartition("/")[0] for path in paths}}
    splits = [known[path.rpartition("/")[0]] for path in paths]
    if None in splits or "train" not in splits or len(set(splits)) == 1:
        return [None] * len(splits)
    return splits


def split_above(path: str) -> str | None:
    """The split that the nearest folder above an image is named for."""
    folders = path.split("/")[-2::-1]
    return next((split for name in folders if (split := split_of(name))), None)
