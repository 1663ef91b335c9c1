"""Layouts in which folders say what images show: a folder for each class, or for each split and class."""

from collections import Counter
from dataclasses import dataclass

from sancli.console import plural
from sancli.data.listing import Listing, Problem
from sancli.data.preparation.archives import without_ending
from sancli.data.preparation.layouts.layout import Layout, Placed, Seen, split_of, unlabelled
from sancli.data.prepared import UNLABELLED
from sancli.errors import DataError

INTEL_NAMES = {"seg_train": "train", "seg_test": "test", "seg_pred": UNLABELLED}


@dataclass(frozen=True)
class Tree:
    """A listing seen from the folder in which its classes or splits stand."""

    root: str
    images: list[str]
    """Relative to the source, as everywhere."""
    children: list[str]
    """Names of the folders in the root."""
    nested: bool = False

    def below(self, path: str) -> list[str]:
        """The parts of a path below the root; its own name is the last."""
        return _parts(path[len(self.root) + 1 :] if self.root else path, nested=self.nested)


def tree(listing: Listing) -> Tree:
    """Goes down through folders that hold nothing but one folder: archives often bring such wrappers."""
    root = ""
    while True:
        children = _children(listing, root)
        loose = any(_parent(path) == root for path in listing.images)
        if len(children) != 1 or loose or not _children(listing, _join(root, children[0])):
            names = [*dict.fromkeys(_parts(f"{name}/", nested=listing.nested)[0] for name in children)]
            return Tree(root, listing.images, names, listing.nested)
        root = _join(root, children[0])


def _parts(path: str, *, nested: bool) -> list[str]:
    """The names in a path; of an archive inside an archive without its ending: cat.tar/1.png is in cat."""
    *folders, name = path.split("/")
    return [*(map(without_ending, folders) if nested else folders), name]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _children(listing: Listing, root: str) -> list[str]:
    return [path.rpartition("/")[2] for path in listing.folders if _parent(path) == root]


def intel(seen: Seen) -> Layout | None:
    """seg_train/CLASS/ (Intel)."""
    nested = seen.listing.nested
    there = {name.lower() for path in seen.listing.folders for name in _parts(f"{path}/", nested=nested)}
    present = [name for name in INTEL_NAMES if name in there]
    if not present:
        return None
    found = Layout("intel", f"it has {', '.join(present)} of the Intel scenes")
    for path in seen.listing.images:
        folders = _parts(path, nested=nested)[:-1]
        marks = [index for index, name in enumerate(folders) if name.lower() in INTEL_NAMES]
        if not marks:
            found.left_out.append(Problem(path, "outside seg_train, seg_test and seg_pred", "left out"))
            continue
        split, classes = INTEL_NAMES[folders[marks[-1]].lower()], folders[marks[-1] + 1 :]
        _place(found, path, split, classes)
    found.empty = _empty_classes(seen.listing, found, depth_below=set(INTEL_NAMES))
    return found if any(image.split == "train" for image in found.images) else None


def splits(seen: Seen) -> Layout | None:
    """train/CLASS/ and test/CLASS/."""
    top = tree(seen.listing)
    named = [name for name in top.children if split_of(name)]
    if len(set(map(split_of, named))) < 2:
        return _splits_in_classes(top)
    found = Layout("splits", f"it has the folders {' and '.join(named)}, each with class folders")
    inside: dict[str, list[str]] = {}
    for path in seen.listing.images:
        first, *rest = top.below(path)
        if not rest or split_of(first) is None:
            found.left_out.append(Problem(path, f"outside {', '.join(named)}", "left out"))
            continue
        folders = rest[:-1]
        doubled = folders and folders[0].lower() == first.lower()  # train/train/CLASS
        inside[path] = folders[1:] if doubled else folders
    for path, folders in _unwrapped(inside).items():
        _place(found, path, str(split_of(top.below(path)[0])), folders)
    if all(image.split != "train" for image in found.images):
        return None
    _check_synonyms(named)
    found.empty = _empty_classes(seen.listing, found, depth_below={name.lower() for name in named})
    return found


def _unwrapped(inside: dict[str, list[str]]) -> dict[str, list[str]]:
    """The folders below those of the splits, without one that all of them have: train/images/CLASS."""
    below = [folders for folders in inside.values() if folders]
    if len({folders[0] for folders in below}) == 1 and len({tuple(folders) for folders in below}) > 1:
        return _unwrapped({path: folders[1:] for path, folders in inside.items()})
    return inside


def _splits_in_classes(top: Tree) -> Layout | None:
    """CLASS/train/1.jpg and CLASS/test/2.jpg, where every image lies so."""
    found = Layout("splits", "each class folder has the splits in it")
    for path in top.images:
        first, *rest = top.below(path)
        split = split_of(rest[0]) if len(rest) > 1 else None
        if split is None:
            return None
        found.images.append(Placed(path, first, split))
    there = {image.split for image in found.images}
    return found if "train" in there and len(there) > 1 and len(top.children) > 1 else None


def folders(seen: Seen) -> Layout | None:
    """A folder for each class."""
    top = tree(seen.listing)
    named = [name for name in top.children if split_of(name)]
    but = f"; {' and '.join(named)} is taken for a class" if named else " and no folder named for a split"
    found = Layout("folders", f"it has {plural(len(top.children), 'folder')}{but}")
    for path in seen.listing.images:
        first, *rest = top.below(path)
        if rest:
            found.images.append(Placed(path, first, None))
        else:
            found.left_out.append(Problem(path, "outside any class folder", "left out"))
    classes = {image.label for image in found.images}
    found.empty = [name for name in top.children if name not in classes]
    return found if len(classes) > 1 else None


def _place(found: Layout, path: str, split: str, classes: list[str]) -> None:
    """Files an image under its class; images of val and test without one are unlabelled."""
    if split == UNLABELLED or (not classes and split != "train"):
        found.images.append(unlabelled(path))
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
        if path not in full and _inside(path, listing) in depth_below
    ]
    return [name for name in dict.fromkeys(names) if name.lower() not in depth_below | {UNLABELLED}]


def _inside(path: str, listing: Listing) -> str:
    """The name of the folder that a folder lies in."""
    return "".join(_parts(path, nested=listing.nested)[-2:-1]).lower()


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _check_synonyms(named: list[str]) -> None:
    counted = Counter(map(split_of, named))
    for split, count in counted.items():
        if count > 1:
            same = [name for name in named if split_of(name) == split]
            raise DataError(
                f"the folders {' and '.join(same)} both stand for {split}.",
                why="their images would be mixed.",
                fix="rename or move one of them, then run this again.",
            )
