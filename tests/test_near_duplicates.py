"""--near-duplicates: pictures that look alike are found, whatever became of them, and none is dropped."""

import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import class_tree, fill
from PIL import Image, ImageEnhance

from sancli.data.preparation import near
from sancli.data.prepared import open_prepared


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scene(seed, size=(150, 150)):
    """A picture with large and small shapes, like no other seed's."""
    rand = np.random.default_rng(seed)
    coarse = Image.fromarray(rand.integers(0, 256, (5, 5, 3), np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rand.integers(0, 256, (40, 40, 3), np.uint8)).resize(size)
    return Image.blend(coarse, fine, 0.2)


def saved(image, image_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def kinds(out):
    with Path(out, "problems.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: (row["problem"].split(":")[0], row["action"]) for row in csv.DictReader(file)}


def alike():
    """Two classes of 6 scenes in two splits, and look-alikes of some."""
    tree = {
        f"{split}/{name}/{i}.jpg": saved(scene(100 * s + 10 * n + i), quality=95)
        for s, split in enumerate(("train", "test"))
        for n, name in enumerate(("cat", "dog"))
        for i in range(6)
    }
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned to the right: stored turned to the left
    return tree | {
        "train/cat/smaller.jpg": saved(scene(0).resize((70, 70)), quality=70),
        "train/cat/bright.png": saved(ImageEnhance.Brightness(scene(1)).enhance(1.15), "PNG"),
        "train/cat/grey.webp": saved(scene(2).convert("L"), "WEBP"),
        "train/cat/turned.jpg": saved(scene(3).transpose(Image.Transpose.ROTATE_90), exif=turned, quality=95),
        "train/dog/cat.jpg": saved(scene(4), quality=40),
        "test/dog/leak.jpg": saved(scene(10).resize((600, 600)), quality=60),
        "train/dog/mirrored.jpg": saved(scene(11).transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=95),
        "train/dog/again.jpg": saved(scene(12), quality=95),
    }


def test_look_alikes_are_found_by_kind_and_none_is_dropped(san, place):
    pytest.importorskip("imagehash")
    fill("pets", alike())
    outcome = san("prepare", "pets", "--near-duplicates", "--val", "0", "--json")
    assert outcome.code == 0, outcome.stderr
    facts = json.loads(outcome.stdout)
    assert facts["near_duplicates"] == {"inside_class": 4, "across_classes": 1, "across_splits": 1}
    assert facts["duplicates"]["sets"]["inside_class"] == 1
    near_ones = {path: problem for path, problem in kinds("data/pets").items() if "near" in problem[0]}
    words = "near duplicate"
    assert near_ones == {
        **dict.fromkeys((f"train/cat/{i}.jpg" for i in range(4)), (words, "kept")),
        **{
            f"train/cat/{name}": (words, "kept")
            for name in ("smaller.jpg", "bright.png", "grey.webp", "turned.jpg")
        },
        **dict.fromkeys(("train/cat/4.jpg", "train/dog/cat.jpg"), (f"{words} in another class", "kept")),
        **dict.fromkeys(("train/dog/0.jpg", "test/dog/leak.jpg"), (f"{words} in another split", "kept")),
    }
    assert open_prepared(Path("data/pets")).total() == len(alike()) - 1  # again.jpg is the same file
    page = Path("data/pets/report.html").read_text(encoding="utf-8")
    for title in ("in several classes: 1 set", "in several splits: 1 set", "inside a class: 4 sets"):
        assert f"<h3>Near duplicates {title}</h3>" in page


def test_a_rerun_does_nothing_and_the_screen_tells_the_worst_first(san, place):
    pytest.importorskip("imagehash")
    fill("pets", alike())
    outcome = san("prepare", "pets", "--near-duplicates")
    lines = outcome.stderr.splitlines()
    at = next(i for i, line in enumerate(lines) if "pictures that look alike" in line)
    assert lines[at].startswith("Warning: 6 sets of pictures that look alike (1 across classes, ")
    assert "near duplicate in another" in lines[at + 1]
    assert "nothing to do" in san("prepare", "pets", "--near-duplicates").stderr
    assert "--near-duplicates True then, False now" in san("prepare", "pets").stderr


def test_nothing_alike_is_said_and_without_the_option_nothing_is_looked_for(san, place):
    pytest.importorskip("imagehash")
    fill(
        "pets",
        {f"{name}/{i}.png": saved(scene(10 * n + i), "PNG") for n, name in enumerate("ab") for i in range(4)},
    )
    assert "No two of the pictures look alike" in san("prepare", "pets", "x", "--near-duplicates").stderr
    outcome = san("prepare", "pets", "y", "--json")
    assert json.loads(outcome.stdout)["near_duplicates"] is None
    assert "look alike" not in outcome.stderr


def test_a_missing_library_is_named_before_anything_is_read(san, place, monkeypatch):
    fill("pets", class_tree("cat", "dog"))
    monkeypatch.setitem(sys.modules, "imagehash", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome = san("prepare", "pets", "--near-duplicates")
    assert outcome.code == 2
    assert 'pip install "sancli[dedupe]"' in outcome.stderr
    assert not Path("data").exists()


def by_definition(hashes):
    """Sets that chains of near pairs connect, every pair looked at."""
    bits = np.array([[int(a ^ b).bit_count() for b in hashes.tolist()] for a in hashes.tolist()])
    connected = np.linalg.matrix_power((bits <= near.MOST_BITS).astype(float), len(hashes)) > 0
    sets = {tuple(np.flatnonzero(row).tolist()) for row in connected}
    return sorted(list(found) for found in sets if len(found) > 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_sets_are_those_of_all_pairs(seed, monkeypatch):
    monkeypatch.setattr(near, "BLOCK", 50)  # so that several blocks are needed
    rand = np.random.default_rng(seed)
    hashes = rand.integers(0, 2**64, 12, np.uint64)[rand.integers(0, 12, 90)]
    for index in range(len(hashes)):  # 0 to 6 bits away: two of one origin may be 12 apart
        for bit in rand.integers(0, 64, rand.integers(0, 7)):
            hashes[index] ^= np.uint64(1) << np.uint64(bit)
    assert sorted(near.groups(hashes, range(len(hashes)))) == by_definition(hashes)


def test_few_hashes_and_equal_ones():
    assert near.groups(np.zeros(0, np.uint64), []) == []
    assert near.groups(np.zeros(1, np.uint64), [0]) == []
    assert near.groups(np.full(5, 2**64 - 1, np.uint64), [0, 2, 4]) == [[0, 2, 4]]
