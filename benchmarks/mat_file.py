"""Writes a meta.mat as the development kit of ImageNet has it, for its reader to be tried on."""

import struct
import zlib
from collections.abc import Iterable


def matlab(
    pairs: Iterable[tuple[int, str]], *, order: str = "<", packed: bool = True, field: str = "ILSVRC2012_ID"
) -> bytes:
    """A MAT-file of level 5 with synsets(:).ILSVRC2012_ID and .WNID, as MATLAB writes it."""
    pairs = list(pairs)

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(kind: int, dims: tuple[int, int], data: bytes, label: bytes = b"") -> bytes:
        return element(
            14,
            element(6, struct.pack(order + "II", kind, 0)) + element(5, struct.pack(order + "ii", *dims))
            + element(1, label) + data,
        )  # fmt: skip

    fields = b"".join(text.encode().ljust(32, b"\0") for text in (field, "WNID", "words"))
    small = struct.pack(order + "I", 4 << 16 | 5) + struct.pack(order + "i", 32)
    values = b"".join(
        array(6, (1, 1), element(9, struct.pack(order + "d", number)))
        + array(4, (1, 9), element(4, wnid.encode("utf-16-le" if order == "<" else "utf-16-be")))
        + array(4, (1, 3), element(16, b"cat"))
        for number, wnid in pairs
    )
    whole = array(2, (len(pairs), 1), small + element(1, fields) + values, b"synsets")
    if packed:
        data = zlib.compress(whole)
        whole = struct.pack(order + "II", 15, len(data)) + data
    return b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI") + whole
