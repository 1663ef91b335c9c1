"""Zips: nothing unsafe is unpacked, nothing damaged is taken for whole, and what a file really is is said."""

import stat
import struct
import zipfile

import pytest
from folders import class_tree, contents, fill_zip, picture

TREE = class_tree("cat", "dog")


@pytest.fixture
def refused(san, tmp_path, monkeypatch):
    """Prepares the zip in an empty folder; gives the words of exit 3, and nothing may have been written."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(path, code=3):
        before = contents(tmp_path)
        outcome = san("prepare", path)
        assert outcome.code == code, outcome.stderr
        assert contents(tmp_path) == before
        assert [*work.rglob("*.partial"), *work.rglob("*.png")] == []
        assert "Traceback" not in outcome.stderr
        return outcome.stderr

    return run


@pytest.mark.parametrize(
    "name",
    [
        "../../x.png",
        "/tmp/x.png",
        "cat/../../x.png",
        "C:/x.png",
        "..\\x.png",
        "cat\\1.png",
        "\\\\host\\x.png",
    ],
)
def test_members_that_lead_out_are_refused_by_name(refused, tmp_path, name):
    words = refused(fill_zip(tmp_path / "a.zip", TREE | {name: 1}))
    assert "unsafe member" in words
    assert name.replace("\\", "\\\\") in words
    assert "nothing was written" in words


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused(refused, tmp_path, kind):
    path = fill_zip(tmp_path / "a.zip", TREE)
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("cat/link.png")
        member.external_attr = (kind | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    assert "a link or a device" in refused(path)


def test_setuid_bits_are_dropped(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name, number in TREE.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFREG | stat.S_ISUID | 0o777) << 16
            archive.writestr(member, picture(number))
    assert san("prepare", "a.zip").code == 0
    assert all(path.stat().st_mode & 0o6111 == 0 for path in (tmp_path / "data").rglob("*.png"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat/1.png", "cat/1.png"), ("cat/a.png", "cat/A.png"), ("cat/caf\u00e9.png", "cat/cafe\u0301.png")],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_with_one_name_on_some_disk_are_refused_with_both(refused, tmp_path, one, other):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate((one, other, "dog/1.png")):
            archive.writestr(name, picture(number))
    words = refused(tmp_path / "a.zip")
    assert ascii(one) in words
    assert ascii(other) in words


def patched(path, *, flag=None, method=None):
    """Changes a field of every header, local and central, of a zip."""
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(mark)
        while start >= 0:
            if flag is not None:
                data[start + at] |= flag
            if method is not None:
                data[start + at + 2 : start + at + 4] = struct.pack("<H", method)
            start = data.find(mark, start + 4)
    path.write_bytes(data)
    return path


def test_encrypted_and_strangely_packed_members_are_named(refused, tmp_path):
    assert "encrypted" in refused(patched(fill_zip(tmp_path / "a.zip", TREE), flag=1))
    assert "method 99" in refused(patched(fill_zip(tmp_path / "b.zip", TREE), method=99))


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_zip_cut_short_is_damaged(refused, tmp_path, keep):
    path = fill_zip(tmp_path / "a.zip", TREE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert "a.zip is cut off or damaged" in refused(path)


@pytest.mark.parametrize("place", [28, 30, 32])  # of the lengths of a name, an extra field and a comment
def test_a_wrong_length_in_the_table_of_contents_loses_no_member(refused, tmp_path, place):
    path = fill_zip(tmp_path / "a.zip", TREE)
    data = bytearray(path.read_bytes())
    for high in (0, 1):  # a little too far, and beyond the end
        changed = bytearray(data)
        changed[data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1) + place + high] ^= 4
        path.write_bytes(changed)
        assert "cut off or damaged" in refused(path)


def test_a_flipped_bit_is_found_by_its_member(refused, tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = fill_zip(tmp_path / "a.zip", TREE, compression=compression)
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            at = archive.getinfo("dog/2.png").header_offset
        data[at + 30 + len("dog/2.png") + 20] ^= 16
        path.write_bytes(data)
        assert "dog/2.png" in refused(path)


def test_a_name_that_was_damaged_does_not_hide_an_image(refused, tmp_path):
    path = fill_zip(tmp_path / "a.zip", TREE)
    data = path.read_bytes()
    at = data.rfind(b"dog/2.png")
    path.write_bytes(data[: at + 8] + b"f" + data[at + 9 :])
    assert "'dog/2.pnf' has another name where it stands" in refused(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>Quota exceeded", "looks like HTML"),
        (b"", "an empty file"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(50), "looks like RAR"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "looks like 7-Zip"),
        (b"\x1f\x8b\x08" + bytes(50), "a.zip is cut off or damaged"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "looks like zstd"),
        (bytes(500), "looks like nothing but zeros"),
        (b"\1" * 500, "looks like nothing known"),
    ],
)
def test_what_is_no_zip_is_named_for_what_it_is(refused, tmp_path, data, words):
    (tmp_path / "a.zip").write_bytes(data)
    assert words in refused(tmp_path / "a.zip")


def test_a_bomb_is_stopped_before_it_is_unpacked(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, number in TREE.items():
            archive.writestr(name, picture(number))
        archive.writestr("cat/bomb.png", bytes(150 * 2**20))
    assert "expands past 100.0 MiB" in refused(tmp_path / "a.zip")


def test_a_header_that_lies_about_the_size_is_found_by_counting(refused, tmp_path):
    path = fill_zip(
        tmp_path / "a.zip", TREE | {"cat/bomb.png": bytes(2**20)}, compression=zipfile.ZIP_DEFLATED
    )
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02", data.rfind(b"cat/bomb.png") - 60)
    data[at + 24 : at + 28] = struct.pack("<I", 10)  # uncompressed size in the table of contents
    path.write_bytes(data)
    assert "cat/bomb.png" in refused(path)


def test_what_is_no_archive_gets_the_way_out_that_fits(refused, tmp_path):
    for name, data, words in (
        ("photo.jpg", picture(1, "JPEG"), "for one image: san predict "),
        ("labels.csv", b"image,label\n", "a table of their labels goes to --labels"),
        ("a.zip", b"<html>404", "download it again"),
        ("a.rar", b"Rar!\x1a\x07\0", "unpack it"),
    ):
        (tmp_path / name).write_bytes(data)
        assert words in refused(tmp_path / name).splitlines()[-1]


def test_many_empty_members_are_no_images(refused, tmp_path):
    words = refused(fill_zip(tmp_path / "a.zip", {f"a/{i}.txt": b"" for i in range(5000)}))
    assert ".txt 5,000" in words


def test_count_in_is_count_out(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ghosts = {"__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x", "notes.txt": b"x"}
    fill_zip("a.zip", TREE | ghosts)
    outcome = san("prepare", "a.zip", "--val", "0.25")
    assert outcome.code == 0, outcome.stderr
    written = list((tmp_path / "data" / "a").rglob("*.png"))
    assert sorted(path.read_bytes() for path in written) == sorted(map(picture, TREE.values()))
    assert written[0].stat().st_nlink == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


def test_links_cannot_be_made_to_members(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill_zip("a.zip", TREE)
    assert san("prepare", "a.zip", "--link", "sym").code == 2
