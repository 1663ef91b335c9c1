"""The development kit's meta.mat: which wnid has which number. A MAT-file of level 5, read without scipy.

Source: MAT-File Format, The MathWorks, chapter 1 (level 5): tags, data elements, arrays.
"""

import struct
import zlib
from collections.abc import Iterator

from sancli.data.imagenet import names
from sancli.errors import DataError

HEADER_BYTES = 128
MAX_BYTES = 64 * 2**20
"""Of what is packed in it; the real one unpacks to 2 MB."""
INT8, UINT8, INT16, UINT16, INT32, UINT32, DOUBLE, MATRIX, COMPRESSED, UTF8 = 1, 2, 3, 4, 5, 6, 9, 14, 15, 16
FORMATS = {INT8: "b", UINT8: "B", INT16: "h", UINT16: "H", INT32: "i", UINT32: "I", DOUBLE: "d"}
STRUCT_CLASS = 2
IDS = ("ILSVRC2012_ID", "ILSVRC2010_ID", "ILSVRC2013_ID", "ILSVRC2014_ID", "ILSVRC2015_ID")


def read_synsets(content: bytes, name: str) -> dict[int, str]:
    """The wnid of each number from 1 to 1000.

    Args:
        content: Of the file.
        name: Of the file, for people.

    Raises:
        DataError: It is no such file, or not whole.
    """
    try:
        if content[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise ValueError("it does not begin as a MAT-file of level 5 does")
        order = "<" if content[126:128] == b"IM" else ">"
        for kind, data in _elements(content[HEADER_BYTES:], order):
            for rows in _structs(kind, data, order):
                if numbers := _numbers(rows, order):
                    return numbers
        raise ValueError("it holds no list with WNID and ILSVRC2012_ID")
    except (ValueError, IndexError, struct.error, zlib.error, OverflowError) as error:
        raise DataError(
            f"{name} is not the meta.mat of ImageNet's development kit.",
            why=f"{error}.",
            fix="take it from ILSVRC2012_devkit_t12.tar.gz again, or leave it out: san knows the numbers.",
        ) from None


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The data elements one behind the other: type and content."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # a small element: size, type and up to four bytes share the tag
            kind, size = kind & 0xFFFF, kind >> 16
            yield kind, data[place + 4 : place + 4 + size]
            place += 8
            continue
        if place + 8 + size > len(data):
            raise ValueError("it is cut off")
        yield kind, data[place + 8 : place + 8 + size]
        place += 8 + size + (-size % 8 if kind != COMPRESSED else 0)


def _structs(kind: int, data: bytes, order: str) -> Iterator[list[dict[str, bytes]]]:
    """The arrays of structs in an element, as rows of {field: its array}."""
    if kind == COMPRESSED:
        unpacker = zlib.decompressobj()
        whole = unpacker.decompress(data, MAX_BYTES)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ValueError("it is cut off, or holds more than such a file ever does")
        for inner, content in _elements(whole, order):
            yield from _structs(inner, content, order)
    elif kind == MATRIX:
        parts = [content for _, content in _elements(data, order)]
        if len(parts) > 5 and struct.unpack_from(order + "I", parts[0])[0] & 0xFF == STRUCT_CLASS:
            (length,) = struct.unpack_from(order + "i", parts[3])
            if length <= 0:
                raise ValueError("its fields have no names")
            labels = [parts[4][at : at + length].split(b"\0")[0] for at in range(0, len(parts[4]), length)]
            fields = [name.decode("latin-1") for name in labels]
            values = parts[5:]
            yield [
                dict(zip(fields, values[at : at + len(fields)], strict=True))
                for at in range(0, len(values) - len(values) % max(1, len(fields)), max(1, len(fields)))
            ]


def _numbers(rows: list[dict[str, bytes]], order: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in rows:
        key = next((key for key in IDS if key in row), None)
        if key is None or "WNID" not in row:
            return {}
        number = int(_array(row[key], order)[0])
        wnid = "".join(map(chr, map(int, _array(row["WNID"], order))))
        if not 1 <= number <= 1000:  # above stand the inner nodes of WordNet
            continue
        if wnid not in names():
            raise ValueError(f"it calls class {number} {wnid[:20]!r}, and the challenge has no such wnid")
        found[number] = wnid
    return found


def _array(data: bytes, order: str) -> tuple[float, ...]:
    """The numbers of an array; those of a text are its characters."""
    kind, content = [*_elements(data, order)][3]
    if kind == UTF8:
        return tuple(map(ord, content.decode("utf-8")))
    code = FORMATS.get(kind)
    if code is None:
        raise ValueError(f"it holds numbers of type {kind}")
    count = len(content) // struct.calcsize(code)
    return struct.unpack_from(f"{order}{count}{code}", content)
