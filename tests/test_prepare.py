"""`san prepare` from beginning to end: what it writes, says, keeps, and leaves alone."""

import csv
import json
import os
from pathlib import Path

import pytest
from folders import class_tree, contents, fill, fill_zip, picture

from sancli.data.prepared import open_prepared
from sancli.errors import DataError
from sancli.tasks import prepare as task
from sancli.tasks.preparation import reading, writing

PETS = class_tree("cat", "dog", count=10)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def problems(out):
    return {row["path"]: (row["problem"], row["action"]) for row in rows(Path(out) / "problems.csv")}


def test_a_folder_of_classes_becomes_train_and_val(san, place):
    before = contents(fill("pets", PETS))
    outcome = san("prepare", "pets")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr.index("Layout: folders, because") < outcome.stderr.index("Checking images")
    assert outcome.stderr.splitlines()[-1] == "Next: san train data/pets"
    prepared = open_prepared(Path("data/pets"))
    assert prepared.classes == ("cat", "dog")
    assert prepared.manifest.counts == {"train": {"cat": 8, "dog": 8}, "val": {"cat": 2, "dog": 2}}
    assert prepared.manifest.median_short_side_px == 5
    assert prepared.is_whole()
    for row in rows("data/pets/splits.csv"):
        assert (place / "data/pets" / row["file"]).read_bytes() == before[row["source"]]
        assert row["file"].startswith(f"{row['split']}/{row['class']}/")
        assert (row["width"], row["height"]) == ("6", "5")
    assert len(rows("data/pets/splits.csv")) == 20
    assert problems("data/pets") == {}
    assert contents("pets") == before


def test_splits_of_the_source_are_kept_and_val_comes_from_train(san, place):
    tree = class_tree("cat", "dog", count=10, prefix="train/") | class_tree(
        "cat", "dog", start=50, prefix="test/"
    )
    fill("pets", tree)
    assert san("prepare", "pets", "--val", "0.2").code == 0
    counts = open_prepared(Path("data/pets")).manifest.counts
    assert counts == {
        "train": {"cat": 8, "dog": 8},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 4, "dog": 4},
    }


def intel():
    tree = class_tree("forest", "sea", count=10, prefix="seg_train/seg_train/")
    tree |= class_tree("forest", "sea", start=50, prefix="seg_test/seg_test/")
    return tree | {f"seg_pred/seg_pred/{i}.png": 9000 + i for i in range(3)}


def test_the_intel_zip_is_found_by_itself_and_pred_is_no_class(san, place):
    fill_zip("intel-scenes.zip", intel())
    outcome = san("prepare", "intel-scenes.zip")
    assert outcome.code == 0, outcome.stderr
    prepared = open_prepared(Path("data/intel-scenes"))
    assert (prepared.manifest.layout, prepared.classes) == ("intel", ("forest", "sea"))
    assert prepared.manifest.unlabelled == len(prepared.unlabelled()) == 3
    assert prepared.manifest.counts["test"] == {"forest": 4, "sea": 4}


def test_a_zip_and_its_folder_give_the_same_split(san, place):
    fill_zip("z.zip", intel())
    fill("f", intel())
    san("prepare", "z.zip")
    san("prepare", "f")
    assert Path("data/z/splits.csv").read_bytes() == Path("data/f/splits.csv").read_bytes()


def test_the_same_source_and_options_give_the_same_bytes(san, place):
    fill("pets", PETS | {"cat/bad.jpg": b"x", "dog/twin.png": 0, "readme.txt": b"x"})
    files = ("dataset.json", "splits.csv", "problems.csv")
    results = []
    for out in ("one", "two"):
        assert san("prepare", "pets", out, "--seed", "3").code == 0
        results.append([(place / out / name).read_bytes() for name in files])
    assert results[0] == results[1]


