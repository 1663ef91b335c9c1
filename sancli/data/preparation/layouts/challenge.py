"""Layouts imagenet-val and imagenet-train: the ImageNet challenge as it is downloaded, unchanged."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from sancli.console import plural
from sancli.data.imagenet import devkit_wnids, names
from sancli.data.listing import Problem
from sancli.data.preparation.labels.challenge import IMAGE, WHOLE, Truth, read_truth
from sancli.data.preparation.labels.matlab import read_synsets
from sancli.data.preparation.labels.text import NotText
from sancli.data.preparation.layouts.choosing import candidates
from sancli.data.preparation.layouts.layout import LabelFile, Layout, Placed, Seen
from sancli.errors import DataError, printable

ENDINGS = (".csv", ".txt", ".tsv")
CLASS_TAR = re.compile(r"(n\d{8})(?:\.tar)?")
WHOLLY = "nothing is dropped or left out, duplicates are only reported."
FORMS = (
    "LOC_val_solution.csv of Kaggle, a table of names and wnids, one index a line (0 to 999, by sorted wnid),"
    " or the development kit's ILSVRC2012_validation_ground_truth.txt"
)


def imagenet_val(seen: Seen) -> Layout | None:
    """ILSVRC2012_val_00000001.JPEG and so on."""
    numbers = {path: _number(path) for path in seen.listing.images}
    images = [path for path, number in numbers.items() if number is not None]
    if 2 * len(images) <= len(numbers):
        return None
    if twice := [number for number, count in Counter(map(numbers.get, images)).items() if count > 1]:
        same = [path for path in images if numbers[path] == twice[0]]
        raise DataError(
            f"validation image {twice[0]} is there twice: {same[0]} and {same[1]}.",
            why="labels go by number, and every image has its own.",
            fix="remove one of them.",
        )
    found = Layout("imagenet-val", "", whole=True)
    folders = {path: path.rpartition("/")[0].rpartition("/")[2] for path in images}
    wnids = {folder: _wnid(folder) for folder in folders.values()}
    if seen.hints.labels is None and all(wnids.values()):
        found.why = f"{plural(len(images), 'validation image')} of ImageNet stand in folders of their classes"
        found.images = [Placed(path, wnids[folders[path]], "val") for path in images]
    else:
        strangers = sorted(folder for folder, wnid in wnids.items() if wnid is None)
        truth = _truth(seen, found, strangers if any(wnids.values()) else [])
        found.why = f"{truth.name} labels the validation images of ImageNet ({truth.form})"
        _check_counts(truth, {path: int(str(numbers[path])) for path in images}, seen.hints.skip_missing)
        found.images = [Placed(path, truth.labels[int(str(numbers[path]))], "val") for path in images]
    found.left_out = [
        Problem(path, "not named as a validation image of ImageNet", "left out")
        for path, number in numbers.items()
        if number is None
    ]
    found.notes = _notes(images, numbers)
    return found


def imagenet_train(seen: Seen) -> Layout | None:
    """n01440764.tar and so on."""
    found = Layout("imagenet-train", "", whole=True)
    for path in seen.listing.images:
        folder = path.rpartition("/")[0].rpartition("/")[2]
        match = CLASS_TAR.fullmatch(folder)
        if match is None or not folder.endswith(".tar"):
            return None
        found.images.append(Placed(path, match[1], "train"))
    classes = len({image.label for image in found.images})
    found.why = f"it holds a tar for each of {plural(classes, 'wnid')}"
    found.notes = [f"Everything goes to train (--val 0.02 would split off 2 %): {WHOLLY}"]
    return found if found.images else None


def _number(path: str) -> int | None:
    match = IMAGE.fullmatch(path.rpartition("/")[2])
    return None if match is None else int(match[1])


def _wnid(folder: str) -> str | None:
    """The class that a folder is named for, by its wnid or its name: Afghan hound, Afghan_hound."""
    if folder in names():
        return folder
    return _wnids_by_name().get(folder.replace("_", " "))


@cache
def _wnids_by_name() -> dict[str, str]:
    return {name: wnid for wnid, name in names().items()}


def _truth(seen: Seen, found: Layout, strangers: Sequence[str]) -> Truth:
    """The labels, from the file that the user named, or from what lies with the images.

    Args:
        seen: The source.
        found: Takes the files that were read.
        strangers: Folders that are named for no class, where others are.

    Raises:
        DataError: There are none, or two files contradict each other.
    """
    devkit, devkit_from = devkit_wnids(), None
    if kit := next((path for path in seen.listing.tables if path.lower().endswith("meta.mat")), None):
        file = LabelFile(kit, seen.read([kit])[kit])
        devkit, devkit_from = read_synsets(file.content, kit), kit
        found.label_files[kit] = _sha256(file)
    truths: list[Truth] = []
    for file in candidates(seen, ENDINGS):
        try:
            truth = read_truth(file.content, file.name, devkit, devkit_from=devkit_from)
        except NotText:
            if seen.hints.labels is not None:
                raise
            continue
        if truth is not None:
            truths.append(truth)
            found.label_files[file.name] = _sha256(file)
    if not truths:
        given = seen.hints.labels
        if strangers and given is None:
            raise DataError(
                f"the folder {printable(strangers[0])} in {seen.source} is named for no class of ImageNet.",
                why=f"validation images stand in it; {plural(len(strangers), 'folder')} of such a name.",
                fix="rename or remove it; or name a file of labels: --labels FILE",
            )
        raise DataError(
            f"no labels for the validation images of ImageNet in {given.name if given else seen.source}.",
            why=f"looked for {FORMS}.",
            fix="put such a file beside the images, or name it: --labels FILE",
        )
    for other in truths[1:]:
        both = truths[0].labels.keys() & other.labels.keys()
        if wrong := sorted(number for number in both if truths[0].labels[number] != other.labels[number]):
            raise DataError(
                f"{truths[0].name} and {other.name} contradict each other.",
                why=f"image {wrong[0]} is {truths[0].say(wrong[0])}, and {other.say(wrong[0])}.",
                fix=f"name the one that counts: --labels {truths[0].name}",
            )
    return max(truths, key=lambda truth: len(truth.labels))


def _sha256(file: LabelFile) -> str:
    return hashlib.sha256(file.content).hexdigest()


def _check_counts(truth: Truth, numbers: dict[str, int], skip_missing: bool) -> None:
    """Labels and images must belong together, unless the labels are those of all 50,000.

    Raises:
        DataError: With both counts, and the first image that lacks its label, or label that lacks its image.
    """
    counts = f"{plural(len(numbers), 'image')} and {plural(len(truth.labels), 'label')}"
    if without := sorted(path for path, number in numbers.items() if number not in truth.labels):
        first = min(without, key=numbers.__getitem__)
        raise DataError(
            f"{truth.name} has no label for {first}.",
            why=f"there are {counts}; {len(without):,} images have none.",
            fix="give the labels of all of them: --labels FILE",
        )
    missing = sorted(truth.labels.keys() - set(numbers.values()))
    if missing and len(truth.labels) != WHOLE and not skip_missing:
        image = missing[0]
        raise DataError(
            f"{_name(image)}, labelled in {truth.name}, line {truth.lines[image]:,}, is not there.",
            why=f"there are {counts}; {len(missing):,} labels have no image.",
            fix="add the images; or, if these are meant to be some of them, --skip-missing",
        )


def _name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08}.JPEG"


def _notes(images: list[str], numbers: dict[str, int | None]) -> list[str]:
    notes = [f"Everything goes to val: {WHOLLY}"]
    if len(images) != WHOLE:
        there = set(numbers.values())
        first = next(number for number in range(1, WHOLE + 2) if number not in there)
        notes.append(
            f"{len(images):,} of the {WHOLE:,} validation images; the first that lacks: {_name(first)}."
        )
    return notes
