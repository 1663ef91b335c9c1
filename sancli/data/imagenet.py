"""The 1000 ImageNet classes: wnids, their numbers in the development kit, names."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Synset:
    """One class."""

    wnid: str
    """As folders and label files have it: n01440764."""
    devkit_id: int
    """1 to 1000, in an order of its own: ILSVRC2012_ID of the development kit."""
    name: str
    """For people; no two classes have the same."""


@cache
def synsets() -> tuple[Synset, ...]:
    """All classes in the order of their wnids: the place of one is its index in a network's outputs."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" ", 2) for line in lines if not line.startswith("#")]
    return tuple(Synset(wnid, int(number), name) for wnid, number, name in rows)


@cache
def names() -> dict[str, str]:
    """The name of each wnid, in the order of the wnids."""
    return {synset.wnid: synset.name for synset in synsets()}


@cache
def devkit_wnids() -> dict[int, str]:
    """The wnid of each number of the development kit."""
    return {synset.devkit_id: synset.wnid for synset in synsets()}