def test_a_rerun_on_an_unchanged_source_does_nothing(san, place):
    fill("pets", PETS)
    san("prepare", "pets")
    stamps = {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")}
    outcome = san("prepare", "pets")
    assert outcome.code == 0
    assert "prepared already, from the same source with the same options: nothing to do" in outcome.stderr
    assert outcome.stderr.splitlines()[-1] == "Next: san train data/pets"
    assert {path: path.stat().st_mtime_ns for path in Path("data").rglob("*")} == stamps


@pytest.mark.parametrize("change", ["option", "image", "name", "damage"])
def test_what_is_there_is_replaced_by_force_alone(san, place, change):
    fill("pets", PETS)
    san("prepare", "pets")
    if change == "image":
        (place / "pets/cat/0.png").unlink()
        fill("pets", {"cat/0.png": 777})
    if change == "name":
        Path("pets/cat/0.png").rename("pets/cat/zero.png")
    if change == "damage":
        next(Path("data/pets/train/cat").iterdir()).unlink()
    options = ("--val", "0.4") if change == "option" else ()
    before = contents("data")
    outcome = san("prepare", "pets", *options)
    assert outcome.code == 6
    assert "--force" in outcome.stderr
    assert contents("data") == before
    assert san("prepare", "pets", *options, "--force").code == 0
    assert contents("data") != before
    assert open_prepared(Path("data/pets")).is_whole()
    assert [path.name for path in Path("data").iterdir()] == ["pets"]


def test_what_differs_from_the_prepared_folder_is_named(san, place):
    fill("pets", PETS)
    fill("wild", class_tree("cat", "dog", start=300))
    san("prepare", "pets")
    outcome = san("prepare", "pets", "--val", "0.2", "--only", "cat,dog")
    assert "why: --val 0.15 then, 0.2 now; --only not given then, cat,dog now.\n" in outcome.stderr
    outcome = san("prepare", "wild", "data/pets")
    assert "why: another source, pets then, wild now.\n" in outcome.stderr
    fill("pets", {"cat/new.png": 777})
    assert "why: the source has changed since.\n" in san("prepare", "pets").stderr
    next(Path("data/pets/train/cat").iterdir()).unlink()
    assert "why: data/pets has changed since.\n" in san("prepare", "pets").stderr
    Path("data/pets/dataset.json").write_text("{", encoding="utf-8")
    assert "why: data/pets/dataset.json is damaged.\n" in san("prepare", "pets").stderr


def test_a_raw_folder_is_no_prepared_one(place):
    with pytest.raises(DataError, match="its images were not checked and split yet"):
        open_prepared(fill("pets", PETS))


def test_something_else_in_the_place_of_out_is_never_replaced(san, place):
    fill("pets", PETS)
    fill("data/pets", {"diary.txt": b"dear"})
    for force in ((), ("--force",)):
        assert san("prepare", "pets", *force).code == 6
        assert contents("data") == {"pets/diary.txt": b"dear"}
    Path("empty").mkdir()
    assert san("prepare", "pets", "empty").code == 0


def test_output_and_source_in_each_other_are_refused(san, place):
    fill("pets", PETS)
    before = contents(place)
    for out in ("pets/out", "pets", "."):
        outcome = san("prepare", "pets", out)
        assert outcome.code == 2
        assert "lie in each other" in outcome.stderr
    assert san("prepare", ".").code == 2
    assert contents(place) == before


def test_a_prepared_folder_is_not_prepared_again(san, place):
    fill("pets", PETS)
    san("prepare", "pets")
    outcome = san("prepare", "data/pets", "again")
    assert outcome.code == 2
    assert "san train data/pets" in outcome.stderr


def test_a_dry_run_shows_all_and_writes_nothing(san, place):
    fill("pets", PETS | {"cat/bad.jpg": b"x"})
    before = contents(place)
    outcome = san("prepare", "pets", "--dry-run", "--val", "0.3")
    assert outcome.code == 0, outcome.stderr
    assert "cat/bad.jpg: not an image" in outcome.stderr
    assert outcome.stderr.splitlines()[-1] == "Next: san prepare pets --val 0.3"
    assert contents(place) == before
    assert not Path("data").exists()


def test_json_is_one_object_with_the_same_facts(san, place):
    fill("pets", PETS | {"cat/bad.jpg": b"x", "dog/cat.png": 0, "notes.txt": b"x"})
    outcome = san("prepare", "pets", "--json")
    facts = json.loads(outcome.stdout)
    assert facts["layout"] == "folders"
    assert facts["counts"] == {"train": {"cat": 8, "dog": 8}, "val": {"cat": 1, "dog": 2}}
    assert (facts["images_found"], facts["images_taken"], facts["ignored"]) == (22, 19, {".txt": 1})
    assert facts["duplicates"]["sets"] == {"inside_class": 0, "across_classes": 1, "across_splits": 0}
    assert {(p["path"], p["action"]) for p in facts["problems"]} == {
        ("cat/bad.jpg", "skipped"),
        ("cat/0.png", "dropped"),
        ("dog/cat.png", "dropped"),
    }
    again = json.loads(san("prepare", "pets", "--json").stdout)
    assert again["unchanged"] is True
    only_once = {"turned", "several_frames", "images", "duplicates", "near_duplicates", "classes_left_out"}
    only_once |= {"not_taken"}
    assert facts.keys() - again.keys() == only_once
    same = facts.keys() & again.keys() - {"unchanged", "written"}
    assert {key: again[key] for key in same} == {key: facts[key] for key in same}


def test_every_image_found_is_taken_or_listed(san, place):
    tree = PETS | {"cat/bad.jpg": b"x", "cat/twin.png": 1, "dog/lie.png": 2, "eel/1.png": 77, "logo.png": 78}
    fill("pets", tree)
    facts = json.loads(san("prepare", "pets", "--json", "--max-per-class", "6").stdout)
    gone = [problem for problem in facts["problems"] if problem["action"] != "kept"]
    assert facts["images_taken"] + len(gone) == facts["images_found"] == len(tree)
    assert facts["not_taken"] == {"dropped as duplicates": 3, "could not be read": 1, "left out": 9}
    words = san("prepare", "pets", "other", "--only", "cat,dog").stderr
    assert (
        "19 of 25 images taken; 3 dropped as duplicates; 1 could not be read; 1 left out; 1 of other" in words
    )
    assert facts["classes_left_out"] == {"eel": 1}


@pytest.mark.parametrize("link", ["auto", "hard", "sym", "copy"])
def test_links_share_the_bytes_of_the_source(san, place, link):
    fill("pets", PETS)
    assert san("prepare", "pets", "--link", link).code == 0
    for path in Path("data/pets").rglob("*.png"):
        assert path.is_symlink() == (link == "sym")
        assert (path.stat().st_nlink == 2) == (link in ("auto", "hard"))
    assert open_prepared(Path("data/pets")).is_whole()


def test_another_disk_means_a_copy_or_an_error_when_a_hard_link_was_asked_for(san, place, monkeypatch):
    fill("pets", PETS)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    outcome = san("prepare", "pets", "--link", "hard")
    assert outcome.code == 6
    assert "--link copy" in outcome.stderr
    assert not Path("data").exists()
    assert san("prepare", "pets").code == 0


def test_bad_fail_stops_and_leaves_nothing(san, place):
    fill("cats", PETS | {"cat/x.jpg": picture(5, "JPEG", (64, 64))[:-100]})
    outcome = san("prepare", "cats", "--bad", "fail")
    assert outcome.code == 3
    assert "cat/x.jpg: truncated" in outcome.stderr
    assert not Path("data").exists()


def test_only_and_skip_choose_classes_and_a_typo_is_named(san, place):
    fill("pets", class_tree("cat", "dog", "eel"))
    san("prepare", "pets", "a", "--only", "cat,eel")
    san("prepare", "pets", "b", "--skip", "dog")
    assert open_prepared(Path("a")).classes == open_prepared(Path("b")).classes == ("cat", "eel")
    outcome = san("prepare", "pets", "c", "--only", "cta,eel")
    assert outcome.code == 2
    assert "did you mean cat?" in outcome.stderr


def test_a_share_of_a_split_that_the_source_brings_is_refused(san, place):
    fill(
        "pets", class_tree("cat", "dog", prefix="train/") | class_tree("cat", "dog", start=9, prefix="test/")
    )
    outcome = san("prepare", "pets", "--test", "0.1")
    assert outcome.code == 2
    assert "the source brings its own test images" in outcome.stderr


def test_names_from_subfolders_stay_apart_and_endings_are_mended(san, place):
    fill("pets", PETS | {"cat/a/x.png": 50, "cat/b/x.png": 51, "cat/b/X.PNG": 52, "cat/photo.jpg": 53})
    san("prepare", "pets", "--val", "0")
    names = sorted(path.name for path in Path("data/pets/train/cat").iterdir())
    assert {"x.png", "X-2.PNG", "x-3.png", "photo.png"} <= set(names)
    assert len(names) == 14
    sources = {row["source"]: row["file"] for row in rows("data/pets/splits.csv")}
    assert Path("data/pets", sources["cat/b/x.png"]).read_bytes() == picture(51)


def test_an_interruption_leaves_nothing(place, monkeypatch):
    fill("pets", PETS)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for module, step in (
        (reading, "scan_files"),
        (writing, "place_files"),
        (writing, "write_prepared"),
        (task, "write_report"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                task.run(task.PrepareConfig(source=Path("pets")))
        assert not Path("data").exists()


def test_force_keeps_the_old_folder_when_the_new_one_fails(place, monkeypatch):
    fill("pets", PETS)
    config = task.PrepareConfig(source=Path("pets"), force=True)
    task.run(config)
    before = contents("data")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_prepared", interrupt)
    with pytest.raises(KeyboardInterrupt):
        task.run(config)
    assert contents("data") == before


def test_choices_that_leave_too_little_are_refused_by_their_names(san, place):
    fill("pets", PETS)
    for options, words in (
        (("--only", "cat"), "--only cat leaves cat."),
        (("--skip", "cat,dog"), "--skip cat,dog leaves no class."),
        (("--max-per-class", "1"), "--max-per-class 1 is less than --min-per-class 2."),
    ):
        outcome = san("prepare", "pets", *options)
        assert (outcome.code, words in outcome.stderr) == (2, True), outcome.stderr


def test_a_quiet_warning_brings_its_files(san, place):
    fill("pets", PETS | {"cat/bad.jpg": b"x"})
    lines = san("prepare", "pets", "--quiet").stderr.splitlines()
    assert lines[0] == "Warning: 1 file could not be used (1 not an image):"
    assert lines[1].startswith("  cat/bad.jpg: not an image (")


def test_a_class_that_is_too_small_is_told_once(san, place):
    fill("pets", PETS | {"eel/1.png": 77})
    outcome = san("prepare", "pets")
    told = [line for line in outcome.stderr.splitlines() if "eel" in line and "Layout:" not in line]
    assert told == [
        "21 images, 3 classes: cat, dog, eel",
        "Warning: too few usable training images, left out: eel (1).",
    ]
    assert problems("data/pets") == {
        "eel/1.png": ("class eel has fewer than 2 usable training images", "left out")
    }


def test_many_classes_do_not_flood_the_screen(san, place):
    fill("many", class_tree(*(f"c{i:03}" for i in range(100)), count=2))
    outcome = san("prepare", "many")
    assert outcome.code == 0
    assert "The 20 smallest of 100 classes" in outcome.stdout
    assert max(map(len, outcome.stderr.splitlines())) < 200
    assert len(outcome.stdout.splitlines()) < 30
