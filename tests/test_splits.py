"""The split: seeded, stratified, blind to names and order; identical files decide what is kept."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sancli.config import PrepareConfig
from sancli.data.preparation.duplicates import find_duplicates
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.selection import select
from sancli.data.preparation.splits import limit, split_off
from sancli.errors import DataError


def image(path, sha256, split=None):
    """The class is the folder's name."""
    folders = path.split("/")
    return Picture(
        path=path,
        file=path,
        label=folders[-2],
        split=split,
        sha256=sha256,
        width=9,
        height=9,
        format="PNG",
    )


def pile(**sizes):
    return [image(f"{label}/{i}.png", f"{label}{i}") for label, size in sizes.items() for i in range(size)]


def table(pictures):
    return Counter((picture.split, picture.label) for picture in pictures)


def places(pictures):
    return {picture.sha256: picture.split for picture in pictures}


def test_each_class_gives_its_share():
    found = table(split_off(pile(cat=100, dog=37, eel=3), {"test": 0.1, "val": 0.15}, seed=0))
    assert [found["test", c] for c in ("cat", "dog", "eel")] == [10, 4, 1]
    assert [found["val", c] for c in ("cat", "dog", "eel")] == [15, 6, 1]
    assert [found["train", c] for c in ("cat", "dog", "eel")] == [75, 27, 1]


@pytest.mark.parametrize(("size", "train", "val"), [(1, 1, 0), (2, 1, 1), (3, 2, 1)])
def test_a_tiny_class_keeps_an_image_in_train(size, train, val):
    found = table(split_off(pile(cat=size), {"val": 0.15}, seed=0))
    assert (found["train", "cat"], found["val", "cat"]) == (train, val)


def test_the_split_follows_seed_and_content_and_neither_order_nor_names():
    pictures = pile(cat=40, dog=40)
    first = places(split_off(pictures, {"val": 0.2}, seed=0))
    assert places(split_off(pictures[::-1], {"val": 0.2}, seed=0)) == first
    renamed = [replace(picture, path=f"{picture.label}/z{i}.png") for i, picture in enumerate(pictures[::-1])]
    assert places(split_off(renamed, {"val": 0.2}, seed=0)) == first
    assert places(split_off(pictures, {"val": 0.2}, seed=1)) != first


def test_one_image_more_moves_few_others():
    before = places(split_off(pile(cat=100), {"val": 0.2}, seed=0))
    after = places(split_off(pile(cat=101), {"val": 0.2}, seed=0))
    assert sum(before[key] != after[key] for key in before) <= 1


def test_identical_files_go_to_one_side():
    pictures = [image(f"{label}/{i}.png", f"same{i // 2}") for label in ("cat", "dog") for i in range(40)]
    found = split_off(pictures, {"test": 0.2, "val": 0.3}, seed=0)
    sides = {}
    for picture in found:
        sides.setdefault(picture.sha256, set()).add(picture.split)
    assert all(len(side) == 1 for side in sides.values())
    assert len(found) == 80


def test_a_limit_takes_the_same_images_of_each_class_every_time():
    kept, over = limit(pile(cat=30, dog=5), 10, seed=0)
    assert Counter(picture.label for picture in kept) == {"cat": 10, "dog": 5}
    assert len(over) == 20
    assert limit(pile(cat=30, dog=5)[::-1], 10, seed=0) == (kept, over)


def resolved(*pictures, drop=True):
    found = find_duplicates(sorted(pictures, key=Picture.order), drop=drop)
    return found, [picture.path for picture in found.kept]


def test_of_identical_files_in_train_the_first_is_kept():
    found, kept = resolved(image("cat/2.png", "x"), image("cat/1.png", "x"), image("cat/3.png", "y"))
    assert kept == ["cat/1.png", "cat/3.png"]
    assert [(p.path, p.problem, p.action) for p in found.problems] == [
        ("cat/1.png", "duplicate of cat/2.png", "kept"),
        ("cat/2.png", "duplicate of cat/1.png", "dropped"),
    ]
    assert (found.sets["inside_class"], found.dropped["inside_class"]) == (1, 1)


def test_contradictory_labels_are_dropped_from_train_all_of_them():
    found, kept = resolved(image("cat/1.png", "x"), image("dog/1.png", "x"), image("cat/2.png", "x"))
    assert kept == []
    assert found.dropped["across_classes"] == 3
    assert "contradictory label: the same file is dog in dog/1.png" in found.problems[0].problem


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_train_image_with_a_twin_in_val_or_test_is_dropped(split):
    found, kept = resolved(image("train/cat/1.png", "x", "train"), image(f"{split}/cat/1.png", "x", split))
    assert kept == [f"{split}/cat/1.png"]
    assert found.shared == {("train", split): 2}
    assert found.dropped["across_splits"] == 1


def test_what_val_and_test_bring_is_never_dropped():
    pictures = [
        image("test/cat/1.png", "x", "test"),
        image("test/cat/2.png", "x", "test"),
        image("test/dog/1.png", "x", "test"),
        image("val/cat/1.png", "x", "val"),
        image("train/dog/1.png", "x", "train"),
    ]
    found, kept = resolved(*pictures)
    assert kept == sorted(picture.path for picture in pictures[:4])
    assert len(found.problems) == 5
    assert (found.sets["across_classes"], found.sets["across_splits"]) == (1, 1)


def test_a_report_drops_nothing():
    found, kept = resolved(image("cat/1.png", "x"), image("dog/1.png", "x"), drop=False)
    assert kept == ["cat/1.png", "dog/1.png"]
    assert {problem.action for problem in found.problems} == {"kept"}


def test_classes_too_small_are_left_out_in_every_split():
    pictures = [*pile(cat=5, dog=5, eel=1), image("test/eel/9.png", "e", "test")]
    found = select(pictures, {"cat", "dog", "eel"}, {"val": 0.2}, PrepareConfig(source=Path()))
    assert found.small == {"eel": 1}
    assert {picture.label for picture in found.pictures} == {"cat", "dog"}
    assert sorted(problem.path for problem in found.problems) == ["eel/0.png", "test/eel/9.png"]


def test_fewer_than_two_classes_is_an_error_that_says_what_is_left():
    with pytest.raises(DataError, match=r"left: cat \(5\); too few usable training images: dog \(1\)"):
        select(pile(cat=5, dog=1), {"cat", "dog"}, {}, PrepareConfig(source=Path()))
