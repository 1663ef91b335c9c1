"""Class names: made safe for every disk, told apart on every disk, chosen by the user."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sancli.console import plural
from sancli.data.preparation.layouts import Placed
from sancli.errors import DataError, UsageError, closest

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\]")
"""Control characters, bytes that are no UTF-8, and what separates folders somewhere."""


def clean(name: str) -> str:
    """The name with an underscore for each character that breaks terminals, JSON or other systems' disks.

    And for a dot that it begins with: such folders are hidden, and never read.
    """
    safe = UNSAFE.sub("_", name)
    return f"_{safe[1:]}" if safe.startswith(".") else safe


def rewritten(images: Iterable[Placed]) -> dict[str, str]:
    """The class names that are not safe, and what becomes of them."""
    names = sorted({image.label for image in images if image.label is not None})
    return {name: clean(name) for name in names if clean(name) != name}


def same_name(name: str) -> str:
    """Equal for names that some disk takes for one: Cats and cats, two ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def check_names(images: Iterable[Placed]) -> None:
    """Refuses class names that differ in a way that some disks do not see.

    Raises:
        DataError: With both spellings.
    """
    seen: dict[str, str] = {}
    for name in dict.fromkeys(image.label for image in images if image.label is not None):
        twin = seen.setdefault(same_name(clean(name)), name)
        if twin != name:
            raise DataError(
                f"the classes {twin!a} and {name!a} differ only in how they are written.",
                why="many systems take such names for one folder, and most people for one class.",
                fix="give both folders one name, or two that differ.",
            )


def check_splits(images: Sequence[Placed]) -> list[str]:
    """Looks for classes that one split has and another has not.

    Returns:
        A warning for each split that lacks classes.

    Raises:
        DataError: val or test has a class of which train has no image: it could not be learnt.
    """
    classes: dict[str, set[str]] = {}
    for image in images:
        if image.label is not None and image.split is not None:
            classes.setdefault(image.split, set()).add(image.label)
    train = classes.get("train", set())
    warnings = []
    for split in sorted(classes.keys() - {"train"}):
        if unknown := sorted(classes[split] - train):
            raise DataError(
                f"{split} has a class that train has not: {', '.join(unknown[:5])}.",
                why=f"train has {', '.join(sorted(train)[:10])}.",
                fix=f"rename the folder, or leave the class out: --skip {','.join(unknown)}",
            )
        if missing := sorted(train - classes[split]):
            warnings.append(f"{split} has no images of {', '.join(missing[:10])}.")
    return warnings


def choose(images: list[Placed], *, only: str | None, skip: str | None, least: int = 2) -> list[Placed]:
    """The images of the classes that the user wants, and the unlabelled ones.

    Raises:
        UsageError: A class that was named is not there; or fewer than `least` are left.
    """
    known = sorted({image.label for image in images if image.label is not None})
    wanted = set(_named("--only", only, known) if only else known) - set(_named("--skip", skip or "", known))
    if (only or skip) and len(wanted) < least:
        option = "--only" if only else "--skip"
        raise UsageError(
            f"{option} {only or skip} leaves {', '.join(wanted) or 'no class'}.",
            why=f"the classes are {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}.",
            fix=f"choose so that at least {plural(least, 'class', 'classes')} stay.",
        )
    return [image for image in images if image.label is None or image.label in wanted]


def _named(option: str, text: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(
                f"{option} {name}: there is no such class.",
                why=f"the classes are {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}.",
                fix=closest(name, known),
            )
    return names


def cleaned(images: Sequence[Placed]) -> list[Placed]:
    """The images with safe class names."""
    unsafe = rewritten(images)
    return [replace(image, label=unsafe[image.label]) if image.label in unsafe else image for image in images]
