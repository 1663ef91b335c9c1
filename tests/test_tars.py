"""Tars, packed and not: read to their end, and refused where tarfile would say nothing."""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import time
import zlib

import pytest
from folders import add_to_tar, class_tree, contents, fill_tar, picture

from sancli.data.preparation.archives import budget, list_archive
from sancli.data.prepared import open_prepared

TREE = class_tree("cat", "dog")
MODES = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}
BLOCK = 512


@pytest.fixture
def refused(san, tmp_path, monkeypatch):
    """Prepares the archive in an empty folder; gives the words of exit 3; nothing may be written."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(path):
        before = contents(tmp_path)
        outcome = san("prepare", path)
        assert outcome.code == 3, outcome.stderr
        assert contents(tmp_path) == before
        assert [*work.rglob("*.partial"), *work.rglob("*.png")] == []
        assert "Traceback" not in outcome.stderr
        return outcome.stderr

    return run


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_tar_is_read(san, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    fill_tar(
        name, {f"./{path}": number for path, number in TREE.items()} | {"cat/.DS_Store": b"x"}, MODES[name]
    )
    outcome = san("prepare", name, "--val", "0.25")
    assert outcome.code == 0, outcome.stderr
    found = open_prepared(tmp_path / "data/a")
    assert found.manifest.counts == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 1, "dog": 1}}
    assert found.manifest.source["kind"] == name.partition(".")[2]
    written = [path.read_bytes() for path in (tmp_path / "data/a").rglob("*.png")]
    assert sorted(written) == sorted(map(picture, TREE.values()))
    assert "nothing to do" in san("prepare", name, "--val", "0.25").stderr


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_that_are_no_ascii_are_read_in_every_format(san, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    long = {f"{'x' * 120}/caf\u00e9/{'y' * 90}/{name}": number for name, number in TREE.items()}
    fill_tar("a.tar", long, format=form)
    assert san("prepare", "a.tar").code == 0
    assert open_prepared(tmp_path / "data/a").classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["../../x.png", "/tmp/x.png", "cat/../../x.png", "C:/x.png", "cat\\1.png"])
def test_members_that_lead_out_are_refused_by_name(refused, tmp_path, name):
    words = refused(fill_tar(tmp_path / "a.tar.gz", TREE | {name: 1}, "w:gz"))
    assert "unsafe member" in words
    assert name.replace("\\", "\\\\") in words


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"Z"])
def test_links_and_devices_are_refused(refused, tmp_path, kind):
    path = fill_tar(tmp_path / "a.tar", TREE)
    with tarfile.open(path, "a") as archive:
        add_to_tar(archive, "cat/link.png", type=kind, linkname="../../../etc/passwd")
    assert "unsafe member 'cat/link.png'" in refused(path)


def test_a_chain_of_links_is_refused_at_the_first(refused, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add_to_tar(archive, "cat", type=tarfile.SYMTYPE, linkname="..")
        add_to_tar(archive, "cat/up", type=tarfile.SYMTYPE, linkname="..")
        add_to_tar(archive, "cat/up/1.png", picture(1))
    assert "unsafe member 'cat'" in refused(tmp_path / "a.tar")


def test_modes_of_members_are_dropped(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open("a.tar", "w") as archive:
        for name, number in TREE.items():
            add_to_tar(archive, name, picture(number), mode=stat.S_ISUID | stat.S_ISGID | 0o777)
    assert san("prepare", "a.tar").code == 0
    assert all(path.stat().st_mode & 0o6111 == 0 for path in (tmp_path / "data").rglob("*.png"))


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat/1.png", "./cat/1.png"), ("cat/a.png", "cat/A.png"), ("cat/caf\u00e9.png", "cat/cafe\u0301.png")],
)
def test_members_with_one_name_on_some_disk_are_refused_with_both(refused, tmp_path, one, other):
    words = refused(fill_tar(tmp_path / "a.tar", {one: 1, other: 2, "dog/1.png": 3}))
    assert ascii(one) in words
    assert "have one name" in words


def cut_between_members(path):
    """The place behind the fifth member."""
    with tarfile.open(path) as archive:
        return archive.getmembers()[5].offset


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_cut_between_members_is_no_whole_one(refused, tmp_path, mode):
    data = fill_tar(tmp_path / "whole.tar", TREE).read_bytes()[: cut_between_members(tmp_path / "whole.tar")]
    (tmp_path / "a.tar").write_bytes(gzip.compress(data) if mode == "w:gz" else data)
    assert "it ends without the mark of its end" in refused(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7])
def test_a_tar_cut_anywhere_is_damaged(refused, tmp_path, name, keep):
    path = fill_tar(tmp_path / name, class_tree("cat", "dog", count=12), MODES[name])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    words = refused(path)
    assert f"{name} is cut off or damaged" in words or "neither a zip nor a tar" in words


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_wrong_checksum_is_found(refused, tmp_path, name):
    path = fill_tar(tmp_path / name, TREE, MODES[name])
    data = bytearray(path.read_bytes())
    data[-5 if name == "a.tar.gz" else len(data) // 2] ^= 16  # the sum that gzip ends with
    path.write_bytes(data)
    assert f"{name} is cut off or damaged" in refused(path)


def test_a_damaged_header_in_the_middle_is_not_the_end(refused, tmp_path):
    path = fill_tar(tmp_path / "a.tar", TREE)
    at, data = cut_between_members(path), bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert f"there is no header at byte {at:,}" in refused(path)


def test_a_damaged_first_header_is_a_damaged_tar(refused, tmp_path):
    path = fill_tar(tmp_path / "a.tar", TREE)
    path.write_bytes(b"d" + path.read_bytes()[1:])
    assert "the header of its first member is damaged" in refused(path)


@pytest.mark.parametrize("name", ["BZh9/1.png", "BM/1.png", "Rar!/1.png"])
def test_a_first_name_that_begins_as_another_format(tmp_path, name):
    path = fill_tar(tmp_path / "a.tar", {name: 1} | TREE)
    assert list_archive(path).listing.images[0] == name


def test_what_follows_the_end_is_not_passed_over(refused, tmp_path):
    one, other = fill_tar(tmp_path / "1.tar", TREE), fill_tar(tmp_path / "2.tar", {"cow/1.png": 9})
    (tmp_path / "a.tar").write_bytes(one.read_bytes() + other.read_bytes())
    assert "more follows behind its end" in refused(tmp_path / "a.tar")


def test_streams_in_a_row_are_one_archive(san, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = fill_tar("b.tar", TREE).read_bytes()
    parts = [gzip.compress(data[i : i + 3000]) for i in range(0, len(data), 3000)]
    (tmp_path / "a.tar.gz").write_bytes(b"".join(parts) + bytes(100))
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(data[:5000]) + bytes(8) + lzma.compress(data[5000:]))
    assert san("prepare", "a.tar.gz", "one").code == 0
    assert san("prepare", "a.tar.xz", "two").code == 0
    (tmp_path / "a.tar.gz").write_bytes(b"".join(parts) + b"more")
    assert san("prepare", "a.tar.gz", "three").code == 3


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_bombs_are_stopped_by_what_comes_out(refused, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(budget, "FREE_EXPANSION", 2**20)
    tree = TREE | {f"cat/{i}.bin": bytes(2**20 // 8) for i in range(100)}
    assert "expands past" in refused(fill_tar(tmp_path / "a.tar", tree, mode))


def test_a_bomb_in_one_member_is_stopped_at_its_header(refused, tmp_path):
    info = tarfile.TarInfo("cat/bomb.png")
    info.size = 2**40
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf() + bytes(10**6)))
    assert "expands past 100.0 MiB" in refused(tmp_path / "a.tar.gz")
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(10**6))
    refused(tmp_path / "a.tar")


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = size if isinstance(size, bytes) else tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    data[148:156] = b"%06o\0 " % (256 + sum(data[:148]) + sum(data[156:]))
    return bytes(data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        header("a.png", -1000) + bytes(4 * BLOCK),  # CVE-2025-8194
        header("a.png", -BLOCK) * 3,
        header("pax", 10**9, tarfile.XHDTYPE) + bytes(10**6),
        header("pax", 2**15, tarfile.XHDTYPE) + b"2 " * 2**14 + header("a.png", 0),  # fills the memory
        header("pax", 2**15, tarfile.XHDTYPE) + b"1" * 2**15 + header("a.png", 0),  # CVE-2024-6232
        header("long", 2**20, tarfile.GNUTYPE_LONGNAME) + b"x" * 2**20,
        header("long", BLOCK, tarfile.GNUTYPE_LONGNAME) + b"x" * BLOCK,
        b"".join(header("pax", 0, tarfile.XHDTYPE) for _ in range(5000)),
        header("s.png", 0, tarfile.GNUTYPE_SPARSE),
    ],
)
def test_headers_that_hang_or_fill_tarfile_are_refused_at_once(refused, tmp_path, data, packed):
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(data) if packed else data)
    began = time.process_time()
    refused(path)
    assert time.process_time() - began < 1


def test_sizes_of_the_pax_format_are_held_to(refused, tmp_path):
    for size in (b"-700", b"99999999999999"):
        record = b" size=" + size + b"\n"
        record = str(len(record) + 2).encode() + record
        data = header("pax", len(record), tarfile.XHDTYPE) + record.ljust(BLOCK, b"\0") + header("a.png", 5)
        (tmp_path / "a.tar").write_bytes(data + bytes(BLOCK * 4))
        refused(tmp_path / "a.tar")


@pytest.mark.parametrize("packer", [gzip.compress, lzma.compress])
def test_a_packed_file_that_is_no_tar_is_said(refused, tmp_path, packer):
    (tmp_path / "a.tar.gz").write_bytes(packer(b"name,label\n" * 200))
    assert "with no tar inside" in refused(tmp_path / "a.tar.gz")


def test_twenty_thousand_empty_members_are_quickly_no_images(refused, tmp_path):
    model, data = bytearray(tarfile.TarInfo("00000.txt").tobuf(tarfile.USTAR_FORMAT)), io.BytesIO()
    total = 256 + sum(model[5:148]) + sum(model[156:])
    for number in range(20_000):
        model[:5] = b"%05d" % number
        model[148:156] = b"%06o\0 " % (total + sum(model[:5]))
        data.write(model)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data.getvalue() + bytes(2 * BLOCK), 1))
    assert ".txt 20,000" in refused(tmp_path / "a.tar.gz")


def test_an_xz_that_asks_for_too_much_memory_is_refused(refused, tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
    data = bytearray(lzma.compress(fill_tar(tmp_path / "b.tar", TREE).read_bytes(), filters=filters))
    data[12 + 4] = 40  # the size of the dictionary in the header of the block: 4 GiB
    data[12 + 8 : 12 + 12] = struct.pack("<I", zlib.crc32(bytes(data[12 : 12 + 8])))
    (tmp_path / "a.tar.xz").write_bytes(data)
    assert "a.tar.xz is cut off or damaged" in refused(tmp_path / "a.tar.xz")
