"""Images of one group stay on one side of every split, and shares are met as well as that allows."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from folders import fill

from sancli.data.preparation.groups import bundles, describe, grouped, leaks
from sancli.data.preparation.layouts import Placed
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.splits import split_off
from sancli.errors import UsageError

SHARES = {"test": 0.2, "val": 0.15}


def image(number, label, group, split=None, sha=None):
    return Picture(
        path=f"{label}/{number:05}.png",
        file="x",
        label=label,
        split=split,
        sha256=sha or f"sha{number}",
        width=1,
        height=1,
        format="PNG",
        group=group,
    )


def drawn(seed, *, images=600, classes=3, groups=80):
    """Images whose groups have sizes as uneven as those of patients, and classes of their own."""
    draw = random.Random(seed)
    weights = [1 / (place + 1) for place in range(groups)]
    found = []
    for number in range(images):
        group = draw.choices(range(groups), weights)[0]
        label = f"c{(group + (draw.random() < 0.1)) % classes}"
        found.append(image(number, label, None if draw.random() < 0.2 else f"g{group}"))
    return found


def table(pictures):
    counts = defaultdict(Counter)
    for picture in pictures:
        counts[picture.label][picture.split] += 1
    return counts


def check_together(pictures):
    for key in ("group", "sha256"):
        splits = defaultdict(set)
        for picture in pictures:
            splits[getattr(picture, key)].add(picture.split)
        splits.pop(None, None)
        assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("seed", range(6))
def test_groups_stay_together_and_shares_are_met(seed):
    pictures = drawn(seed)
    placed = split_off(pictures, SHARES, seed=seed)
    assert sorted(picture.path for picture in placed) == sorted(picture.path for picture in pictures)
    check_together(placed)
    for counts in table(placed).values():
        for split, share in SHARES.items():
            assert abs(counts[split] / counts.total() - share) < 0.04


def test_the_order_and_the_names_do_not_matter_and_the_seed_does():
    pictures = drawn(1)
    first = {picture.path: picture.split for picture in split_off(pictures, SHARES, seed=0)}
    random.Random(5).shuffle(pictures)
    again = {picture.path: picture.split for picture in split_off(pictures, SHARES, seed=0)}
    other = {picture.path: picture.split for picture in split_off(pictures, SHARES, seed=1)}
    assert first == again != other


def test_identical_files_tie_groups_together():
    pictures = [
        image(1, "a", "x", sha="s"),
        image(2, "a", "y", sha="s"),
        image(3, "a", "y"),
        image(4, "a", None),
    ]
    assert sorted(len(bundle) for bundle in bundles(pictures)) == [1, 3]


@pytest.mark.parametrize("groups", [1, 2, 3, 9])
def test_every_class_is_in_train_and_where_it_can_be_in_every_split(groups):
    pictures = [
        image(number, f"c{number % 3}", f"g{number % 3}-{number // 3 % groups}") for number in range(90)
    ]
    placed = split_off(pictures, {"test": 0.45, "val": 0.45}, seed=0)
    check_together(placed)
    for counts in table(placed).values():
        assert counts["train"]
        assert len([split for split in counts.values() if split]) == min(groups, 3)


def test_one_group_for_everything_goes_to_train():
    placed = split_off([image(number, f"c{number % 2}", "g") for number in range(20)], SHARES, seed=0)
    assert {picture.split for picture in placed} == {"train"}


def test_the_group_is_what_the_expression_finds():
    images = [Placed(path, "x", None) for path in ("a/p1_1.png", "a/p1_2.png", "b/p2_1.png", "b/q.png")]
    assert [one.group for one in grouped(images, r"p\d")] == ["p1", "p1", "p2", None]
    assert [one.group for one in grouped(images, r"p(\d)_")] == ["1", "1", "2", None]
    assert [one.group for one in grouped(images, r"(a|b)/(?P<group>.)")] == ["p", "p", "p", "q"]
    assert describe(grouped(images, r"p\d")) == "3 images in 2 groups; 1 image in none, each by itself"
    with pytest.raises(UsageError, match="finds nothing in the path of any image"):
        grouped(images, "z")
    with pytest.raises(UsageError, match="is no regular expression"):
        grouped(images, "(")


def test_a_group_in_test_leaves_train():
    train = [image(1, "a", "x"), image(2, "a", "y"), image(3, "a", None)]
    brought = [image(4, "a", "x", "test"), image(5, "a", None, "val"), image(6, "a", "x", "val")]
    kept, problems = leaks(train, brought, drop=True)
    assert [picture.path for picture in kept] == ["a/00002.png", "a/00003.png"]
    assert [(problem.path, problem.problem, problem.action) for problem in problems] == [
        ("a/00001.png", "of a group that is in test and val too: x", "left out"),
        ("a/00004.png", "of a group that is in val too: x", "kept"),
        ("a/00006.png", "of a group that is in test too: x", "kept"),
    ]
    assert leaks(train, brought, drop=False)[0] == train


def test_prepare_keeps_patients_apart(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {f"{label}/patient{patient}_{shot}.png": 100 * patient + shot + 7000 * (label == "ill")
            for label in ("ill", "well") for patient in range(8) for shot in range(3)}  # fmt: skip
    fill("scans", tree)
    outcome = san("prepare", "scans", "--group-by", r"patient\d+", "--val", "0.25")
    assert outcome.code == 0, outcome.stderr
    assert "--group-by: 48 images in 8 groups." in outcome.stderr
    with Path("data/scans/splits.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits = defaultdict(set)
    for row in rows:
        splits[row["source"].partition("/")[2].partition("_")[0]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert Counter((row["class"], row["split"]) for row in rows) == {
        ("ill", "train"): 18, ("well", "train"): 18, ("ill", "val"): 6, ("well", "val"): 6,
    }  # fmt: skip
    assert san("prepare", "scans", "x", "--group-by", "doctor").code == 2
