"""Files with the same bytes: inside a class, across classes, across splits; and which of them to keep."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sancli.data.listing import Problem
from sancli.data.picture import Picture

DROPPED, KEPT = "dropped", "kept"


@dataclass
class Duplicates:
    """What was found, and what follows from it."""

    inside_class: int = 0
    """Sets of identical files with one class and one split."""
    across_classes: int = 0
    """Sets with contradictory labels, in whatever splits."""
    across_splits: int = 0
    """Sets that leak from one split into another, in whatever classes."""
    kept: list[Picture] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Images left out for their twins."""
        return sum(problem.action == DROPPED for problem in self.problems)


def find_duplicates(pictures: Iterable[Picture], *, drop: bool) -> Duplicates:
    """Finds identical files, and drops from train what would teach or test wrongly.

    Images of val and test that the source brings are never dropped. Of identical files in train one is kept;
    one whose twin is in val or test is dropped; those with contradictory labels are dropped, all of them.

    Args:
        pictures: Labelled images, in the order in which the first is preferred.
        drop: False: everything is listed, and nothing dropped.
    """
    sets: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        sets[picture.sha256].append(picture)
    found = Duplicates()
    for twins in sets.values():
        if len(twins) == 1:
            found.kept += twins
            continue
        _count(found, twins)
        keep = _to_keep(twins) if drop else twins
        found.kept += keep
        found.problems += [_problem(picture, twins, kept=picture in keep) for picture in twins]
    found.kept.sort(key=Picture.order)
    found.problems.sort()
    return found


def _count(found: Duplicates, twins: list[Picture]) -> None:
    classes, splits = {twin.label for twin in twins}, {twin.split for twin in twins}
    found.across_classes += len(classes) > 1
    found.across_splits += len(splits) > 1
    found.inside_class += len(classes) == 1 and len(splits) == 1


def _to_keep(twins: list[Picture]) -> list[Picture]:
    evaluated = [twin for twin in twins if twin.split in ("val", "test")]
    if evaluated or len({twin.label for twin in twins}) > 1:
        return evaluated
    return twins[:1]


def _problem(picture: Picture, twins: list[Picture], *, kept: bool) -> Problem:
    """What is worst about one of several identical files, with the file that shows it."""

    def first(fits: Iterable[Picture]) -> Picture | None:
        return next(iter(fits), None)

    others = [twin for twin in twins if twin is not picture]
    if other := first(twin for twin in others if twin.label != picture.label):
        words = f"contradictory label: the same file is {other.label} in {other.path}"
    elif other := first(twin for twin in others if twin.split != picture.split):
        words = f"leak: the same file is in {other.split}: {other.path}"
    else:
        words = f"duplicate of {others[0].path}"
    return Problem(picture.path, words, KEPT if kept else DROPPED)
