"""Pictures that look the same though their files differ: made smaller, recoloured, the next of a burst.

Each picture becomes a perceptual hash of 64 bits, by the library ImageHash; two pictures of which few bits
differ are near duplicates, and so are those that a chain of such pairs connects.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sancli.console import progress
from sancli.data.images import BadImage, load_image
from sancli.data.listing import Problem
from sancli.data.preparation.duplicates import CLASSES, INSIDE, LEAK, Twins
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.threads import in_threads
from sancli.errors import check_extra

MOST_BITS = 6
"""Of 64 that may differ.

Source: all pairs of the 9,807 Intel scenes, looked at. With up to 6 bits 54 of 54 show one place; with 8 bits
12 of 19; with 10 bits 4 of 36. (The number is even: every hash has 32 ones.)"""
PART = 16
"""Bits of each of four parts of a hash."""
ENOUGH_PX = 64
"""The hash is of the picture at 32 x 32 pixels."""
BLOCK = 2**18
"""Pairs looked at together: some 10 MB."""
WORDS = {
    CLASSES: "near duplicate in another class: looks like {path}, which is {label}",
    LEAK: "near duplicate in another split: looks like {path}, which is in {split}",
    INSIDE: "near duplicate: looks like {path}",
}
ONES = np.array([value.bit_count() for value in range(2**16)], np.uint8)


def check_library() -> None:
    """Raises UsageError where ImageHash is not installed: before the scan, not after it."""
    check_extra("--near-duplicates", "dedupe", ["imagehash"], otherwise=", or leave --near-duplicates out.")


def find_near(pictures: Sequence[Picture], *, max_pixels: int) -> tuple[list[Twins], list[Problem]]:
    """Finds pictures that look alike, among those that were taken; identical files are no news.

    Returns:
        The sets, and a problem for each picture in one.
    """
    hashes = np.zeros(len(pictures), np.uint64)
    readable = np.zeros(len(pictures), bool)
    with progress("Comparing pictures", total=len(pictures), unit="images") as bar:
        found = in_threads(lambda picture: _hash(Path(picture.file), max_pixels), pictures)
        for index, value in enumerate(found):
            if value is not None:
                hashes[index], readable[index] = value, True
            bar.advance()
    sets: list[Twins] = []
    problems: list[Problem] = []
    for group in groups(hashes, np.flatnonzero(readable)):
        alike = sorted((pictures[index] for index in group), key=Picture.order)
        if len({picture.sha256 for picture in alike}) > 1:
            sets.append(Twins(_kind(alike), alike, alike))
            problems += [_problem(picture, alike) for picture in alike]
    return sorted(sets, key=lambda twins: twins.pictures[0].order()), problems


def _hash(file: Path, max_pixels: int) -> int | None:
    import imagehash

    try:
        image = load_image(file, max_pixels=max_pixels, enough_px=ENOUGH_PX)
    except BadImage:  # gone since the scan
        return None
    return int(str(imagehash.phash(image)), 16)


def groups(hashes: np.ndarray, indices: Iterable[int]) -> list[list[int]]:
    """Indices whose hashes are near each other, in sets of at least two.

    Args:
        hashes: uint64, [N].
        indices: Those that count.
    """
    equal: dict[int, list[int]] = defaultdict(list)  # a thousand empty pictures have one hash
    for index in indices:
        equal[int(hashes[index])].append(int(index))
    values = np.array(sorted(equal), np.uint64)
    parent = list(range(len(values)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for first, second in _near_pairs(values):
        parent[root(first)] = root(second)
    sets: dict[int, list[int]] = defaultdict(list)
    for at, value in enumerate(values):
        sets[root(at)] += equal[int(value)]
    return [sorted(found) for found in sets.values() if len(found) > 1]


def _near_pairs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of different hashes with at most MOST_BITS between them; some come more than once.

    Where six bits of four parts differ, one part has one of them at most: only such pairs are looked at.
    """
    for shift in range(0, 64, PART):
        part = ((values >> np.uint64(shift)) & np.uint64(2**PART - 1)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        keys = part[order]
        for mask in (0, *(1 << bit for bit in range(PART))):
            rows = np.flatnonzero(keys & mask == 0)  # the other of the pair has the bit
            first = np.searchsorted(keys, keys[rows] | mask, "left") if mask else rows + 1
            last = np.searchsorted(keys, keys[rows] | mask, "right")
            for firsts, seconds in _within(values[order], rows, first, last):
                yield from zip(order[firsts].tolist(), order[seconds].tolist(), strict=True)


def _within(
    values: np.ndarray, rows: np.ndarray, first: np.ndarray, last: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each row and those from `first` up to `last`, the pairs that are near; a block at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    cuts = np.flatnonzero(np.diff(ends // BLOCK)) + 1
    for chosen in np.split(np.arange(len(rows)), cuts):
        some = counts[chosen]
        left = np.repeat(rows[chosen], some)
        begins = first[chosen] - (ends[chosen] - some - (ends[chosen[:1]] - some[:1]))
        right = np.repeat(begins, some) + np.arange(some.sum())
        different = (values[left] ^ values[right]).view(np.uint16).reshape(-1, 64 // 16)
        near = ONES[different].sum(1) <= MOST_BITS
        yield left[near], right[near]


def _kind(alike: Iterable[Picture]) -> str:
    labels, splits = {picture.label for picture in alike}, {picture.split for picture in alike}
    return CLASSES if len(labels) > 1 else LEAK if len(splits) > 1 else INSIDE


def _problem(picture: Picture, alike: Sequence[Picture]) -> Problem:
    """What is worst about one of them, with the other that shows it."""
    others = [other for other in alike if other is not picture]
    kind, other = INSIDE, others[0]
    for candidate in others:
        if candidate.label != picture.label:
            kind, other = CLASSES, candidate
            break
        if candidate.split != picture.split and kind == INSIDE:
            kind, other = LEAK, candidate
    words = WORDS[kind].format(path=other.path, label=other.label, split=other.split)
    return Problem(picture.path, words, "kept")
