"""Which images go into a prepared folder, and into which split: every rule that drops one, in order."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sancli.config import PrepareConfig
from sancli.data.listing import Problem
from sancli.data.preparation.duplicates import Duplicates, Twins, find_duplicates
from sancli.data.preparation.groups import leaks
from sancli.data.preparation.layouts import Placed
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.splits import limit, split_off
from sancli.errors import DataError, UsageError, folded


@dataclass
class Selection:
    """What is taken, and everything that is not, with the reason."""

    pictures: list[Picture] = field(default_factory=list)
    duplicates: Duplicates = field(default_factory=Duplicates)
    small: dict[str, int] = field(default_factory=dict)
    """Classes left out, and how many training images they had."""
    near: list[Twins] = field(default_factory=list)
    """Sets of those taken that look alike, where they were looked for."""
    problems: list[Problem] = field(default_factory=list)


def shares(images: Iterable[Placed], config: PrepareConfig, *, whole: bool) -> dict[str, float]:
    """The share of the training images that goes to each split that the source does not bring.

    Args:
        images: All of them.
        config: What is wanted.
        whole: The source is a benchmark, of which nothing is left out; training images alone can be split.

    Raises:
        UsageError: A share was asked for of a split that the source brings, or of a benchmark.
    """
    brought = {image.split for image in images if image.label is not None}
    wanted = {"test": config.test, "val": config.val}
    if whole:
        _check_nothing_asked(config, may_split=brought == {"train"})
        return {split: share for split, share in wanted.items() if share != getattr(PrepareConfig, split)}
    for split, default in (("val", PrepareConfig.val), ("test", PrepareConfig.test)):
        if split in brought and wanted[split] != default:
            raise UsageError(
                f"--{split} {wanted[split]} cannot be obeyed.",
                why=f"the source brings its own {split} images, and they are kept.",
                fix=f"leave --{split} out, or take the {split} folder out of the source.",
            )
    return {split: share for split, share in wanted.items() if share and split not in brought}


def _check_nothing_asked(config: PrepareConfig, *, may_split: bool) -> None:
    for name in ("min_per_class", "max_per_class", "group_by", *(() if may_split else ("val", "test"))):
        option, value = f"--{name.replace('_', '-')}", getattr(config, name)
        if value != getattr(PrepareConfig, name):
            raise UsageError(
                f"{option} {value} cannot be obeyed.",
                why="this is ImageNet as it is published: nothing is split off or left out.",
                fix=f"leave {option} out; or say --layout folders, if folders are the classes.",
            )


def select(
    pictures: list[Picture],
    wanted: set[str],
    to_split: dict[str, float],
    config: PrepareConfig,
    *,
    whole: bool = False,
) -> Selection:
    """Applies duplicates, limits and the split to labelled images.

    Args:
        pictures: Those that can be used.
        wanted: All classes, those without a usable image too.
        to_split: From `shares`.
        config: The rest of the settings.
        whole: Nothing is dropped or left out; duplicates are reported.

    Raises:
        DataError: Fewer than two classes are left; or no image, of what is taken whole.
    """
    if whole:
        return _take_whole(pictures, to_split, config)
    found = Selection()
    if config.duplicates == "off":
        kept = pictures
    else:
        found.duplicates = find_duplicates(pictures, drop=config.duplicates == "drop")
        found.problems += found.duplicates.problems
        kept = found.duplicates.kept
    train = [picture for picture in kept if picture.split in (None, "train")]
    brought = [picture for picture in kept if picture.split not in (None, "train")]
    if config.group_by is not None:
        train, leaking = leaks(train, brought, drop=config.duplicates == "drop")
        found.problems += leaking
    if config.max_per_class is not None:
        train, over = limit(train, config.max_per_class, seed=config.seed)
        found.problems += [Problem(picture.path, "over --max-per-class", "left out") for picture in over]
    train, brought = _leave_small(found, train, brought, wanted=wanted, least=config.min_per_class)
    found.pictures = sorted(split_off(train, to_split, seed=config.seed) + brought, key=Picture.order)
    _check_two_classes(found)
    return found


def _take_whole(pictures: list[Picture], to_split: dict[str, float], config: PrepareConfig) -> Selection:
    taken = split_off(pictures, to_split, seed=config.seed) if to_split else pictures
    found = Selection(pictures=sorted(taken, key=Picture.order))
    if config.duplicates != "off":
        found.duplicates = find_duplicates(pictures, drop=False)
        found.problems += found.duplicates.problems
    if not pictures:
        raise DataError(
            "no image could be used.",
            why="every one of them is damaged, or no image.",
            fix="get the archive again; --bad fail says what is wrong with them.",
        )
    return found


def _leave_small(
    found: Selection, train: list[Picture], brought: list[Picture], *, wanted: set[str], least: int
) -> tuple[list[Picture], list[Picture]]:
    counts = Counter(picture.label for picture in train)
    found.small = {label: counts[label] for label in sorted(wanted) if counts[label] < least}
    for picture in train + brought:
        if picture.label in found.small:
            words = f"class {picture.label} has fewer than {least} usable training images"
            found.problems.append(Problem(picture.path, words, "left out"))
    return (
        [picture for picture in train if picture.label not in found.small],
        [picture for picture in brought if picture.label not in found.small],
    )


def _check_two_classes(found: Selection) -> None:
    counts = Counter(str(picture.label) for picture in found.pictures)
    if len(counts) < 2:
        left = ", ".join(f"{label} ({count})" for label, count in counts.items()) or "none"
        lost = ", ".join(f"{label} ({count})" for label, count in list(found.small.items())[:10])
        raise DataError(
            "fewer than two classes with usable training images are left.",
            why=folded(f"left: {left}" + (f"; too few usable training images: {lost}." if lost else ".")),
            fix="add images of them, or name more classes; --bad fail says which files could not be read.",
        )
