"""The ways people lay out images. To add one, write a function and put it in LAYOUTS.

It looks at names, and at small files with labels: folders and archives are recognised alike, before anything
is written.
"""

from collections import defaultdict
from collections.abc import Callable

from sancli.console import plural
from sancli.data.listing import Listing, describe_endings
from sancli.data.preparation.layouts.challenge import imagenet_train, imagenet_val
from sancli.data.preparation.layouts.choosing import unread_tables
from sancli.data.preparation.layouts.layout import Hints, LabelFile, Layout, Placed, Seen, split_of
from sancli.data.preparation.layouts.names import names
from sancli.data.preparation.layouts.tables import csv
from sancli.data.preparation.layouts.trees import folders, intel, splits, tree
from sancli.errors import DataError, SanError, command, folded, printable

__all__ = ["LAYOUTS", "Hints", "LabelFile", "Layout", "Placed", "Seen", "recognise"]

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")
LAYOUTS: dict[str, Callable[[Seen], Layout | None]] = {  # the first that fits is taken
    "imagenet-val": imagenet_val,
    "imagenet-train": imagenet_train,
    "intel": intel,
    "splits": splits,
    "csv": csv,
    "names": names,
    "folders": folders,
}
PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "inputs", "data")
DRAWINGS = {  # what others keep beside their images
    *("annotations", "annotation", "labels", "label", "masks", "mask", "trimaps", "segmentations"),
    *("segmentation", "segmentationclass", "ground_truth", "groundtruth", "gt", "bboxes", "depth"),
}
BY_FOLDER = ("intel", "splits", "folders")


def recognise(seen: Seen, wanted: str = "auto") -> Layout:
    """Understands a source by the layout that was asked for, or by the first that fits.

    Raises:
        DataError: None fits; says what was found and what was looked for, or what fits instead.
    """
    tried = _to_try(wanted, seen.hints)
    for name in tried:
        if found := LAYOUTS[name](seen):
            if wanted == "auto" and name == "folders":
                _check_no_splits(found, seen.source)
                _check_no_drawings(found, seen.source)
                _check_no_sets(seen)
            if wanted != "auto":  # what folders are named does not count then
                found.why = f"--layout {wanted} says so" + ("" if name in BY_FOLDER else f"; {found.why}")
            return found
    if wanted != "auto" and (other := _without(seen)) is not None:
        raise DataError(
            f"{seen.source} is not laid out as --layout {wanted} says.",
            why=folded(f"its layout seems to be {other.name}: {other.why}.", most=2),
            fix="leave --layout out.",
        )
    raise _nothing_fits(seen, tried)


def _without(seen: Seen) -> Layout | None:
    """How the source is understood without --layout, if it is."""
    try:
        return recognise(seen)
    except SanError:
        return None


def _to_try(wanted: str, hints: Hints) -> list[str]:
    """The layouts that fit what the user says; PrepareConfig refuses what fits none."""
    if wanted != "auto":
        return [wanted]
    if hints.label_regex is not None:
        return ["names"]
    if hints.image_col or hints.label_col or hints.split_col:
        return ["csv"]
    return ["imagenet-val", "csv"] if hints.labels is not None else [*LAYOUTS]


def _nothing_fits(seen: Seen, tried: list[str]) -> DataError:
    looked_for = "; ".join(_words(str(LAYOUTS[name].__doc__).rstrip(".")) for name in tried)
    inner = [ending for ending in ARCHIVES if seen.listing.others[ending]]
    example = (
        f"give each class a folder of its own, as {seen.source}/cat/1.jpg and {seen.source}/dog/2.jpg,\n"
        "    or name a table of labels: --labels FILE"
    )
    lone = _lone_class(seen.listing) if "folders" in tried else None
    looked = f"looked for {looked_for}"
    for error in unread_tables(seen)[:1]:  # that is what was meant
        looked = error.what.rstrip(".")
    return DataError(
        f"no labelled images in {seen.source}."
        if lone is None
        else f"{seen.source} has only one class ({printable(lone)}); at least two are needed.",
        why=folded(f"found {describe(seen.listing)}; {looked}.", most=3),
        fix=f"unpack the {' and '.join(inner)} files in it first."
        if inner and not seen.listing.images
        else example,
    )


def _words(sentence: str) -> str:
    """A docstring inside a sentence: A table is a table, ILSVRC2012 stays as it is."""
    return sentence[0].lower() + sentence[1:] if sentence[1:2] == sentence[1:2].lower() else sentence


def _lone_class(listing: Listing) -> str | None:
    """The one folder with images, where there is no other; a folder named for a split is no class."""
    top = tree(listing)
    names = {first for first, *rest in map(top.below, listing.images) if rest}
    return names.pop() if len(names) == 1 and not any(map(split_of, names)) else None


def _check_no_splits(found: Layout, source: str) -> None:
    """Folders train and test without class folders would become classes, which is hardly ever meant."""
    classes = dict.fromkeys(image.label for image in found.images if image.label is not None)
    named = [name for name in classes if split_of(name)]
    if len(set(map(split_of, named))) > 1:
        raise DataError(
            f"the folders {' and '.join(named)} in {source} look like splits, but hold no class folders.",
            why=f"the images of a class belong into a folder of their own, as in {named[0]}/cat/1.jpg.",
            fix=f"sort them so; or say --layout folders if {' and '.join(named)} are classes.",
        )


def _check_no_drawings(found: Layout, source: str) -> None:
    """Folders images and masks would become classes too."""
    names = {str(image.label) for image in found.images}
    drawn = sorted(name for name in names if name.lower() in DRAWINGS)
    shown = sorted(name for name in names if name.lower() in PICTURES)
    if drawn and shown and len(drawn) + len(shown) == len(names):
        raise DataError(
            f"the folders {' and '.join([*shown, *drawn])} in {source} do not look like classes.",
            why=f"{drawn[0]} seems to hold what was drawn or written about the images in {shown[0]}.",
            fix=f"{command('san', 'prepare', f'{source}/{shown[0]}')}; or say --layout folders if they are.",
        )


def _check_no_sets(seen: Seen) -> None:
    """Archives with class folders inside are data sets that lie beside each other, not classes."""
    inside: dict[str, set[str]] = defaultdict(set)
    for path in seen.listing.images if seen.listing.nested else ():
        archive, *folders = path.split("/")[:-1]
        inside[archive].add(folders[0] if folders else "")
    if len(inside) < 2 or not (several := [name for name, folders in inside.items() if len(folders) > 1]):
        return
    some = ", ".join(map(printable, sorted(inside[several[0]])[:5]))
    raise DataError(
        f"the {plural(len(inside), 'archive')} in {seen.source} look like data sets, not like classes.",
        why=f"{printable(several[0])} has folders of its own: {some}.",
        fix=f"give the one you mean, as in: {command('san', 'prepare', f'{seen.source}/{several[0]}')}\n"
        "    or say --layout folders, if each of them is a class.",
    )


def describe(listing: Listing) -> str:
    """For people: what there is, where the classes were expected."""
    top = tree(listing)
    images = plural(len(listing.images), "image")
    if not listing.images:
        others = f" and {plural(listing.others.total(), 'other file')} ({describe_endings(listing.others)})"
        return "no images" + (others if listing.others else "")
    if not top.children:
        return f"{images} in no folder"
    where = ", ".join(top.children[:5]) + (", ..." if len(top.children) > 5 else "")
    return f"{images}, and {plural(len(top.children), 'folder')}: {where}"
