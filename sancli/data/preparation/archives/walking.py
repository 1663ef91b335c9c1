"""Any archive, and those inside it, as one row of members with safe names."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from sancli.data.images import ENDINGS
from sancli.data.listing import ARCHIVES, is_ghost, list_folder
from sancli.data.preparation.archives.budget import Budget
from sancli.data.preparation.archives.members import DAMAGE, Member, damaged, plain, refuse, unsafe_name
from sancli.data.preparation.archives.streams import BUFFER_BYTES, ENGINES, Decompressed, buffered
from sancli.data.preparation.archives.tars import is_tar, tar_members
from sancli.data.preparation.archives.zips import zip_members
from sancli.data.sniff import HEAD_BYTES, what_is
from sancli.errors import DataError, command
from sancli.files import storage_errors

UNREAD_KINDS = ("RAR", "7-Zip", "zstd", *ENGINES)
PICTURES = ("HEIC", "WebP", *ENDINGS)
SPOOLED_BYTES = 2**24
"""A zip inside an archive is kept in memory up to this size, then in a temporary file."""


def without_ending(name: str) -> str:
    """The name of an archive without the ending that makes it one: scenes.tar.gz is scenes."""
    ending = max((end for end in ARCHIVES if name.lower().endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)] or name


def is_archive(name: str) -> bool:
    """Whether a file is an archive that is read, by its name."""
    return name.lower().endswith(ARCHIVES)


def walk(path: Path, *, depth: int, reached: Callable[[int], None] = lambda _: None) -> Iterator[Member]:
    """The members of an archive, each found safe before it is given, in the order of the archive.

    Args:
        path: The archive; or a folder that holds archives: they are as archives inside one.
        depth: Archives inside archives are entered so deep; their members bear their names in front.
        reached: Is told, at every member, how many bytes of the file, or the files, are behind.

    Raises:
        DataError: It is no archive, is damaged or encrypted, a bomb, or a member would be unsafe to unpack.
    """
    if not path.is_dir():
        yield from _walk_one(path, "", Budget(path, path.stat().st_size), depth, reached)
        return
    found, before = list_folder(path), 0
    for name in found.tables:  # first: they are read by themselves, before anything is unpacked
        yield Member(name, (path / name).stat().st_size, False, None, partial(_open, path / name))
    sizes = {name: (path / name).stat().st_size for name in found.archives}
    budget = Budget(path, sum(sizes.values()))
    for name, size in sizes.items():
        yield from _walk_one(path / name, f"{name}/", budget, depth - 1, partial(_further, reached, before))
        before += size


def _open(path: Path) -> BufferedReader:
    return path.open("rb")


def _further(reached: Callable[[int], None], before: int, place: int) -> None:
    reached(before + place)


def _walk_one(
    path: Path, prefix: str, budget: Budget, depth: int, reached: Callable[[int], None]
) -> Iterator[Member]:
    with path.open("rb") as file:
        for member in _Walk(file, budget).members(file, str(path), prefix, depth):
            reached(file.tell())
            yield member


class _Walk:
    def __init__(self, outermost: BinaryIO, budget: Budget) -> None:
        self.outermost, self.budget = outermost, budget

    def members(self, file: BufferedReader, label: str, prefix: str, depth: int) -> Iterator[Member]:
        try:
            with ExitStack() as stack:
                for member in self._read(file, label, stack):
                    self.budget.expect(member.size)
                    yield from self._entered(_checked(member, label), label, prefix, depth)
        except DAMAGE as error:  # nothing of whoever takes the members comes through here
            raise damaged(label, error) from None

    def _entered(self, member: Member, label: str, prefix: str, depth: int) -> Iterator[Member]:
        name = prefix + member.name
        if depth == 0 or member.is_folder or not is_archive(name) or any(map(is_ghost, name.split("/"))):
            yield member if name == member.name else replace(member, name=name)
            return
        with member.open() as inner:
            yield from self.members(inner, f"{member.name} in {label}", f"{name}/", depth - 1)

    def _read(self, file: BufferedReader, label: str, stack: ExitStack) -> Iterator[Member]:
        head = _head(file)
        kind = what_is(head)
        if is_tar(head):  # first: its first bytes are a name, which may begin as anything does
            return tar_members(file)
        if kind in ENGINES:
            unpacked = buffered(Decompressed(file, str(kind), self.budget))
            if not is_tar(_head(unpacked)):
                raise _no_archive(label, f"it is packed by {kind}, with no tar inside", kind)
            return tar_members(unpacked)
        if kind == "tar":
            raise damaged(label, "the header of its first member is damaged")
        if kind not in ("zip", None) or head.count(0) == len(head):
            raise _no_archive(label, kind or "nothing but zeros", kind)
        whole = file if file is self.outermost else stack.enter_context(_spooled(file))
        try:
            return iter(zip_members(whole, self.budget))
        except DAMAGE as error:
            if kind is None:  # a zip may stand behind a program, but this does not
                raise _no_archive(label, None, None) from None
            raise damaged(label, f"its table of contents cannot be read: {error}") from None


def _head(file: BufferedReader) -> bytes:
    """The first bytes, which stay to be read."""
    return file.peek(HEAD_BYTES)[:HEAD_BYTES]


@contextmanager
def _spooled(file: BufferedReader) -> Iterator[BinaryIO]:
    """The same bytes in a place where they can be read in any order, as zips need it."""
    with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as whole:
        while data := file.read(BUFFER_BYTES):
            with storage_errors(Path(tempfile.gettempdir())):
                whole.write(data)
        whole.seek(0)
        yield cast("BinaryIO", whole)


def _checked(member: Member, label: str) -> Member:
    """The member under its plain name.

    Raises:
        DataError: It must not be unpacked.
    """
    if why := unsafe_name(member.name) or member.unsafe:
        raise refuse(member.name, label, why)
    name = plain(member.name)
    return member if name == member.name else replace(member, name=name)


def _no_archive(label: str, looks: str | None, kind: str | None) -> DataError:
    known = f"it looks like {looks or 'nothing known'}"
    return DataError(
        f"{label} is neither a zip nor a tar.",
        why=f"{looks if looks and looks.startswith(('it ', 'an ')) else known}.",
        fix=_way_out(label, kind),
    )


def _way_out(label: str, kind: str | None) -> str:
    """What to do with a file that is no archive which is read."""
    if kind in UNREAD_KINDS:
        return "unpack it, then give the folder to san prepare."
    if kind in PICTURES:
        return f"give a folder or an archive of images; for one image: {command('san', 'predict', label)}"
    if kind == "text":
        return "give the images, as a folder or an archive; a table of their labels goes to --labels."
    return "download it again, and look at what was saved."
