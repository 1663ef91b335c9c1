"""Archives in archives: opened where no image lies beside them, each as carefully as the outermost."""

import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest
from folders import add_to_tar, class_tree, contents, fill, fill_tar, fill_zip, picture

from sancli.data.preparation import archives
from sancli.data.preparation.archives import budget, list_archive, read_members, unpack
from sancli.data.preparation.layouts import Seen, recognise
from sancli.data.prepared import open_prepared
from sancli.errors import DataError

TREE = class_tree("cat", "dog")
WNIDS = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def imagenet(tmp_path):
    """A training tar of tars, one for each wnid."""
    tree = {}
    for index, wnid in enumerate(WNIDS):
        images = {f"{wnid}_{i}.JPEG": picture(100 * index + i, "JPEG") for i in range(4)}
        tree[f"{wnid}.tar"] = fill_tar(tmp_path / "inner.tar", images).read_bytes()
    return tree


def make(path, tree):
    if path.suffix == ".zip":
        return fill_zip(path, tree, compression=zipfile.ZIP_DEFLATED)
    return fill_tar(path, tree, "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}")


@pytest.mark.parametrize("name", ["train.tar", "train.tar.gz", "train.tar.xz", "train.zip"])
def test_a_tar_of_tars_is_read_under_the_names_of_both(imagenet, tmp_path, name):
    contents = list_archive(make(tmp_path / name, imagenet))
    images = [f"{wnid}.tar/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(4)]
    assert contents.listing.images == images
    assert contents.listing.folders == [f"{wnid}.tar" for wnid in WNIDS]
    assert not contents.listing.others
    files = unpack(contents, images[3:7], tmp_path)
    assert [Path(file).read_bytes() for file in files] == [
        picture(number, "JPEG") for number in (3, 100, 101, 102)
    ]


@pytest.mark.parametrize("outer", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("inner", ["b.zip", "b.tar", "b.tar.bz2"])
@pytest.mark.parametrize("innermost", ["", "c.zip", "c.tar.xz"])
def test_every_kind_in_every_kind(tmp_path, outer, inner, innermost):
    tree, prefix = TREE, ""
    for name in filter(None, (innermost, inner, outer)):
        path = make(tmp_path / name, tree)
        tree = {f"photos/{name}": path.read_bytes(), "readme.txt": b"x", ".hidden.zip": b"x"}
        prefix = f"photos/{name}/{prefix}" if name != outer else prefix
    contents = list_archive(path)
    assert contents.listing.images == [prefix + image for image in TREE]
    files = unpack(contents, contents.listing.images, tmp_path)
    assert [Path(file).read_bytes() for file in files] == [*map(picture, TREE.values())]


def test_archives_beside_images_stay_shut(tmp_path):
    inner = fill_zip(tmp_path / "b.zip", TREE).read_bytes()
    contents = list_archive(fill_zip(tmp_path / "a.zip", TREE | {"more.zip": inner}))
    assert contents.listing.images == list(TREE)
    assert contents.listing.others == {".zip": 1}


def test_small_files_are_read_from_where_they_lie(tmp_path):
    inner = fill_zip(tmp_path / "b.zip", TREE | {"labels.csv": b"name,label\n"}).read_bytes()
    contents = list_archive(fill_zip(tmp_path / "a.zip", {"b.zip": inner}))
    assert read_members(contents, ["b.zip/labels.csv"], limit=100) == {"b.zip/labels.csv": b"name,label\n"}
    with pytest.raises(DataError, match="is too large"):
        read_members(contents, ["b.zip/labels.csv"], limit=5)


def broken(words):
    return pytest.raises(DataError, match=words)


def test_faults_inside_are_named_with_both_archives(imagenet, tmp_path):
    cut = imagenet | {"n01443537.tar": imagenet["n01443537.tar"][:5000]}
    with broken(r"n01443537.tar in .*train.tar is cut off or damaged"):
        list_archive(fill_tar(tmp_path / "train.tar", cut))
    with broken(r"n01443537.tar in .*train.zip is neither a zip nor a tar"):
        list_archive(fill_zip(tmp_path / "train.zip", imagenet | {"n01443537.tar": b"<html>"}))
    with tarfile.open(tmp_path / "inner.tar", "a") as archive:
        add_to_tar(archive, "../x.JPEG", picture(1))
    evil = {"n01484850.tar": (tmp_path / "inner.tar").read_bytes()}
    with broken(r"unsafe member '../x.JPEG' in n01484850.tar in .*train.tar"):
        list_archive(fill_tar(tmp_path / "train.tar", imagenet | evil))


@pytest.mark.parametrize("outer", ["a.zip", "a.tar", "a.tar.gz"])
def test_bombs_inside_count_against_the_outermost(tmp_path, monkeypatch, outer):
    monkeypatch.setattr(budget, "FREE_EXPANSION", 2**21)
    bomb = {"cat/1.png": bytes(2**21 - 2**16)}
    inner = fill_zip(tmp_path / "b.zip", bomb, compression=zipfile.ZIP_DEFLATED).read_bytes()
    contents = list_archive(make(tmp_path / outer, {f"{i}.zip": inner for i in range(2)}))
    with broken("expands past 2.0 MiB"):
        unpack(contents, contents.listing.images, tmp_path)


def test_a_zip_cut_off_behind_one_inside_it_is_not_that_one(tmp_path):
    inner = fill_zip(tmp_path / "b.zip", TREE).read_bytes()
    path = fill_zip(tmp_path / "a.zip", {"1.zip": inner, "2.zip": inner})
    path.write_bytes(path.read_bytes()[: 2 * len(inner) + 70])
    with broken("the table of an archive inside it"):
        list_archive(path)


def test_a_zip_behind_a_program_is_read(tmp_path):
    path = fill_zip(tmp_path / "a.exe", TREE)
    path.write_bytes(b"MZ" + b"\x90" * 3000 + path.read_bytes())
    assert list_archive(path).listing.images == list(TREE)


def test_a_bomb_of_bombs_ends(tmp_path, monkeypatch):
    data = bytes(2**22)
    for _ in range(6):
        data = fill_tar(tmp_path / "x.tar.gz", {"x.tar.gz": data}, "w:gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data)
    assert list_archive(tmp_path / "a.tar.gz").listing.others == {".gz": 1}
    monkeypatch.setattr(archives, "MAX_NESTING", 10)
    with broken("is neither a zip nor a tar"):
        list_archive(tmp_path / "a.tar.gz")


def test_a_change_between_two_looks_is_noticed(tmp_path):
    contents = list_archive(fill_tar(tmp_path / "a.tar", TREE))
    fill_tar(tmp_path / "a.tar", dict(list(TREE.items())[:5]))
    with broken("was there a moment ago"):
        unpack(contents, contents.listing.images, tmp_path)
    fill_tar(tmp_path / "a.tar", dict.fromkeys(TREE, b"x"))
    unpack(contents, contents.listing.images[:1], tmp_path)  # its own size is what it has to have


def layout_of(path):
    """Name of the layout, and (split, class) of the images."""
    found = recognise(Seen(list_archive(path).listing))
    return found.name, sorted({(image.split or "", image.label or "") for image in found.images})


def test_archives_named_for_classes_and_splits_lose_their_endings(tmp_path):
    inner = {
        name: fill_tar(tmp_path / "x.tgz", {f"{i}.png": i for i in range(3)}, "w:gz").read_bytes()
        for name in ("cat.tar.gz", "dog.TGZ")
    }
    assert layout_of(fill_zip(tmp_path / "a.zip", inner)) == ("folders", [("", "cat"), ("", "dog")])
    splits = {f"{name}.zip": fill_zip(tmp_path / "x.zip", TREE).read_bytes() for name in ("train", "valid")}
    both = [(split, name) for split in ("train", "val") for name in ("cat", "dog")]
    assert layout_of(fill_zip(tmp_path / "b.zip", splits)) == ("splits", both)
    intel = {f"seg_{name}.zip": data for name, data in zip(("train", "test"), splits.values(), strict=True)}
    assert layout_of(fill_zip(tmp_path / "c.zip", intel))[0] == "intel"


def test_a_lone_wrapper_is_no_class(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inner = gzip.compress(fill_tar("inner.tar", TREE).read_bytes())
    outcome = san("prepare", fill_zip("pets.zip", {"photos/pets.tar.gz": inner}))
    assert outcome.code == 0, outcome.stderr
    assert "2 classes: cat, dog" in outcome.stderr


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder, *names):
    """Photos whose names are numbers, or begin with a label."""
    return {f"{folder}/{name}.jpg": picture(37 * at, "JPEG", (16, 16)) for at, name in enumerate(names)}


def test_archives_in_a_folder_are_one_source_with_the_tables_beside_them(san, place):
    table = "image_name,label\n" + "".join(f"{i}.jpg,{i % 2}\n" for i in range(20))
    fill("comp", {"train.csv": table.encode()})
    fill_zip("comp/train.zip", photos("train", *range(20)))
    fill_tar("comp/test.tar.gz", photos("test", *range(100, 105)), "w:gz")
    outcome = san("prepare", "comp")
    assert outcome.code == 0, outcome.stderr
    assert "comp holds no images but 2 archives: test.tar.gz, train.zip\n" in outcome.stderr
    prepared = open_prepared(place / "data/comp")
    assert (prepared.manifest.layout, prepared.manifest.source["kind"]) == ("csv", "archives")
    assert (prepared.total(), len(prepared.unlabelled())) == (20, 5)
    assert "nothing to do" in san("prepare", "comp").stderr
    fill_zip("comp/train.zip", photos("train", *reversed(range(20))))
    assert "why: the source has changed since." in san("prepare", "comp").stderr


def test_archives_in_a_folder_may_be_splits_classes_wnids_or_hold_named_files(san, place):
    named = [f"{label}.{number}" for label in ("cat", "dog") for number in range(10)]
    for folder, archive_trees, layout, counts in (
        ("s", {"train": class_tree("a", "b"), "test1": class_tree("a", "b", start=90)}, "splits", (8, 8)),
        ("c", {"a": photos("x", *range(8)), "b": photos("y", *range(8))}, "folders", (16, 0)),
        ("n", {"train": photos("train", *named), "test1": photos("test1", *range(5))}, "names", (20, 0)),
    ):
        for name, tree in archive_trees.items():
            (place / folder).mkdir(exist_ok=True)
            fill_zip(f"{folder}/{name}.zip", tree)
        outcome = san("prepare", folder, "--val", "0", "--duplicates", "off")
        assert outcome.code == 0, outcome.stderr
        prepared = open_prepared(place / "data" / folder)
        assert prepared.manifest.layout == layout
        assert (prepared.total("train"), prepared.total("test")) == counts


def test_the_only_archive_of_a_folder_is_the_source(san, place):
    fill("Downloads", {"bill.pdf": b"%PDF"})
    fill_zip("Downloads/pets.zip", TREE)
    assert san("prepare", "Downloads").code == 0
    assert san("prepare", "Downloads/pets.zip", "again").code == 0
    assert contents("data/pets") == contents("again")
    assert "lie in each other" in san("prepare", "Downloads", "Downloads/data/pets").stderr


def test_several_data_sets_in_a_folder_are_not_mixed(san, place):
    (place / "two").mkdir()
    fill_zip("two/pets.zip", TREE)
    fill_zip("two/cars.zip", class_tree("vw", "opel", start=7000))
    outcome = san("prepare", "two")
    assert outcome.code == 3
    assert "the 2 archives in two look like data sets, not like classes." in outcome.stderr
    assert "san prepare two/cars.zip" in outcome.stderr
    fill("two", {"broken.zip": b"PK\x03\x04"})
    outcome = san("prepare", "two")
    assert (outcome.code, "Error: two/broken.zip is cut off or damaged" in outcome.stderr) == (3, True)
    assert not (place / "data").exists()
