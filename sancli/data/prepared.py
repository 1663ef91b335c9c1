"""A prepared data folder: what `san prepare` writes, and how it is opened again."""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sancli.config import SPLITS
from sancli.console import say
from sancli.errors import DataError, command
from sancli.files import write_csv, write_json, write_text

FORMAT = 1
MANIFEST = "dataset.json"
SPLITS_CSV = "splits.csv"
"""Every image: where it is, what it shows, which file of the source it is."""
PROBLEMS_CSV = "problems.csv"
"""Every file of the source that is special: what about it, and what was done."""
PAGE = "report.html"
"""The same for people, with pictures."""
SUMS = "SHA256SUMS"
"""The sha256 of the files above, as `sha256sum --check` reads them: not part of dataset.json, whose own bytes
say whether data is the same data, while words and pictures of a report change with the version of Pillow."""
SUMMED = (MANIFEST, SPLITS_CSV, PROBLEMS_CSV, PAGE)
OWN_FILES = (*SUMMED, SUMS)
"""What stands beside the images."""
UNLABELLED = "unlabelled"
"""The folder of images without a class."""
IMAGE_COLUMNS = ("file", "split", "class", "source", "sha256", "width", "height")
"""`file` is relative to the prepared folder, `source` to what it was prepared from."""
PROBLEM_COLUMNS = ("path", "problem", "action")
BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a split, and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """dataset.json: equal input and options give equal bytes, so it holds neither time nor place."""

    name: str
    """Of the source; Prepared.name is the folder's own."""
    layout: str
    classes: tuple[str, ...]
    """Their order is frozen here, once: label i is classes[i]."""
    counts: dict[str, dict[str, int]]
    """Images by split and class; a split without images is left out."""
    unlabelled: int
    median_short_side_px: int
    """Of the training images; of all, where there are none to train on."""
    source: dict[str, Any]
    """Its name and the sha256 of what was read from it."""
    options: dict[str, Any]
    """The settings of `san prepare` that decided what is here."""
    splits_sha256: str = ""
    """Of splits.csv, which has the sha256 of every image: this file stands for all of them."""
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"classes": list(self.classes)}


@dataclass(frozen=True)
class Prepared:
    """An opened prepared folder."""

    root: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The folder's name, for runs and reports."""
        return self.root.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; label i is classes[i]."""
        return self.manifest.classes

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold images."""
        return tuple(self.manifest.counts)

    def total(self, split: str | None = None) -> int:
        """Images in one split, or in all of them."""
        splits = self.splits if split is None else (split,)
        return sum(sum(self.manifest.counts.get(name, {}).values()) for name in splits)

    def samples(self, split: str) -> list[Sample]:
        """The images of a split, in an order that does not depend on the file system.

        Raises:
            DataError: A folder there is no class of this data, or the number of images has changed.
        """
        labels = {name: label for label, name in enumerate(self.classes)}
        samples: list[Sample] = []
        for folder in _sorted_entries(self.root / split):
            if folder.name not in labels:
                raise _changed(self.root, f"{split}/{folder.name} is no class of it")
            samples += [Sample(path, labels[folder.name]) for path in _sorted_entries(folder)]
        if len(samples) != self.total(split):
            raise _changed(self.root, f"{split} holds {len(samples)} images instead of {self.total(split)}")
        return sorted(samples, key=lambda sample: (sample.label, os.fsencode(sample.path.name)))

    def unlabelled(self) -> list[Path]:
        """The images without a class."""
        return _sorted_entries(self.root / UNLABELLED)

    def problems(self) -> list[dict[str, str]]:
        """The rows of problems.csv, as they stand there; none where it is gone."""
        if not (self.root / PROBLEMS_CSV).is_file():
            return []
        with (self.root / PROBLEMS_CSV).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def is_whole(self) -> bool:
        """Whether the images that were prepared are all there, by name and number."""
        for split in SPLITS:
            said = dict.fromkeys(self.classes, 0)
            found = {one.name: len(_sorted_entries(one)) for one in _sorted_entries(self.root / split)}
            if said | found != said | self.manifest.counts.get(split, {}):
                return False
        return len(self.unlabelled()) == self.manifest.unlabelled

    def describe(self) -> str:
        """For people: 6 classes, 10,900 images."""
        return f"{len(self.classes)} classes, {self.total():,} images"


