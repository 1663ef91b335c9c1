"""--resize and the ways in which images come into a prepared folder."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from folders import class_tree, contents, fill, fill_zip
from PIL import Image

from sancli.data.images import load_image
from sancli.data.preparation import placing
from sancli.data.prepared import open_prepared


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smooth(size, seed=0):
    """A picture that can be made smaller without a loss."""
    rand = np.random.default_rng(seed)
    return Image.fromarray(rand.integers(0, 256, (4, 4, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def saved(image, image_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def photos():
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "cat/wide.jpg": saved(smooth((300, 200), 1), quality=95),
        "cat/tall.png": saved(smooth((150, 400), 2), "PNG"),
        "cat/turned.jpg": saved(smooth((240, 120), 3), exif=turned, quality=95),
        "cat/small.jpg": saved(smooth((100, 100), 4)),
        "dog/bitmap.bmp": saved(smooth((220, 110), 5), "BMP"),
        "dog/modern.webp": saved(smooth((200, 300), 6), "WEBP", quality=95),
        "dog/clear.gif": saved(smooth((128, 128), 7).quantize(), "GIF"),
        "dog/thin.png": saved(smooth((3, 900), 8), "PNG"),
        "dog/deep.png": saved(
            Image.fromarray((np.arange(40_000).reshape(200, 200)).astype(np.uint16)), "PNG"
        ),
    }


def rows(out):
    with Path(out, "splits.csv").open(newline="", encoding="utf-8") as file:
        return {row["source"]: row for row in csv.DictReader(file)}


def test_large_images_are_made_smaller_once_and_small_ones_stay(san, place):
    before = contents(fill("pets", photos()))
    outcome = san("prepare", "pets", "--resize", "100", "--val", "0", "--json")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["written"] == {"resized": 7, "copy": 2}
    found = {source: (row["file"], row["width"], row["height"]) for source, row in rows("data/pets").items()}
    assert found == {
        "cat/wide.jpg": ("train/cat/wide.jpg", "150", "100"),
        "cat/tall.png": ("train/cat/tall.png", "100", "267"),
        "cat/turned.jpg": ("train/cat/turned.jpg", "100", "200"),
        "cat/small.jpg": ("train/cat/small.jpg", "100", "100"),
        "dog/bitmap.bmp": ("train/dog/bitmap.png", "200", "100"),
        "dog/modern.webp": ("train/dog/modern.jpg", "100", "150"),
        "dog/clear.gif": ("train/dog/clear.png", "100", "100"),
        "dog/thin.png": ("train/dog/thin.png", "3", "900"),
        "dog/deep.png": ("train/dog/deep.png", "100", "100"),
    }
    for source, (file, width, height) in found.items():
        image = load_image(Path("data/pets", file))
        assert image.size == (int(width), int(height))
        wanted = load_image(Path("pets", source)).resize(image.size, Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(image, int) - np.asarray(wanted, int)).mean() < 2, source
        with Image.open(Path("data/pets", file)) as opened:
            assert opened.format == {"jpg": "JPEG", "png": "PNG"}[file[-3:]]
    assert Path("data/pets/train/cat/small.jpg").read_bytes() == before["cat/small.jpg"]
    assert contents("pets") == before
    assert all(path.stat().st_nlink == 1 for path in Path("pets").rglob("*.*"))


def test_what_was_resized_is_recorded_checked_and_not_done_twice(san, place):
    fill("pets", photos())
    fill_zip("zipped.zip", photos())
    assert san("prepare", "pets", "a", "--resize", "100").code == 0
    assert san("prepare", "zipped.zip", "b", "--resize", "100").code == 0
    manifest = open_prepared(Path("a")).manifest
    assert (manifest.options["resize"], manifest.median_short_side_px) == (100, 100)
    assert san("prepare", "--check", "a").code == san("prepare", "--check", "b").code == 0
    assert {path: content for path, content in contents("a").items() if "/" in path} == {
        path: content for path, content in contents("b").items() if "/" in path
    }
    assert Path("a/splits.csv").read_bytes() == Path("b/splits.csv").read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in Path("a").rglob("*")}
    assert "nothing to do" in san("prepare", "pets", "a", "--resize", "100").stderr
    assert {path: path.stat().st_mtime_ns for path in Path("a").rglob("*")} == stamps
    assert "--resize 100 then, 64 now" in san("prepare", "pets", "a", "--resize", "64").stderr


def test_resizing_moves_no_image_to_another_split(san, place):
    fill("pets", photos())
    for out, options in (("whole", ()), ("small", ("--resize", "64"))):
        assert san("prepare", "pets", out, "--val", "0.3", *options).code == 0
    whole, small = rows("whole"), rows("small")
    assert {source: row["split"] for source, row in whole.items()} == {
        source: row["split"] for source, row in small.items()
    }


def test_links_and_resize_do_not_go_together(san, place):
    fill("pets", photos())
    for link in ("hard", "sym", "reflink"):
        outcome = san("prepare", "pets", "--resize", "100", "--link", link)
        assert outcome.code == 2
        assert f"--resize and --link {link} do not go together" in outcome.stderr
    assert san("prepare", "pets", "--resize", "100", "--link", "copy").code == 0
    assert san("prepare", "pets", "x", "--resize", "0").code == 2


def test_a_full_disk_while_resizing_leaves_nothing(san, place, monkeypatch):
    fill("pets", photos())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        outcome = san("prepare", "pets", "--resize", "100")
    assert (outcome.code, "no space" in outcome.stderr) == (6, True)
    assert not Path("data").exists()


def test_an_image_that_vanishes_before_it_is_resized_is_named(san, place, monkeypatch):
    fill("pets", photos())
    original = placing.make_folders

    def vanish(targets, to):
        original(targets, to)
        Path("pets/cat/wide.jpg").unlink()

    monkeypatch.setattr("sancli.data.preparation.resizing.make_folders", vanish)
    outcome = san("prepare", "pets", "--resize", "100")
    assert outcome.code == 3
    assert "cat/wide.jpg cannot be read any more" in outcome.stderr
    assert not Path("data").exists()


def clone_as_xfs_does(clone, request, source):
    assert request == 0x40049409
    os.write(clone.fileno(), os.pread(source, 10**6, 0))


def refuse(*_):
    raise OSError(95, "Operation not supported")


def test_reflinks_come_before_copies_where_hard_links_cannot_be(san, place, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    before = contents(fill("pets", class_tree("cat", "dog")))
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "ioctl", clone_as_xfs_does)
    for out, options in (("a", ()), ("b", ("--link", "reflink"))):
        outcome = san("prepare", "pets", out, *options)
        assert outcome.code == 0, outcome.stderr
        assert "8 images by reflink: they share their blocks" in outcome.stderr
        assert {Path(out, row["file"]).read_bytes() for row in rows(out).values()} == set(before.values())
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert json.loads(san("prepare", "pets", "c", "--json").stdout)["written"] == {"copy": 8}
    outcome = san("prepare", "pets", "d", "--link", "reflink")
    assert outcome.code == 6
    assert "reflinks need Btrfs or XFS" in outcome.stderr
    assert not Path("d").exists()


def test_an_archive_gives_nothing_to_link_to(san, place):
    fill_zip("pets.zip", class_tree("cat", "dog"))
    assert san("prepare", "pets.zip", "--link", "reflink").code == 2
