"""Each way to lay out images is recognised by names alone, and what fits none is explained."""

import re
from pathlib import Path

import pytest

from sancli.config import PrepareConfig
from sancli.data.listing import Listing, parents
from sancli.data.preparation.layouts import LAYOUTS, Hints, Seen, recognise
from sancli.errors import DataError, SanError, UsageError


def listing(*paths, empty=()):
    found = Listing()
    for path in paths:
        found.add_file(path)
    found.folders = [*parents(paths), *empty]
    return found.sort()


def seen(*paths, wanted="auto", empty=()):
    """The layout's name, and {path: (split, class)}."""
    found = recognise(Seen(listing(*paths, empty=empty), "photos"), wanted)
    return found.name, {image.path: (image.split, image.label) for image in found.images}


def refusal(*paths, wanted="auto"):
    with pytest.raises(DataError) as caught:
        seen(*paths, wanted=wanted)
    return str(caught.value)


def test_one_folder_a_class():
    name, images = seen("cat/1.jpg", "dog/2.PNG", "dog/deep/er/3.webp")
    assert name == "folders"
    assert images == {
        "cat/1.jpg": (None, "cat"),
        "dog/2.PNG": (None, "dog"),
        "dog/deep/er/3.webp": (None, "dog"),
    }


def test_wrapping_folders_are_passed():
    name, images = seen("archive/photos/cat/1.jpg", "archive/photos/dog/2.jpg")
    assert name == "folders"
    assert {label for _, label in images.values()} == {"cat", "dog"}


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "eval", "dev", "VAL"])
@pytest.mark.parametrize("test", ["test", "testing"])
def test_splits_by_all_their_names(train, val, test):
    paths = [f"x/{split}/{label}/1.jpg" for split in (train, val, test) for label in ("cat", "dog")]
    name, images = seen(*paths)
    assert name == "splits"
    assert images[f"x/{val}/dog/1.jpg"] == ("val", "dog")
    assert images[f"x/{test}/cat/1.jpg"] == ("test", "cat")
    assert images[f"x/{train}/cat/1.jpg"] == ("train", "cat")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("training_set/training_set", "test_set/test_set"),
        ("Training Set", "Validation Set"),
        ("train_images", "test_images"),
        ("images/train2017", "images/val2017"),
        ("train/animals", "test/animals"),
    ],
)
def test_splits_that_are_named_in_more_words_are_no_classes(train, test):
    paths = [f"{split}/{label}/1.jpg" for split in (train, test) for label in ("cat", "dog")]
    name, images = seen(*paths)
    assert name == "splits"
    assert images[paths[0]] == ("train", "cat")
    assert images[paths[3]] == ("val" if "al" in test and "animals" not in test else "test", "dog")


def test_splits_inside_class_folders_stay():
    name, images = seen("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/3.jpg", "dog/test/4.jpg")
    assert name == "splits"
    assert images["cat/test/2.jpg"] == ("test", "cat")
    assert seen("cat/train/1.jpg", "cat/2.jpg", "dog/train/3.jpg")[0] == "folders"


def test_doubled_split_folders_and_test_images_without_a_class():
    name, images = seen("train/train/cat/1.jpg", "train/train/dog/1.jpg", "test/1.jpg", "test/test/2.jpg")
    assert name == "splits"
    assert images["train/train/cat/1.jpg"] == ("train", "cat")
    assert images["test/1.jpg"] == images["test/test/2.jpg"] == ("unlabelled", None)


def test_a_train_folder_alone_is_a_wrapper_and_a_class_may_be_called_train():
    assert seen("train/cat/1.jpg", "train/dog/2.jpg")[0] == "folders"
    assert seen("train/1.jpg", "car/2.jpg", "plane/3.jpg")[0] == "folders"
    assert seen("train/1.jpg", "test/2.jpg", wanted="folders")[0] == "folders"


@pytest.mark.parametrize("double", ["seg_train/seg_train", "seg_train"])
@pytest.mark.parametrize("above", ["", "archive/", "a/b/c/"])
def test_the_intel_scenes_doubled_or_single_at_any_depth(double, above):
    test, pred = double.replace("train", "test"), double.replace("train", "pred")
    name, images = seen(
        f"{above}{double}/forest/1.jpg",
        f"{above}{double}/sea/2.jpg",
        f"{above}{test}/sea/3.jpg",
        f"{above}{pred}/4.jpg",
    )
    assert name == "intel"
    assert sorted(images.values(), key=str) == [
        ("test", "sea"),
        ("train", "forest"),
        ("train", "sea"),
        ("unlabelled", None),
    ]


