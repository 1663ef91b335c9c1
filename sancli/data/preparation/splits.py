"""Train, val and test from one pile: seeded, stratified by class, identical files on one side.

The place of an image follows from the seed and its content: names and the order of a folder do not matter,
and one image more moves few of the others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from sancli.data.preparation.groups import Apportioning, bundles
from sancli.data.preparation.picture import Picture

Copies = tuple[Picture, ...]
"""Identical files."""


def rank(picture: Picture, seed: int) -> bytes:
    """A random number that belongs to the content of an image; equal for identical files."""
    return hashlib.sha256(f"{seed} {picture.sha256}".encode()).digest()


def split_off(pictures: Sequence[Picture], shares: dict[str, float], *, seed: int) -> list[Picture]:
    """Gives each picture a split: each share of every class to its split, the rest to train.

    A class gives at least one image to a split with a share, as long as one is left for train. Images of one
    group stay together.

    Args:
        pictures: Of any splits; all are assigned anew.
        shares: Of the images of a class, by split, such as {"test": 0.1, "val": 0.15}.
        seed: Another seed, another choice.
    """
    if any(picture.group is not None for picture in pictures):
        return _split_groups(pictures, shares, seed=seed)
    ranked = sorted(pictures, key=lambda picture: rank(picture, seed))
    classes: dict[str | None, list[Copies]] = defaultdict(list)
    for _, same in groupby(ranked, key=lambda picture: picture.sha256):
        twins = tuple(same)  # the whole set goes where the class of its first image puts it
        classes[min(twins, key=Picture.order).label].append(twins)
    assigned: list[Picture] = []
    for sets in classes.values():
        for split, members in _cut(sets, shares):
            assigned += [replace(picture, split=split) for twins in members for picture in twins]
    return sorted(assigned, key=Picture.order)


def _split_groups(pictures: Sequence[Picture], shares: dict[str, float], *, seed: int) -> list[Picture]:
    """The same where groups stay whole, so that shares are met as well as they can be."""
    ranked = [(min(rank(picture, seed) for picture in bundle), bundle) for bundle in bundles(pictures)]
    ranked.sort(key=lambda pair: (-len(pair[1]).bit_length(), pair[0]))  # the small ones fill the gaps
    ordered = [bundle for _, bundle in ranked]
    place = Apportioning(ordered, shares).place
    assigned = [
        replace(picture, split=split)
        for bundle, split in zip(ordered, place, strict=True)
        for picture in bundle
    ]
    return sorted(assigned, key=Picture.order)


def _cut(sets: list[Copies], shares: dict[str, float]) -> list[tuple[str, list[Copies]]]:
    parts, rest = [], sets
    for split, share in shares.items():
        count = min(max(round(share * len(sets)), share > 0), max(0, len(rest) - 1))
        parts.append((split, rest[:count]))
        rest = rest[count:]
    return [*parts, ("train", rest)]


def limit(pictures: Sequence[Picture], count: int, *, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Keeps `count` images of each class, chosen as at random; the others come second."""
    kept: list[Picture] = []
    over: list[Picture] = []
    seen: dict[str | None, int] = defaultdict(int)
    for picture in sorted(pictures, key=lambda picture: (rank(picture, seed), picture.order())):
        seen[picture.label] += 1
        (kept if seen[picture.label] <= count else over).append(picture)
    return sorted(kept, key=Picture.order), sorted(over, key=Picture.order)
