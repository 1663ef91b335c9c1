"""Archives that are broken, odd or evil in as many ways as one can think of, made by chance."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

PACK: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gz": (gzip.compress, gzip.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "xz": (lzma.compress, lzma.decompress),
}
NAMES = (
    *("../x.png", "/x.png", "C:/x.png", "a\\..\\x.png", "a/../../x.png", "", ".", "..", "./", "a/./b.png"),
    *("cat/1.png", "CAT/1.PNG", "caf\u00e9.png", "cafe\u0301.png", "a" * 300 + ".png", "a/" * 80 + "x.png"),
    *(
        "new\nline.png",
        "\x1b[31m.png",
        "nul\0.png",
        "x.tar",
        "x.zip",
        "\udcff.png",
        "-rf.png",
        "__MACOSX/x.png",
    ),
)
NUMBERS = (0, 1, 7, 511, 512, 513, 2**16, 2**31, 2**32 - 1, 2**33, 2**62, -1, -511, -512, -(2**40))
TAR_FIELDS = ((124, 12), (100, 8), (136, 12), (108, 8))
"""Where size, mode, time and owner stand in a header, and how long they are."""
ZIP_FIELDS = ((6, 8, 2), (8, 10, 2), (14, 16, 4), (18, 20, 4), (22, 24, 4), (26, 28, 2), (28, 30, 2))
"""Where flags, method, checksum, sizes and lengths stand in the two headers, and how long they are."""
Files = dict[str, bytes]


@dataclass
class Case:
    """An archive, and what is known of it."""

    data: bytes
    suffix: str
    files: Files | None
    """What has to be in it where it is accepted; None: nobody knows."""


def contents(draw: random.Random) -> Files:
    """A few files of sizes around those of blocks."""
    sizes = [draw.choice((0, 1, 100, 511, 512, 513, 1500, 9000)) for _ in range(draw.randint(1, 6))]
    return {f"{'cat' if i % 2 else 'dog'}/{i}.png": draw.randbytes(size) for i, size in enumerate(sizes)}


def make_tar(draw: random.Random, files: Files) -> bytes:
    """A tar, in any of the formats; now and then with long names."""
    out = io.BytesIO()
    form = draw.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = draw.choice((0, 1.5)) if form == tarfile.PAX_FORMAT else 0
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_zip(draw: random.Random, files: Files) -> bytes:
    """A zip, by any of the methods."""
    out = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, draw.choice(methods))
    return out.getvalue()


def make(draw: random.Random, files: Files) -> tuple[bytes, str]:
    """An archive of any kind, and its ending."""
    if (kind := draw.choice(("zip", "tar", *PACK))) == "zip":
        return make_zip(draw, files), ".zip"
    data = make_tar(draw, files)
    return (PACK[kind][0](data), f".tar.{kind}") if kind in PACK else (data, ".tar")


def damage(draw: random.Random, data: bytes) -> bytes:
    """The bytes with a few changes of any kind."""
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randint(0, len(data)) for _ in range(2))
        match draw.randrange(6):
            case 0:
                data = data[:at] + draw.randbytes(draw.randint(1, 20)) + data[at:]
            case 1:
                data = data[:at] + data[min(end, at + draw.choice((1, 4, 512, 1024))) :]
            case 2 if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([draw.choice((0, 255, draw.randrange(256)))]) + data[at + 1 :]
            case 3:
                data = data[:end] + data[at:end] * draw.choice((1, 1, 30)) + data[end:]
            case 4:
                data = data[:at] + bytes(draw.choice((4, 512, 1024))) + data[at:]
            case _:
                data = data[: max(at, 1)]
        data = data[: 2**20]
    return data


def rewrite_tar(draw: random.Random, data: bytes) -> bytes:
    """A tar with a field of one header changed, and the header's sum right."""
    blocks = bytearray(data)
    starts = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return data
    at = draw.choice(starts)
    match draw.randrange(4):
        case 0:
            blocks[at + 156] = draw.choice(b"0123456789xgXLKSVDMAZ\0\xff")
        case 1:
            blocks[at : at + 100] = (
                draw.choice(NAMES).encode("utf-8", "surrogateescape")[:100].ljust(100, b"\0")
            )
        case 2:
            start, width = draw.choice(TAR_FIELDS)
            number = tarfile.itn(draw.choice(NUMBERS) % 2**55 * draw.choice((1, -1)), 12, tarfile.GNU_FORMAT)
            blocks[at + start : at + start + width] = number[-width:]
            blocks[at + start] = draw.choice((number[0], 0x80, 0xFF, 0x30))
        case _:
            start = at + 512 + draw.randrange(100)
            text = draw.choice(
                (b"30 size=-1\n", b"22 path=../x.png\n", b"2 " * 200, b"9" * 400, b"18 GNU.sparse.size=9\n")
            )
            blocks[start : start + len(text)] = text
            del blocks[len(data) :]
    head = blocks[at : at + 512]
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:]))
    blocks[at : at + 512] = head
    return bytes(blocks)