def test_images_outside_every_class_are_named():
    found = recognise(Seen(listing("logo.png", "cat/1.jpg", "dog/1.jpg")))
    assert [problem.path for problem in found.left_out] == ["logo.png"]
    found = recognise(Seen(listing("train/x.jpg", "train/a/1.jpg", "test/a/1.jpg", "notes/z.png")))
    assert [problem.path for problem in found.left_out] == ["notes/z.png", "train/x.jpg"]


def test_empty_class_folders_are_named():
    assert recognise(Seen(listing("a/1.jpg", "b/1.jpg", empty=["c"]))).empty == ["c"]
    paths = ("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg")
    assert recognise(Seen(listing(*paths, empty=["train/c"]))).empty == ["c"]
    paths = ("seg_train/seg_train/a/1.jpg", "seg_test/seg_test/a/1.jpg")
    assert recognise(Seen(listing(*paths, empty=["seg_train/seg_train/c"]))).empty == ["c"]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((), "no images"),
        (("notes.txt", "a.xcf"), "no images and 2 other files (.txt 1, .xcf 1)"),
        (("1.jpg", "2.jpg"), "2 images in no folder"),
        (("cat/1.jpg", "cat/2.jpg"), "2 images, and 1 folder: cat"),
    ],
)
def test_what_fits_no_layout_says_what_was_found_and_what_is_expected(paths, found):
    words = refusal(*paths)
    assert found in words
    assert "as photos/cat/1.jpg and photos/dog/2.jpg" in words
    assert "--labels FILE" in words
    line = " ".join(words.lower().split())
    assert all(str(layout.__doc__).rstrip(".").lower() in line for layout in LAYOUTS.values())
    assert len(words.splitlines()) <= 6
    assert max(map(len, words.splitlines())) <= 100


def test_one_class_is_named_and_a_split_is_none():
    words = refusal("sea/1.jpg", "sea/2.jpg")
    assert "photos has only one class (sea); at least two are needed." in words
    assert len(words.splitlines()) <= 6
    assert "no labelled images in photos." in refusal("train/1.jpg")
    assert "no labelled images in photos." in refusal("sea/1.jpg", wanted="splits")


def test_split_folders_without_class_folders_are_not_taken_for_classes():
    assert "look like splits, but hold no class folders" in refusal("train/cat.1.jpg", "test/2.jpg")


def test_masks_beside_images_are_no_class():
    words = refusal("images/a_1.jpg", "annotations/trimaps/a_1.png", "images/b_1.jpg")
    assert "the folders images and annotations in photos do not look like classes" in words
    assert "san prepare photos/images" in words
    assert seen("images/1.jpg", "masks/1.png", wanted="folders")[0] == "folders"
    assert seen("images/1.jpg", "masks/1.png", "cat/1.png")[0] == "folders"


def test_two_folders_for_one_split_are_refused():
    assert "val and valid both stand for val" in refusal("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")


def test_a_layout_that_was_asked_for_has_that_for_its_reason():
    paths = ("seg_train/sea/1.jpg", "seg_test/sea/2.jpg", "seg_pred/3.jpg")
    assert recognise(Seen(listing(*paths)), "folders").why == "--layout folders says so"
    assert recognise(Seen(listing(*paths))).why.endswith("of the Intel scenes")


def test_a_layout_that_does_not_fit_is_told_from_the_one_that_does():
    words = refusal("cat/1.jpg", "dog/1.jpg", wanted="intel").splitlines()
    assert words[0].endswith("is not laid out as --layout intel says.")
    assert words[1].startswith("  why: its layout seems to be folders: it has 2 folders and ")
    assert words[2:] == ["  fix: leave --layout out."]
    nothing = refusal("1.jpg", "2.jpg", wanted="intel")
    assert "looked for seg_train/CLASS/ (Intel)" in nothing
    assert "train/CLASS/ and test" not in nothing


