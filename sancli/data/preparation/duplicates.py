"""Files with the same bytes: inside a class, across classes, across splits; and which of them to keep."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from sancli.data.listing import Problem
from sancli.data.preparation.picture import Picture

INSIDE, CLASSES, LEAK = "inside_class", "across_classes", "across_splits"
KINDS = (INSIDE, CLASSES, LEAK)
WORDS = {
    CLASSES: "contradictory label: the same file is {label} in {path}",
    LEAK: "leak: the same file is in {split}, {path}",
    INSIDE: "duplicate of {path}",
}


@dataclass(frozen=True)
class Twins:
    """A set of identical files."""

    kind: str
    """The worst that is true of them: classes, then splits, then inside."""
    pictures: list[Picture]
    kept: list[Picture]


@dataclass
class Duplicates:
    """What was found, and what follows from it."""

    sets: Counter[str] = field(default_factory=Counter)
    """Sets of identical files by kind; one may be across classes and across splits."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Images dropped, each under the worst that was found of it: classes, then splits, then inside."""
    shared: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Files whose bytes two splits have in common."""
    kept: list[Picture] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find_duplicates(pictures: Sequence[Picture], *, drop: bool) -> Duplicates:
    """Finds identical files, and drops from train what would teach or test wrongly.

    Images of val and test that the source brings are never dropped. Of identical files in train one is kept;
    one whose twin is in val or test is dropped; those with contradictory labels are dropped, all of them.

    Args:
        pictures: Labelled images, in the order in which the first is preferred.
        drop: False: everything is listed, and nothing dropped.
    """
    counts = Counter(picture.sha256 for picture in pictures)
    found = Duplicates(kept=[picture for picture in pictures if counts[picture.sha256] == 1])
    sets: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if counts[picture.sha256] > 1:
            sets[picture.sha256].append(picture)
    for twins in sets.values():
        keep = _to_keep(twins) if drop else twins
        found.kept += keep
        _record(found, twins, keep)
    found.kept.sort(key=Picture.order)
    return found


def _to_keep(twins: list[Picture]) -> list[Picture]:
    evaluated = [twin for twin in twins if twin.split in ("val", "test")]
    if evaluated or len({twin.label for twin in twins}) > 1:
        return evaluated
    return twins[:1]


def _record(found: Duplicates, twins: list[Picture], keep: list[Picture]) -> None:
    splits = [split for split in (None, "train", "val", "test") if split in {twin.split for twin in twins}]
    classes = {twin.label for twin in twins}
    found.sets[CLASSES] += len(classes) > 1
    found.sets[LEAK] += len(splits) > 1
    found.sets[INSIDE] += len(classes) == 1 and len(splits) == 1
    worst = CLASSES if len(classes) > 1 else LEAK if len(splits) > 1 else INSIDE
    found.twins.append(Twins(worst, twins, keep))
    for pair in combinations(splits, 2):
        found.shared[str(pair[0]), str(pair[1])] += sum(twin.split in pair for twin in twins)
    for picture in twins:
        kind, other = _worst(picture, [twin for twin in twins if twin is not picture])
        words = WORDS[kind].format(label=other.label, path=other.path, split=other.split)
        found.dropped[kind] += picture not in keep
        found.problems.append(Problem(picture.path, words, "kept" if picture in keep else "dropped"))


def _worst(picture: Picture, others: list[Picture]) -> tuple[str, Picture]:
    """What is worst about one of several identical files, and the other that shows it."""
    for other in others:
        if other.label != picture.label:
            return CLASSES, other
    for other in others:
        if other.split != picture.split:
            return LEAK, other
    return INSIDE, others[0]
