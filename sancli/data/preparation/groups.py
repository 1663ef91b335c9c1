"""Images that belong together (one patient, one video, one burst) go to one split together."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sancli.console import plural
from sancli.data.listing import Problem
from sancli.data.preparation.layouts.layout import Placed
from sancli.data.preparation.layouts.names import compiled
from sancli.data.preparation.picture import Picture
from sancli.errors import UsageError, printable

EVALUATED = ("val", "test")


def grouped(images: Sequence[Placed], expression: str) -> list[Placed]:
    """The images with the group of each: what the expression finds in its path, if no column told it before.

    That is its group named `group`, or its first, or all that it finds; an image in which it finds nothing
    stands alone.

    Raises:
        UsageError: It is no expression, or finds nothing anywhere.
    """
    if any(image.group is not None for image in images):
        return [*images]
    pattern = compiled("--group-by", expression)
    part = "group" if "group" in pattern.groupindex else min(1, pattern.groups)
    found = [pattern.search(image.path) for image in images]
    if not any(found):
        some = ", ".join(printable(image.path) for image in images[:3])
        raise UsageError(
            f"--group-by {expression} finds nothing in the path of any image.",
            why=f"the first are {some}.",
            fix=r"name a column of the table of labels; or for scan/patient12_3.png say 'patient\d+'",
        )
    return [
        replace(image, group=match[part] if match and match[part] is not None else None)
        for image, match in zip(images, found, strict=True)
    ]


def describe(images: Iterable[Placed]) -> str:
    """For people: how many groups, and what stands alone."""
    counts = Counter(image.group for image in images if image.label is not None)
    alone = counts.pop(None, 0)
    words = f"{plural(counts.total(), 'image')} in {plural(len(counts), 'group')}"
    return words + (f"; {plural(alone, 'image')} in none, each by itself" if alone else "")


def leaks(train: list[Picture], brought: list[Picture], *, drop: bool) -> tuple[list[Picture], list[Problem]]:
    """Finds groups that the source has in more than one split.

    Args:
        train: Images that may go to train.
        brought: Those of val and test that the source brings: they stay as they are.
        drop: Training images of such groups are left out; otherwise they are reported.

    Returns:
        The training images that stay, and what was found.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for picture in brought:
        if picture.group is not None:
            splits[picture.group].add(str(picture.split))
    kept, problems = [], []
    for picture in [*train, *brought]:
        others = sorted(splits.get(picture.group or "", set()) - {picture.split})
        if others:
            leaves = drop and picture.split not in EVALUATED
            words = f"of a group that is in {' and '.join(others)} too: {picture.group}"
            problems.append(Problem(picture.path, words, "left out" if leaves else "kept"))
        if picture.split not in EVALUATED and not (others and drop):
            kept.append(picture)
    return kept, problems


def bundles(pictures: Iterable[Picture]) -> list[list[Picture]]:
    """What must not be torn apart: images of one group, and files with the same bytes, in one go."""
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    pictures = list(pictures)
    for picture in pictures:
        group = f"group {picture.group}" if picture.group is not None else picture.sha256
        one, other = find(group), find(picture.sha256)
        leader[max(one, other)] = min(one, other)
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        found[find(picture.sha256)].append(picture)
    return list(found.values())


class Apportioning:
    """Gives bundles to splits one after the other, each to where its classes lack most."""

    def __init__(self, ordered: list[list[Picture]], shares: dict[str, float]) -> None:
        self.classes = [Counter(picture.label for picture in bundle) for bundle in ordered]
        self.totals: Counter[str | None] = sum(self.classes, Counter())
        self.shares = {"train": 1 - sum(shares.values()), **shares}
        self.lack = {
            split: {label: share * count for label, count in self.totals.items()}
            for split, share in self.shares.items()
        }
        self.place = [""] * len(ordered)
        for number in range(len(ordered)):
            self._move(number, min(self.shares, key=lambda split: self._cost(number, split)))
        for split in self.shares:
            self._fill(split)

    def _cost(self, number: int, split: str) -> float:
        """How much further from their shares all classes are with the bundle there, squared and summed."""
        lack, totals = self.lack[split], self.totals
        bundle = self.classes[number].items()
        return sum(count * (count - 2 * lack[label]) / totals[label] ** 2 for label, count in bundle)

    def _move(self, number: int, split: str) -> None:
        for label, count in self.classes[number].items():
            if self.place[number]:
                self.lack[self.place[number]][label] += count
            self.lack[split][label] -= count
        self.place[number] = split

    def _fill(self, split: str) -> None:
        """Brings a bundle of each class to a split without one, where another is left for train."""
        has: dict[str, Counter[str | None]] = {name: Counter() for name in self.shares}
        for number, name in enumerate(self.place):
            has[name].update(self.classes[number].keys())
        for label in self.totals:
            if has[split][label] or not self.shares[split]:
                continue
            able = [
                number
                for number, name in enumerate(self.place)
                if label in self.classes[number]
                and name != split
                and (split == "train" or (name == "train" and self._spares(number, has["train"])))
            ]
            if able:
                number = min(able, key=lambda number: self.classes[number].total())
                has[self.place[number]].subtract(self.classes[number].keys())
                has[split].update(self.classes[number].keys())
                self._move(number, split)

    def _spares(self, number: int, train: Counter[str | None]) -> bool:
        return all(train[label] > 1 for label in self.classes[number])
