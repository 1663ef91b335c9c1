"""Names in a label file -> images of the source, without ever leaving it."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from sancli.data.images import SUFFIXES


def unsafe(name: str) -> str | None:
    """Why a name must not be looked for; None where it may be."""
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        return "it is a place of its own on the disk"
    if ".." in name.replace("\\", "/").split("/"):
        return "it leads out of the folder"
    if "\0" in name:
        return "it holds a NUL"
    return None


class Images:
    """Finds images by their whole path, the end of it, or either without the ending of the file.

    Letters with accents are compared by what they are, not by how a system writes them.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = _composed(path.rpartition("/")[2])
            self._by_name[name].append(path)
            if (stem := _stem(name)) != name:
                self._by_name[stem].append(path)

    def find(self, name: str, *, beside: str = "") -> list[str]:
        """The images that a name can stand for: one, none, or several.

        Args:
            name: As the file has it, with slashes or backslashes between its parts.
            beside: The folder of the file with the name; what lies nearest to it is meant.
        """
        name = _composed(name.replace("\\", "/").removeprefix("./"))
        found = self._by_name.get(name.rpartition("/")[2], [])
        if "/" in name:
            found = [path for path in found if _ends(path, name)]
        if len(found) < 2:
            return found
        for folder in (beside, ""):
            whole = _composed(f"{folder}/{name}" if folder else name)
            if exact := [path for path in found if whole in (_composed(path), _stem(_composed(path)))]:
                return exact
        return found

    def like(self, name: str) -> str | None:
        """An image whose name differs in its ending, or in capital letters alone; for a hint."""
        stem = _stem(name.replace("\\", "/").rpartition("/")[2]).casefold()
        return next((paths[0] for known, paths in self._by_name.items() if known.casefold() == stem), None)


def _ends(path: str, name: str) -> bool:
    path = _composed(path)
    return any(f"/{known}".endswith(f"/{name}") for known in (path, _stem(path)))


def _stem(name: str) -> str:
    """Without the ending of an image; a name that has none stays whole."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and (dot + ending).lower() in SUFFIXES else name


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
