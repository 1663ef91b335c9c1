"""Folders as people have them: ghosts, links, fifos, locked files, hostile names, classes that do not fit."""

import csv
import importlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from folders import class_tree, contents, fill, picture

from sancli.data import images, listing
from sancli.data.listing import list_folder
from sancli.data.prepared import open_prepared

PETS = class_tree("cat", "dog", count=10)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unprivileged(monkeypatch):
    """An empty folder to work in, as a user for whom permissions count: root may read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    monkeypatch.chdir(folder)
    root = os.geteuid() == 0
    if root:
        for name in ("sancli.tasks.prepare", "zoneinfo"):  # another user may not read root's Python
            importlib.import_module(name)
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


def prepared_with(san, **more):
    """Prepares folder x; gives the outcome, the opened result and {path: (problem, action)}."""
    outcome = san("prepare", "x", *more.get("options", ()))
    assert outcome.code == 0, outcome.stderr
    assert "\x1b" not in outcome.stderr
    with Path("data/x/problems.csv").open(newline="", encoding="utf-8") as file:
        problems = {row["path"]: (row["problem"], row["action"]) for row in csv.DictReader(file)}
    return outcome, open_prepared(Path("data/x")), problems


def test_one_truncated_image_is_named_skipped_and_counted(san, place):  # row 1
    fill("x", PETS | {"cat/x.jpg": picture(1, "JPEG", (64, 64))[:-54]})
    outcome, prepared, problems = prepared_with(san)
    assert "1 file could not be used (1 truncated):\n  cat/x.jpg: truncated" in outcome.stderr
    assert problems["cat/x.jpg"][1] == "skipped"
    assert prepared.total() == 20


def test_what_pretends_to_be_an_image_is_named_for_what_it_is(san, place):  # rows 5 to 9
    odd = {
        "empty.jpg": b"",
        "page.jpg": b"<html>404",
        "doc.png": b"%PDF-1.4",
        "drawing.jpg": b"<svg xmlns='x'>",
        "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0",
        "print.jpg": b"%!PS-Adobe",
    }
    fill("x", PETS | {f"cat/{name}": data for name, data in odd.items()})
    _, prepared, problems = prepared_with(san)
    for name, words in zip(odd, ("empty", "HTML", "PDF", "SVG", "HEIC", "EPS"), strict=True):
        assert words in problems[f"cat/{name}"][0]
    assert prepared.total() == 20


def test_a_picture_over_the_limit_is_refused_until_it_is_raised(san, place):  # row 6
    fill("x", PETS | {"cat/large.png": picture(1, size=(200, 100))})
    options = ("--max-pixels", "10000")
    assert prepared_with(san, options=options)[2]["cat/large.png"][0].endswith("raise with --max-pixels")
    assert prepared_with(san, options=("--force",))[2] == {}


def test_links_inside_the_source_are_counted_and_explain_what_is_not_taken(san, place):
    fill("x", PETS)
    for number in range(3):
        Path(f"x/cat/again{number}.png").symlink_to(f"{number}.png")
    Path("x/cat/nothing.png").symlink_to("nothing")
    outcome, prepared, _ = prepared_with(san)
    assert "\n3 of them are links to files in the source; an image and a link" in outcome.stderr
    assert "\n20 of 23 images taken; 3 dropped as duplicates.\n" in outcome.stderr
    assert prepared.total() == 20


def test_other_extensions_are_counted_and_capitals_are_read(san, place):  # row 11
    others = {f"cat/{i}.xcf": b"x" for i in range(10)} | {"a.txt": b"x", "dog/b.TXT": b"x", "cat/c": b"x"}
    formats = {
        "cat/a.GIF": picture(71, "GIF"),
        "cat/b.Jfif": picture(72, "JPEG"),
        "dog/c.AVIF": picture(73, "AVIF"),
    }
    fill("x", PETS | others | formats)
    outcome, prepared, _ = prepared_with(san)
    assert "13 files with other extensions ignored (.xcf 10, .txt 2, without extension 1)" in outcome.stderr
    assert prepared.total() == 23


@pytest.mark.parametrize("tree", [{}, {"notes.txt": b"x"}, {"1.png": 1, "2.png": 2}, class_tree("cat")])
def test_no_classes_or_one_is_explained(san, place, tree):  # row 21
    Path("x").mkdir()
    fill("x", tree)
    outcome = san("prepare", "x")
    assert outcome.code == 3
    assert "give each class a folder of its own, as x/cat/1.jpg and x/dog/2.jpg,\n" in outcome.stderr
    assert outcome.stderr.endswith("    or name a table of labels: --labels FILE\n")
    assert len(outcome.stderr.splitlines()) <= 6
    assert not Path("data").exists()


def test_a_source_that_is_not_there_or_no_folder(san, place):
    fill("x", {"a.tar": b"x" * 600})
    for source, words in (("nowhere", "does not exist"), ("x/a.tar", "is neither a zip nor a tar")):
        outcome = san("prepare", source)
        assert outcome.code == 3
        assert words in outcome.stderr


def test_empty_classes_and_classes_of_bad_images_are_no_classes(san, place):  # row 22
    fill("x", PETS | {"eel/1.jpg": b"x", "eel/2.jpg": b"y", "fox/notes.txt": b"x"})
    Path("x/gnu").mkdir()
    outcome, prepared, _ = prepared_with(san)
    assert prepared.classes == ("cat", "dog")
    assert "2 classes without an image, left out: fox, gnu" in outcome.stderr
    assert "too few usable training images, left out: eel (0)" in outcome.stderr
    fill("y", {"cat/1.png": 1, "cat/2.png": 2, "dog/1.jpg": b"x"})
    assert san("prepare", "y").code == 3


def test_ghosts_are_neither_classes_nor_corrupt(san, place):  # row 23
    names = (
        "cat/.DS_Store",
        "cat/Thumbs.db",
        "cat/._1.jpg",
        ".ipynb_checkpoints/1.png",
        "__MACOSX/cat/._1.jpg",
    )
    fill("x", PETS | dict.fromkeys((*names, ".git/objects/1.jpg", "cat/.ipynb_checkpoints/2.jpg"), b"x"))
    _, prepared, problems = prepared_with(san)
    assert (prepared.classes, prepared.total(), problems) == (("cat", "dog"), 20, {})


def test_a_class_that_train_has_not_is_refused_and_a_missing_one_is_named(san, place):  # row 24
    fill("x", class_tree("cat", "dog", prefix="train/") | class_tree("cat", "cow", start=9, prefix="val/"))
    outcome = san("prepare", "x")
    assert outcome.code == 3
    assert "val has a class that train has not: cow" in outcome.stderr
    shutil.rmtree("x/val/cow")
    assert "val has no images of dog" in prepared_with(san)[0].stderr


def test_classes_that_are_numbers_keep_their_names(san, place):  # row 26
    fill("x", class_tree(*map(str, range(12))))
    prepared = prepared_with(san)[1]
    assert sorted(prepared.classes, key=int) == [str(i) for i in range(12)]
    for sample in prepared.samples("train"):
        assert sample.path.parent.name == prepared.classes[sample.label]


@pytest.mark.parametrize(("one", "other"), [("Cats", "cats"), ("caf\u00e9", "cafe\u0301"), ("dog", "dog ")])
def test_classes_that_some_disks_take_for_one_are_refused_with_both(san, place, one, other):  # row 27
    fill("x", class_tree(one, other, "eel"))
    outcome = san("prepare", "x")
    assert outcome.code == 3
    assert ascii(one).replace("\\", "\\\\") in outcome.stderr.replace("\\", "\\\\")
    assert ascii(other).replace("\\", "\\\\") in outcome.stderr.replace("\\", "\\\\")


def test_one_image_in_train_and_val_is_a_leak(san, place):  # row 28
    tree = class_tree("cat", "dog", prefix="train/") | class_tree("cat", "dog", start=50, prefix="val/")
    fill("x", tree | {"val/cat/same.png": 0})
    outcome, prepared, problems = prepared_with(san)
    assert "2 files are byte-identical in train and val" in outcome.stderr
    assert problems["train/cat/0.png"][1] == "dropped"
    assert problems["val/cat/same.png"][1] == "kept"
    assert prepared.manifest.counts == {"train": {"cat": 3, "dog": 4}, "val": {"cat": 5, "dog": 4}}


def test_links_end_are_named_and_stay_inside(san, place):  # row 29
    fill("x", PETS)
    fill("outside", {"secret.png": 4242})
    links = {
        "cat/loop.png": "loop.png",
        "cat/around": "../..",
        "cat/up": "..",
        "cat/nothing.png": "missing.png",
        "cat/passwd.png": "/etc/passwd",
        "cat/secret.png": "../../outside/secret.png",
        "cat/dev.png": "/dev/zero",
    }
    for name, target in links.items():
        (place / "x" / name).symlink_to(target)
    (place / "x/dog/again.png").symlink_to("../cat/0.png")  # to a file inside: an image like any other
    _, prepared, problems = prepared_with(san)
    assert set(links) < set(problems)
    assert all(action == "skipped" for name, (_, action) in problems.items() if name in links)
    assert problems["dog/again.png"][0].startswith("contradictory label")
    assert prepared.total() == 19
    assert picture(4242) not in contents("data").values()


def test_fifos_sockets_and_folders_named_as_images_hold_nothing_up(san, place):  # row 30
    fill("x", PETS)
    os.mkfifo("x/cat/fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x/cat/socket.jpg")
    Path("x/cat/folder.jpg").mkdir()
    _, prepared, problems = prepared_with(san)
    assert problems == {
        "cat/fifo.jpg": ("not a regular file", "skipped"),
        "cat/socket.jpg": ("not a regular file", "skipped"),
    }
    assert prepared.total() == 20


def test_locked_files_and_folders_are_skipped_by_name(san, unprivileged):  # row 31
    fill("x", PETS | {"cat/locked/1.png": 900})
    Path("x/cat/0.png").chmod(0)
    Path("x/cat/locked").chmod(0)
    _, prepared, problems = prepared_with(san)
    assert problems["cat/0.png"] == ("permission denied", "skipped")
    assert problems["cat/locked"] == ("folder: permission denied", "skipped")
    assert prepared.total() == 19


def test_a_locked_source_or_output_is_exit_6_before_any_work(san, unprivileged):  # row 33
    fill("x", PETS)
    Path("data").mkdir()
    Path("data").chmod(0o555)
    outcome = san("prepare", "x")
    assert outcome.code == 6
    assert "Checking images" not in outcome.stderr
    assert list(Path("data").iterdir()) == []
    Path("x").chmod(0)
    assert san("prepare", "x", "y").code == 6


HOSTILE = [
    b"-rf.png",
    b"[red]bold.png",
    b"new\nline.png",
    b"esc\x1b[31m.png",
    b"bytes\xff\xfe.png",
    b"=1+1.png",
    b'quote",comma.png',
    b"\xc2\x85next.png",
    b"a" * 251 + b".png",
    "\u00fc".encode() * 125 + b".png",
    b"x" * 251 + b".jpg",
]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_hostile_names_are_read_and_printed_escaped(san, place, monkeypatch, locale):  # row 32
    monkeypatch.setenv("LC_ALL", locale)
    fill("x", PETS)
    for number, name in enumerate(HOSTILE):
        path = os.path.join(b"x/cat", name)  # noqa: PTH118 -- names that are no text
        Path(os.fsdecode(path)).write_bytes(picture(500 + number) if number % 2 else b"broken")
    outcome, prepared, problems = prepared_with(san)
    assert prepared.total() == 20 + len(HOSTILE) // 2
    assert len(problems) == len(HOSTILE) - len(HOSTILE) // 2
    assert "\n  cat/new\\nline.png: not an image" in outcome.stderr
    assert "'-rf.png" not in problems  # it is the path in the class that is listed, and that is no formula
    for path in Path("data/x").rglob("*.*"):
        assert path.name.isprintable()
        assert len(os.fsencode(path.name)) <= 255
    json.loads(Path("data/x/dataset.json").read_text(encoding="utf-8"))
    with Path("data/x/splits.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == prepared.total()
    assert all((Path("data/x") / row["file"]).is_file() for row in table)


def test_hostile_class_names_become_safe_ones(san, place):  # row 32
    fill("x", PETS)
    for number, name in enumerate((b"-rf", b"[red]", b"es\x1bc", b"caf\xe9", b"a" * 255)):
        folder = Path(os.fsdecode(os.path.join(b"x", name)))  # noqa: PTH118 -- names that are no text
        fill(folder, {f"{i}.png": 700 + 10 * number + i for i in range(3)})
    outcome, prepared, _ = prepared_with(san)
    assert "2 class names rewritten to be safe on every disk: caf" in outcome.stderr
    assert "es\\x1bc becomes es_c." in outcome.stderr
    assert prepared.classes == ("-rf", "[red]", "a" * 255, "caf_", "cat", "dog", "es_c")
    assert prepared.is_whole()


def test_a_very_deep_tree_ends(place):
    folder = place / "x"
    for _ in range(70):
        folder = folder / "d"
    folder.mkdir(parents=True)
    found = list_folder(place / "x")
    assert [problem.problem for problem in found.problems] == ["deeper than 64 folders"]


def test_heic_is_an_image_with_its_extra_and_a_hint_without(san, place, monkeypatch):  # row 8
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    photos = {f"dog/IMG_{number}.HEIC": picture(60 * number, "HEIF", (64, 64)) for number in range(3)}
    photos["dog/renamed.jpg"] = picture(220, "HEIF", (64, 64))
    fill("x", PETS | photos)
    outcome, prepared, problems = prepared_with(san)
    assert (prepared.total(), problems) == (24, {})
    assert {path.suffix for path in Path("data/x").rglob("*MG_*")} == {".HEIC"}
    assert len([*Path("data/x").rglob("renamed.heic")]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(images, "READS_HEIC", False)
        patch.setattr(listing, "SUFFIXES", tuple(end for end in listing.SUFFIXES if end != ".heic"))
        outcome, prepared, problems = prepared_with(san, options=("--force",))
    hint = 'pip install "sancli[heic]"'
    assert f"3 files with other extensions ignored (.heic 3; HEIC is read after {hint})" in outcome.stderr
    assert [*problems] == ["dog/renamed.jpg"]
    assert hint in problems["dog/renamed.jpg"][0]
    assert prepared.total() == 20
