"""The ways people lay out images. To add one, write a function and put it in LAYOUTS.

It looks at names alone: folders and archives are recognised alike, before anything is read or written.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sancli.console import plural
from sancli.data.listing import Listing, Problem
from sancli.data.prepared import UNLABELLED
from sancli.errors import DataError, printable

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
INTEL_NAMES = {"seg_train": "train", "seg_test": "test", "seg_pred": UNLABELLED}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


@dataclass(frozen=True)
class Placed:
    """An image of the source, and what its place says about it."""

    path: str
    label: str | None
    """None: unlabelled."""
    split: str | None
    """None: the source does not say."""


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


@dataclass(frozen=True)
class Tree:
    """A listing seen from the folder in which its classes or splits stand."""

    root: str
    images: list[str]
    """Relative to the source, as everywhere."""
    children: list[str]
    """Names of the folders in the root."""

    def below(self, path: str) -> list[str]:
        """The parts of a path below the root; its own name is the last."""
        return (path[len(self.root) + 1 :] if self.root else path).split("/")


def tree(listing: Listing) -> Tree:
    """Goes down through folders that hold nothing but one folder: archives often bring such wrappers."""
    root = ""
    while True:
        children = _children(listing, root)
        loose = any(_parent(path) == root for path in listing.images)
        if len(children) != 1 or loose or not _children(listing, _join(root, children[0])):
            return Tree(root, listing.images, children)
        root = _join(root, children[0])


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _children(listing: Listing, root: str) -> list[str]:
    return [path.rpartition("/")[2] for path in listing.folders if _parent(path) == root]


def intel(listing: Listing) -> Layout | None:
    """seg_train/CLASS/, seg_test/CLASS/, seg_pred/ (the Intel scenes)."""
    present = [
        name for name in INTEL_NAMES if any(name in path.lower().split("/") for path in listing.folders)
    ]
    found = Layout("intel", f"it has {', '.join(present)} of the Intel scenes")
    for path in listing.images:
        folders = path.split("/")[:-1]
        marks = [index for index, name in enumerate(folders) if name.lower() in INTEL_NAMES]
        if not marks:
            found.left_out.append(Problem(path, "outside seg_train, seg_test and seg_pred", "left out"))
            continue
        split, classes = INTEL_NAMES[folders[marks[-1]].lower()], folders[marks[-1] + 1 :]
        _place(found, path, split, classes)
    found.empty = _empty_classes(listing, found, depth_below=set(INTEL_NAMES))
    return found if any(image.split == "train" for image in found.images) else None


def splits(listing: Listing) -> Layout | None:
    """train/CLASS/, val/CLASS/, test/CLASS/ (or training, valid, validation, eval, dev, testing)."""
    seen = tree(listing)
    named = [name for name in seen.children if name.lower() in SPLIT_NAMES]
    found = Layout("splits", f"it has the folders {' and '.join(named)}, each with class folders")
    for path in listing.images:
        first, *rest = seen.below(path)
        split = _split_of(first) if rest else None
        if split is None:
            found.left_out.append(Problem(path, f"outside {', '.join(named)}", "left out"))
            continue
        folders = rest[:-1]
        if folders and folders[0].lower() == first.lower():  # doubled: train/train/CLASS
            folders = folders[1:]
        _place(found, path, split, folders)
    if len(set(map(_split_of, named))) < 2 or all(image.split != "train" for image in found.images):
        return None
    _check_synonyms(named)
    found.empty = _empty_classes(listing, found, depth_below={name.lower() for name in named})
    return found


def folders(listing: Listing) -> Layout | None:
    """CLASS/ (one folder for each class)."""
    seen = tree(listing)
    found = Layout(
        "folders", f"it has {plural(len(seen.children), 'folder')} and no folder named for a split"
    )
    for path in listing.images:
        first, *rest = seen.below(path)
        if rest:
            found.images.append(Placed(path, first, None))
        else:
            found.left_out.append(Problem(path, "outside any class folder", "left out"))
    classes = {image.label for image in found.images}
    found.empty = [name for name in seen.children if name not in classes]
    return found if len(classes) > 1 else None


def _place(found: Layout, path: str, split: str, classes: list[str]) -> None:
    """Files an image under its class; images of val and test without one are unlabelled."""
    if split == UNLABELLED or (not classes and split != "train"):
        found.images.append(Placed(path, None, UNLABELLED))
    elif classes:
        found.images.append(Placed(path, classes[0], split))
    else:
        found.left_out.append(Problem(path, "in train, but in no class folder", "left out"))


def _empty_classes(listing: Listing, found: Layout, *, depth_below: set[str]) -> list[str]:
    """Folders directly below a split's that hold no image."""
    full = {folder for image in found.images for folder in _ancestors(image.path)}
    names = [
        path.rpartition("/")[2]
        for path in listing.folders
        if _parent(path).rpartition("/")[2].lower() in depth_below and path not in full
    ]
    return [name for name in dict.fromkeys(names) if name.lower() not in depth_below | {UNLABELLED}]


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _split_of(name: str) -> str | None:
    return SPLIT_NAMES.get(name.lower())