def _sorted_entries(folder: Path) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in entries if not path.name.startswith(".")), key=os.fsencode)


def _changed(root: Path, why: str) -> DataError:
    return DataError(
        f"{root} is not as san prepare left it.",
        why=f"{why}.",
        fix=f"{command('san', 'prepare', '--check', root)} names the files; prepare it again with --force.",
    )


def open_prepared(root: Path) -> Prepared:
    """Opens a folder that `san prepare` made.

    Raises:
        DataError: It is not there, was not prepared, or its dataset.json is damaged.
    """
    if not root.exists():
        raise DataError(f"{root} does not exist.", why="it was named as the data.", fix="check the path.")
    if not (root / MANIFEST).is_file():
        raise DataError(
            f"{root} is not a prepared folder.",
            why=f"it has no {MANIFEST}: its images were not checked and split yet.",
            fix=command("san", "prepare", root),
        )
    try:
        values = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        version = values["format"]
        manifest = Manifest(**values | {"classes": tuple(values["classes"])}) if version == FORMAT else None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{root / MANIFEST} is damaged.",
            why=f"{error}.",
            fix="prepare it again with --force, from the source.",
        ) from None
    if manifest is None:
        raise DataError(
            f"{root} was prepared by another version of sancli.",
            why=f"its format is {version}, this version reads {FORMAT}.",
            fix="prepare it again with --force, from the source.",
        )
    return Prepared(root, manifest)


def write_prepared(
    root: Path, manifest: Manifest, images: Iterable[Sequence[Any]], problems: Iterable[Sequence[str]]
) -> None:
    """Writes the three files that describe a prepared folder, whose images are there already.

    Args:
        root: The folder.
        manifest: What becomes dataset.json.
        images: For each image the values of IMAGE_COLUMNS.
        problems: path, problem, action.
    """
    write_csv(root / SPLITS_CSV, IMAGE_COLUMNS, ([*map(escaped, row)] for row in images))
    write_csv(root / PROBLEMS_CSV, PROBLEM_COLUMNS, ([*map(escaped, row)] for row in problems))
    write_json(root / MANIFEST, replace(manifest, splits_sha256=_sha256(root / SPLITS_CSV)).to_dict())


def write_sums(root: Path) -> None:
    """Writes the file that `san prepare --check` holds the others to."""
    write_text(root / SUMS, "".join(f"{_sha256(root / name)}  {name}\n" for name in SUMMED))


def read_sums(root: Path) -> dict[str, str]:
    """{name: sha256} of the files about the images; empty where their list is gone or damaged."""
    try:
        lines = (root / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    sums = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    return sums if sums.keys() == {*SUMMED} else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def escaped(value: Any) -> Any:
    """Text with control characters, and bytes that are no UTF-8, as escapes: a table must stay a table."""
    if not isinstance(value, str):
        return value
    return BREAKING.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def prepared_folders(where: Path = Path("data")) -> list[Path]:
    """The prepared folders directly inside `where`, newest first."""
    found = [path.parent for path in where.glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda folder: (folder / MANIFEST).stat().st_mtime, reverse=True)


def choose_prepared(root: Path | None) -> Prepared:
    """Opens the folder that was named, or the newest in data/; says which, and what it holds.

    Raises:
        DataError: There is none, or it is not a prepared folder.
    """
    if root is not None:
        prepared = open_prepared(root)
        say(f"Using {root} ({prepared.describe()})")
        return prepared
    if not (folders := prepared_folders()):
        raise DataError(
            "there is no prepared data here.",
            why=f"looked for data/*/{MANIFEST} under {Path.cwd()}.",
            fix="san prepare PATH, with your folder of images or its archive.",
        )
    prepared = open_prepared(folders[0])
    rank = "the only one" if len(folders) == 1 else f"the newest of {len(folders)}"
    say(f"Using {folders[0]}, {rank} ({prepared.describe()})")
    if len(folders) > 1:
        say(f"  others: {', '.join(map(str, folders[1:6]))}")
    return prepared
