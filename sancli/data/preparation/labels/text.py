"""Bytes of a label file -> text: UTF-8, UTF-16 with its mark, or what Windows and older systems write."""

from collections.abc import Iterable
from dataclasses import dataclass

from sancli.console import size
from sancli.data.sniff import HEAD_BYTES, what_is
from sancli.errors import DataError, printable

MAX_BYTES = 256 * 2**20
"""The labels of all 14 million images of ImageNet would fit."""
ARCHIVES = ("gzip", "bzip2", "xz", "tar", "RAR", "7-Zip")
NO_TEXT = ("zip", "PDF", "HTML", "XML", "JPEG", "PNG", "Git LFS pointer", *ARCHIVES)
SHOWN = 60
"""Characters of a cell that an error repeats."""
ADVICE = {
    **dict.fromkeys(ARCHIVES, "unpack it, and name the file with the labels that is in it."),
    "zip": "if it is a spreadsheet (.xlsx, .ods), save it as CSV; if it is a zip, unpack it.",
    "HTML": "download it again, and look at what was saved: this is a page of the site.",
    "Git LFS pointer": "fetch the file itself: git lfs pull",
}


class NotText(DataError):  # noqa: N818 -- it says what is the matter
    """A file that was to hold labels is something else."""


@dataclass(frozen=True)
class Text:
    """What a label file says."""

    content: str
    encoding: str
    """For people: UTF-8, UTF-16, Latin-1."""


def shown(cells: Iterable[str], *, most: int = 10) -> str:
    """Cells of a file as they stand in a sentence: the first of them, each short and on one line."""
    cells = list(cells)
    some = [printable(cell if len(cell) <= SHOWN else f"{cell[:SHOWN]}...") for cell in cells[:most]]
    return ", ".join(some) + (", ..." if len(cells) > most else "")


def wrong_line(name: str, line: int, what: str, *, why: str, fix: str) -> DataError:
    """An error about one line of a label file.

    Args:
        name: Of the file, for people.
        line: Counted from 1, as editors do.
        what: Is wrong with it, such as "has 2 columns".
        why: What was expected.
        fix: What to do.
    """
    where = f"{printable(name)}, line {line:,}"
    return DataError(f"{where}: {what}.", why=f"{why}.", fix=f"{fix}; then run this again.")


def read_text(content: bytes, name: str) -> Text:
    """The text of a label file.

    Raises:
        NotText: It is something else; says what.
        DataError: It is damaged; says in which line.
    """
    _check_kind(content, name)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = [("utf-16", "UTF-16")]
    else:  # Windows' own code page is Latin-1 with letters where that has control characters
        encodings = [("utf-8-sig", "UTF-8"), ("cp1252", "Latin-1"), ("latin-1", "Latin-1")]
    for codec, encoding in encodings:
        try:
            text = content.decode(codec)
        except UnicodeDecodeError as error:
            broken = error
            continue
        _check_nul(text, content, name)
        return Text(text, encoding)
    line = content[: broken.start].decode("utf-16", "replace").count("\n") + 1
    raise wrong_line(
        name,
        line,
        "is no UTF-16",
        why=f"the file begins as UTF-16 does, but {broken.reason} there",
        fix="save it as UTF-8",
    )


def _check_kind(content: bytes, name: str) -> None:
    if len(content) > MAX_BYTES:
        raise NotText(
            f"{name} is too large for a label file.",
            why=f"it has {size(len(content))}, and {size(MAX_BYTES)} are read at most.",
            fix="name the file with the labels: --labels FILE",
        )
    kind = what_is(content[:HEAD_BYTES])
    if kind == "an empty file":
        raise NotText(f"{name} is empty.", why="it was to hold labels.", fix="download or write it again.")
    if kind in NO_TEXT:
        raise NotText(
            f"{name} is no text with labels.",
            why=f"it looks like {kind}.",
            fix=ADVICE.get(kind, "name the file with the labels: --labels FILE"),
        )


def _check_nul(text: str, content: bytes, name: str) -> None:
    if (place := text.find("\0")) < 0:
        return
    halves = max(content[:HEAD_BYTES:2].count(0), content[1:HEAD_BYTES:2].count(0))
    if halves * 3 > min(len(content), HEAD_BYTES):
        why = "it looks like UTF-16 without the mark that tells in which order its bytes stand"
    else:
        why = "no text holds one: the file is damaged, or something else"
    raise wrong_line(
        name,
        text.count("\n", 0, place) + 1,
        "holds a NUL byte",
        why=why,
        fix="save it as UTF-8",
    )
