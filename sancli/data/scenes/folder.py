"""A folder of drawn scenes in the layout of the Intel release, with the faults that real data sets have."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sancli.data.scenes import CLASSES, scene
from sancli.files import storage_errors

SMALL_CLASS = "glacier"
"""It gets a quarter of the training images of the others."""
ORIENTATION = 0x0112  # the EXIF tag; 6: turn it clockwise to see it upright
QUALITY = 92


@dataclass(frozen=True)
class Fault:
    """Something wrong that was planted on purpose."""

    path: Path
    what: str


def draw_folder(root: Path, *, seed: int, train: int, test: int, unlabelled: int, side: int) -> list[Fault]:
    """Draws a data set into the new folder `root`: seg_train, seg_test and seg_pred.

    Args:
        root: Where to; it must not exist.
        seed: The same seed gives the same pictures, however many are drawn.
        train: Images a class, but for the small one; at least 4.
        test: Images a class.
        unlabelled: Images in seg_pred, of any class.
        side: Width and height of an image in pixels.

    Returns:
        The faults that `san prepare` should find.

    Raises:
        StorageError: It exists, or the place cannot be written.
    """
    with storage_errors(root):
        root.mkdir(parents=True)
        for kind in CLASSES:
            few = max(2, train // 4) if kind == SMALL_CLASS else train
            for split, count in (("train", few), ("test", test)):
                folder = root / f"seg_{split}" / f"seg_{split}" / kind
                folder.mkdir(parents=True)
                for number in range(count):
                    picture = scene(kind, seed=f"{seed}/{split}/{kind}/{number}", side=side)
                    picture.save(folder / f"{number:04}.jpg", quality=QUALITY)
        _draw_unlabelled(root / "seg_pred" / "seg_pred", seed=seed, count=unlabelled, side=side)
        return _plant(root / "seg_train" / "seg_train", root / "seg_test" / "seg_test", seed=seed, side=side)


def _draw_unlabelled(folder: Path, *, seed: int, count: int, side: int) -> None:
    folder.mkdir(parents=True)
    kinds = list(CLASSES)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        picture = scene(kind, seed=f"{seed}/pred/{kind}/{number}", side=side)
        picture.save(folder / f"{number:04}.jpg", quality=QUALITY)


def _plant(train: Path, test: Path, *, seed: int, side: int) -> list[Fault]:
    cut = train / "forest" / "0000.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])

    turned = train / "street" / "0001.jpg"
    picture = scene("street", seed=f"{seed}/train/street/1", side=side).rotate(90)
    exif = picture.getexif()
    exif[ORIENTATION] = 6
    picture.save(turned, quality=QUALITY, exif=exif)

    twin = train / "sea" / "0002.jpg"
    shutil.copyfile(test / "sea" / "0000.jpg", twin)

    ghost = train / ".ipynb_checkpoints" / "0003-checkpoint.jpg"
    ghost.parent.mkdir()
    shutil.copyfile(train / "mountain" / "0003.jpg", ghost)

    return [
        Fault(cut, "cut off in the middle"),
        Fault(turned, "stored lying on its side, with a note in its EXIF data"),
        Fault(twin, "the same bytes as an image of the test split"),
        Fault(ghost.parent, "left by a notebook, and no class"),
        Fault(train / SMALL_CLASS, "a class with a quarter of the images of the others"),
    ]