def test_labels_in_file_names_are_recognised():
    name, images = seen("cat.001.jpg", "cat.002.jpg", "dog.001.jpg", "dog.2.jpg", "notes/readme.txt")
    assert name == "names"
    assert images["dog.2.jpg"] == (None, "dog")
    paths = [
        f"images/{breed}_{number}.jpg" for breed in ("Abyssinian", "yorkshire_terrier") for number in (1, 12)
    ]
    name, images = seen(*paths, empty=["annotations"])
    assert (name, images["images/yorkshire_terrier_12.jpg"]) == ("names", (None, "yorkshire_terrier"))
    _, images = seen("sea lion (1).png", "sea lion (2).png", "B2-1.png", "B2-2.png")
    assert {label for _, label in images.values()} == {"sea lion", "B2"}


def test_dogs_against_cats_as_kaggle_has_it():
    paths = [f"train/{name}.{number}.jpg" for name in ("cat", "dog") for number in range(3)]
    name, images = seen(*paths, "test1/1.jpg", "test1/2.jpg")
    assert name == "names"
    assert images["train/cat.0.jpg"] == ("train", "cat")
    assert images["test1/1.jpg"] == ("unlabelled", None)


@pytest.mark.parametrize(
    "paths",
    [
        ("IMG_1.jpg", "IMG_2.jpg", "DSC_1.jpg", "DSC_2.jpg"),
        ("1.jpg", "2.jpg", "3.jpg", "4.jpg"),
        ("cat1.jpg", "dog2.jpg", "cow3.jpg", "pig4.jpg"),
        ("cat1.jpg", "cat2.jpg", "dog1.jpg", "dog2.jpg", "x.jpg", "y.jpg"),
        ("photo.jpg", "img-a.jpg"),
    ],
)
def test_file_names_that_tell_nothing_are_no_labels(paths):
    assert "no labelled images" in refusal(*paths)


def test_class_folders_win_over_file_names():
    assert seen("a/cat.1.jpg", "a/cat.2.jpg", "b/dog.1.jpg", "b/dog.2.jpg")[0] == "folders"


def by_expression(expression, *paths):
    found = recognise(Seen(listing(*paths), "photos", Hints(label_regex=expression)))
    return {image.path: (image.split, image.label) for image in found.images}, found


def test_an_expression_finds_the_label():
    paths = ("01_cat_x.jpg", "02_dog_x.jpg", "logo.png")
    images, found = by_expression(r"\d+_(.+)_x", *paths)
    assert images == {"01_cat_x.jpg": (None, "cat"), "02_dog_x.jpg": (None, "dog")}
    assert [problem.path for problem in found.left_out] == ["logo.png"]
    images, _ = by_expression(r"(x|y)/(?P<label>\w+)/", "x/cat/1.jpg", "y/dog/1.jpg")
    assert images["y/dog/1.jpg"] == (None, "dog")
    images, _ = by_expression(r"^(.)", "train/a1.jpg", "test/b1.jpg", "train/b2.jpg")
    assert images["test/b1.jpg"] == ("test", "b")


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", "is no regular expression"),
        ("cat", "does not say which part is the label"),
        ("(zebra)", "fits no image of 1 image"),
    ],
)
def test_an_expression_that_cannot_work_is_refused(expression, words):
    with pytest.raises(SanError, match=re.escape(words)):
        by_expression(expression, "cat_1.jpg")


def test_every_layout_can_be_asked_for():
    assert {"auto", *LAYOUTS} == {*PrepareConfig.LAYOUTS}


def test_what_is_said_about_labels_needs_a_layout_that_obeys():
    for settings in (
        {"layout": "folders", "labels": "x.csv"},
        {"layout": "csv", "label_regex": "(.)"},
        {"layout": "imagenet-val", "label_col": "x"},
        {"label_regex": "(.)", "skip_missing": True},
    ):
        with pytest.raises(UsageError, match=r"together|does not go with"):
            PrepareConfig(source="x", **settings)


def test_the_page_has_every_layout_with_a_test_that_exists():
    root = Path(__file__).parents[1]
    page = (root / "docs/prepare.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == {*LAYOUTS}
    tests = "".join(path.read_text("utf-8") for path in (root / "tests").glob("test_*.py"))
    assert all(f"def {test}(" in tests for _, test in rows)