def rewrite_zip(draw: random.Random, data: bytes) -> bytes:
    """A zip with fields of its headers changed, in both places or in one."""
    blocks = bytearray(data)
    field = draw.choice(
        ((6, 8, 2), (8, 10, 2), (14, 16, 4), (18, 20, 4), (22, 24, 4), (26, 28, 2), (28, 30, 2))
    )
    value = (draw.choice(NUMBERS) % 2 ** (8 * field[2])).to_bytes(field[2], "little")
    for mark, offset in ((b"PK\x03\x04", field[0]), (b"PK\x01\x02", field[1])):
        at = data.find(mark, draw.randrange(max(1, len(data) // 2)))
        if at >= 0 and draw.random() < 0.7:
            blocks[at + offset : at + offset + field[2]] = value
    if draw.random() < 0.4 and (at := data.find(b"PK\x01\x02")) >= 0:
        place = draw.choice((38, 42))  # what kind of file it is; where it stands
        blocks[at + place : at + place + 4] = struct.pack("<I", draw.choice((0, 0xA1FF0000, 0x21FF0000, 60)))
    return bytes(blocks)


def deep(draw: random.Random, data: bytes, suffix: str) -> bytes:
    """Changes what is inside, and packs it again; sums are right."""
    kind = suffix.rpartition(".")[2]
    if kind in PACK:
        pack, unpack_ = PACK[kind]
        inner = unpack_(data)
        return pack(draw.choice((rewrite_tar, damage))(draw, inner))
    return rewrite_zip(draw, data) if kind == "zip" else rewrite_tar(draw, data)


def hostile(draw: random.Random) -> tuple[bytes, str]:
    """A well-formed archive with names and kinds of members that nobody wants."""
    files = contents(draw) | {
        draw.choice(NAMES): b"x" * draw.randrange(600) for _ in range(draw.randint(1, 3))
    }
    if draw.random() < 0.5:
        return make_zip(
            draw, {name or "x": data for name, data in files.items() if name.isprintable()}
        ), ".zip"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type = draw.choice((b"0", b"0", b"0", *(b"%d" % kind for kind in range(1, 8))))
            info.size, info.linkname = len(data) if info.isreg() else 0, draw.choice(NAMES).replace("\0", "")
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue(), ".tar"


def case(draw: random.Random) -> Case:
    """One archive to try."""
    files = contents(draw)
    data, suffix = make(draw, files)
    if nested := draw.random() < 0.3:
        name = f"inner{suffix}"
        files = {f"{name}/{path}": content for path, content in files.items()}
        if draw.random() < 0.3:  # what is inside is at fault
            data, files = damage(draw, data), {}
        data, suffix = make(draw, {name: data, "readme.txt": b"x"})
    known = files if files or not nested else None
    match draw.randrange(7):
        case 0:
            return Case(data, suffix, known)
        case 1:
            return Case(data[: draw.randint(0, len(data))], suffix, known)
        case 2 if suffix != ".tar":
            at = draw.randrange(len(data))
            return Case(
                data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :], suffix, known
            )
        case 3 | 4:
            return Case(damage(draw, data), suffix, None)
        case 5:
            return Case(*hostile(draw), None)
        case _:
            return Case(deep(draw, data, suffix), suffix, None)
