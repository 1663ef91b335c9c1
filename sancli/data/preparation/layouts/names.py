"""Layout names: the label stands in the file name, as in cat.001.jpg or Abyssinian_12.jpg."""

import re
from collections import Counter

from sancli.console import plural
from sancli.data.listing import Problem
from sancli.data.preparation.layouts.layout import (
    DIGITS,
    Layout,
    Placed,
    Seen,
    split_of,
    splits_by_folder,
    unlabelled,
)
from sancli.errors import DataError, UsageError, printable

CAMERAS = {  # what cameras, phones and programs call a picture: no classes
    *(
        "img",
        "image",
        "images",
        "imag",
        "dsc",
        "dscn",
        "dscf",
        "pict",
        "pic",
        "photo",
        "picture",
        "frame",
        "scan",
    ),
    *(
        "screenshot",
        "pxl",
        "mvimg",
        "vid",
        "video",
        "dji",
        "gopr",
        "p",
        "download",
        "file",
        "untitled",
        "sample",
    ),
    *("train", "val", "valid", "validation", "test", "whatsapp image", "im"),
}
LEAST = 2
"""Images of each class, and classes: one name alone is no sign."""


def names(seen: Seen) -> Layout | None:
    """Labels in names, as cat.001.jpg."""
    if seen.hints.label_regex is not None:
        return _by_expression(seen, seen.hints.label_regex)
    splits = _flat_splits(seen.listing.images)
    if splits is None:
        return None
    labels = {path: _label(path) for path in splits}
    judged = [label for path, label in labels.items() if splits[path] not in ("val", "test")]
    counts = Counter(label for label in judged if label is not None)
    common = {label for label, count in counts.items() if count >= LEAST}
    clear = sum(counts[label] for label in common)
    if len(common) < LEAST or 10 * clear < 9 * len(judged) or any(_is_camera(label) for label in common):
        return None
    some = ", ".join(sorted(common)[:3])
    found = Layout("names", f"file names begin with the label ({some})")
    for path, label in labels.items():
        _place(found, path, label, splits[path])
    return found


def _label(path: str) -> str | None:
    """What stands before the number at the end: cat.001, Abyssinian_12, sea lion (3)."""
    stem = path.rpartition("/")[2].rpartition(".")[0].rstrip(")]")
    label = stem.rstrip(DIGITS)
    if label == stem or not any(map(str.isalpha, label)):
        return None
    return label.rstrip("([ ._-") or None


def _is_camera(label: str) -> bool:
    return label.casefold().strip(" ._-") in CAMERAS


def _flat_splits(paths: list[str]) -> dict[str, str | None] | None:
    """The split of each image, where folders tell splits at the most; None where there are others."""
    folders = {path.rpartition("/")[0] for path in paths}
    parts = {folder: folder.split("/") if folder else [] for folder in folders}
    shared = _shared([*parts.values()])
    splits: dict[str, str | None] = {}
    for folder in folders:
        kinds = [split_of(part) for part in parts[folder][shared:]]
        if None in kinds or len(set(kinds)) > 1:
            return None
        splits[folder] = kinds[0] if kinds else None
    return {path: splits[path.rpartition("/")[0]] for path in paths}


def _shared(folders: list[list[str]]) -> int:
    """How many folders all images have in common, from the top."""
    first, last = min(folders, default=[]), max(folders, default=[])
    return next(
        (at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(last)),
    )


def _place(found: Layout, path: str, label: str | None, split: str | None) -> None:
    if label is not None:
        found.images.append(Placed(path, label, split))
    elif split in ("val", "test"):
        found.images.append(unlabelled(path))
    else:
        found.left_out.append(Problem(path, "no label in its name", "left out"))


def _by_expression(seen: Seen, expression: str) -> Layout | None:
    """Every image whose name the user's expression fits; the others are left out and named.

    Raises:
        DataError: It fits none.
        UsageError: It is no expression, or says nowhere which part is the label.
    """
    pattern = compiled("--label-regex", expression)
    group = "label" if "label" in pattern.groupindex else 1
    if pattern.groups == 0:
        raise UsageError(
            f"--label-regex {expression} does not say which part is the label.",
            why="it has no parentheses.",
            fix=r"put them around the label, as in '(.+)_\d+\.jpg'",
        )
    splits = splits_by_folder(seen.listing.images)
    found = Layout("names", f"--label-regex finds the label in the {'path' if '/' in expression else 'name'}")
    for path, split in zip(seen.listing.images, splits, strict=True):
        match = pattern.search(path if "/" in expression else path.rpartition("/")[2])
        label = match[group].strip() if match and match[group] else None
        _place(found, path, label or None, split)
    if not any(image.label for image in found.images):
        some = ", ".join(printable(path.rpartition("/")[2]) for path in seen.listing.images[:3]) or "none"
        raise DataError(
            f"--label-regex {expression} fits no image of {plural(len(seen.listing.images), 'image')}.",
            why=f"the first are {some}.",
            fix=r"try it on one of them; for cat_12.jpg it is '(.+)_\d+\.jpg'",
        )
    return found


def compiled(option: str, expression: str) -> re.Pattern[str]:
    """The regular expression that the user gave.

    Raises:
        UsageError: It is none.
    """
    try:
        return re.compile(expression)
    except re.error as error:
        raise UsageError(
            f"{option} {expression} is no regular expression.",
            why=f"{error}.",
            fix="see https://docs.python.org/3/library/re.html; put it in single quotes.",
        ) from None