def _check_synonyms(named: list[str]) -> None:
    counted = Counter(map(_split_of, named))
    for split, count in counted.items():
        if count > 1:
            same = [name for name in named if _split_of(name) == split]
            raise DataError(
                f"the folders {' and '.join(same)} both stand for {split}.",
                why="their images would be mixed.",
                fix="rename or move one of them, then run this again.",
            )


LAYOUTS: tuple[Callable[[Listing], Layout | None], ...] = (intel, splits, folders)


def recognise(listing: Listing, *, source: str, wanted: str = "auto") -> Layout:
    """Understands a source by the layout that was asked for, or by the first that fits.

    Raises:
        DataError: None fits; says what was found and what was looked for.
    """
    tried = [layout for layout in LAYOUTS if wanted in ("auto", layout.__name__)]
    for layout in tried:
        if found := layout(listing):
            if wanted == "auto" and layout is folders:
                _check_no_splits(found, source)
            if wanted != "auto":
                found.why = f"--layout {wanted} says so"
            return found
    looked_for = "; ".join(str(layout.__doc__).rstrip(".") for layout in tried)
    inner = [ending for ending in ARCHIVES if listing.others[ending]]
    example = f"give each class a folder of its own:\n    {source}/\n      cat/1.jpg\n      dog/2.jpg"
    lone = _lone_class(listing) if folders in tried else None
    raise DataError(
        f"no labelled images in {source}."
        if lone is None
        else f"{source} has only one class ({printable(lone)}); at least two are needed.",
        why=f"found {describe(listing)}; looked for {looked_for}.",
        fix=f"unpack the {' and '.join(inner)} files in it first."
        if inner and not listing.images
        else example,
    )


def _lone_class(listing: Listing) -> str | None:
    """The one folder with images, where there is no other; a folder named for a split is no class."""
    seen = tree(listing)
    names = {first for first, *rest in map(seen.below, listing.images) if rest}
    return names.pop() if len(names) == 1 and not any(map(_split_of, names)) else None


def _check_no_splits(found: Layout, source: str) -> None:
    """Folders train and test without class folders would become classes, which is hardly ever meant."""
    classes = dict.fromkeys(image.label for image in found.images if image.label is not None)
    named = [name for name in classes if _split_of(name)]
    if len(set(map(_split_of, named))) > 1:
        raise DataError(
            f"the folders {' and '.join(named)} in {source} look like splits, but hold no class folders.",
            why=f"the images of a class belong into a folder of their own, as in {named[0]}/cat/1.jpg.",
            fix=f"sort them so; or say --layout folders if {' and '.join(named)} are classes.",
        )


def describe(listing: Listing) -> str:
    """For people: what there is, where the classes were expected."""
    seen = tree(listing)
    images = plural(len(listing.images), "image")
    if not listing.images:
        others = f" and {plural(listing.others.total(), 'other file')} ({listing.describe_others()})"
        return "no images" + (others if listing.others else "")
    if not seen.children:
        return f"{images} in no folder"
    where = ", ".join(seen.children[:5]) + (", ..." if len(seen.children) > 5 else "")
    return f"{images}, and {plural(len(seen.children), 'folder')}: {where}"
