"""Chooses the pictures of report.html, and makes them small."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from sancli.console import progress
from sancli.data.imagenet import names
from sancli.data.images import BadImage, load_image
from sancli.data.preparation.duplicates import KINDS, Twins
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.remains import remains
from sancli.data.preparation.selection import Selection
from sancli.data.preparation.threads import in_threads
from sancli.data.prepared import PAGE
from sancli.errors import command
from sancli.report.pages.preparation import (
    Group,
    Pictures,
    Sets,
    Shot,
    sheet_of,
    shown_classes,
    write_page,
)
from sancli.report.pages.thumbnails import Equalized, Thumb, contrast, equalized, shrunk
from sancli.report.preparation import OVER_LIMIT, kind_of
from sancli.tasks.preparation.writing import Written

SIDE_PX = 100
"""Of the pictures of duplicates and problems: 4.5 KB each in the page. All that are let in take 1.4 MB."""
MOST_SHOTS, MOST_TWINS = 40, 4
"""Files in all sets of one kind of duplicates; and in one set."""
MOST_KINDS, MOST_PROBLEMS = 10, 7
"""Kinds of faults; and files with one of them."""
EQUALIZED, EQUALIZED_PX = 4, 240
"""Pictures that show what equalization does, and their longer side."""
FLAT = 12.0
"""Contrast under which a picture is all but empty, and equalization draws its noise."""


@dataclass(frozen=True)
class Shelf:
    """Where the picture of each file of the source is now."""

    folder: Path
    """The prepared one."""
    places: dict[str, str]
    """Of what was taken, in the folder."""
    others: dict[str, str]
    """What was not taken stays where it was."""
    max_pixels: int

    def file(self, path: str) -> Path:
        """The file itself."""
        return self.folder / self.places[path] if path in self.places else Path(self.others[path])

    def split(self, path: str) -> str | None:
        """Where it has come to; None where it was not taken."""
        return self.places[path].partition("/")[0] if path in self.places else None

    def thumb(self, path: str, side: int) -> Thumb | None:
        """A small picture; None where the file is gone, or cannot be shown."""
        try:
            image = load_image(self.file(path), max_pixels=self.max_pixels, enough_px=2 * side)
        except (BadImage, KeyError):
            return None
        return shrunk(image, side)

    def rest(self, path: str, side: int) -> Thumb | None:
        """What is left of a truncated picture."""
        found = remains(self.file(path), max_pixels=self.max_pixels) if path in self.others else None
        return None if found is None else shrunk(found.image, side)


def write_report(
    folder: Path,
    *,
    plan: Plan,
    facts: dict[str, Any],
    written: Written,
    chosen: Selection,
    files: Sequence[str],
) -> None:
    """Writes report.html into the prepared folder, whose images are there already.

    Args:
        folder: The one that is being built.
        plan: What was to be done.
        facts: What --json prints.
        written: What stands in the folder.
        chosen: What was taken, and what not.
        files: Where each image of the plan was before.
    """
    places = {picture.path: place for picture, place in zip(written.pictures, written.places, strict=True)}
    others = {path: file for path, file in zip(plan.paths, files, strict=True) if path not in places}
    shelf = Shelf(folder, places, others, plan.config.max_pixels)
    sheets = draw_sheets(shelf, written.pictures, facts)
    pictures = Pictures(
        sheets=sheets,
        twins=draw_twins(shelf, chosen),
        problems=draw_problems(shelf, facts["problems"]),
        equalized=draw_equalized(shelf, sheets),
    )
    source = Path(written.manifest.source["name"])
    again = plan.config.replace(source=source, out=None, force=False, dry_run=False)
    known = {
        "name": plan.source.name,
        "options": written.manifest.options,
        "origin": written.manifest.source,
        "known_as": names() if plan.layout.whole else {},
        "again": command("san", "prepare", *again.arguments()),
    }
    write_page(folder / PAGE, facts | known, pictures)


def draw_sheets(shelf: Shelf, pictures: Iterable[Picture], facts: dict[str, Any]) -> dict[str, list[Shot]]:
    """Some pictures of every class, as at random, and of those without one: the lowest by sha256."""
    count, side = sheet_of(len(facts["classes"]))
    shown = {*shown_classes(facts["counts"]), ""}
    classes: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if (name := picture.label or "") in shown:
            classes[name].append(picture)
    lowest = partial(heapq.nsmallest, count, key=lambda picture: (picture.sha256, picture.path))
    paths = {name: [picture.path for picture in lowest(classes[name])] for name in sorted(classes)}
    if "" in paths:  # last on the page
        paths[""] = paths.pop("")
    total = sum(map(len, paths.values()))
    with progress("Drawing the report", total=total, unit="images") as bar:
        thumbs = in_threads(partial(shelf.thumb, side=2 * side), (p for some in paths.values() for p in some))
        sheets = {}
        for name, some in paths.items():
            sheets[name] = [Shot(path=path, image=next(thumbs)) for path in some]
            bar.advance(len(some))
    return sheets


def draw_twins(shelf: Shelf, chosen: Selection) -> dict[str, Sets]:
    """Sets of identical files, and of pictures that look alike, those of each kind by themselves."""
    found: dict[str, Sets] = {}
    for identical, every in ((True, chosen.duplicates.twins), (False, chosen.near)):
        for kind in KINDS:
            if sets := [twins for twins in every if twins.kind == kind]:
                groups = [draw_set(shelf, twins, identical=identical) for twins in first(sets)]
                found[kind if identical else f"near_{kind}"] = Sets(groups, len(sets))
    return found


def first(sets: Sequence[Twins]) -> list[Twins]:
    """As many of the sets as the page has room for."""
    sizes = accumulate(min(len(twins.pictures), MOST_TWINS) for twins in sets)
    return [twins for twins, size in zip(sets, sizes, strict=True) if size <= MOST_SHOTS]


def draw_set(shelf: Shelf, twins: Twins, *, identical: bool) -> Group:
    """One of them, side by side; of identical files it is said which were kept."""
    kept = {picture.path for picture in twins.kept}
    shots = [
        Shot(
            path=picture.path,
            image=shelf.thumb(picture.path, SIDE_PX),
            label=str(picture.label),
            split=shelf.split(picture.path) or picture.split or "",
            action=("kept" if picture.path in kept else "dropped") if identical else "",
        )
        for picture in twins.pictures[:MOST_TWINS]
    ]
    return Group(shots, len(twins.pictures))


def draw_problems(shelf: Shelf, problems: Sequence[dict[str, str]]) -> list[Group]:
    """The files that were not taken, by what is wrong with them, the most frequent first."""
    kinds: dict[str, list[dict[str, str]]] = defaultdict(list)
    for problem in problems:
        if problem["action"] in ("skipped", "left out") and problem["problem"] != OVER_LIMIT:
            kinds[kind_of(problem["problem"])].append(problem)
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_KINDS]
    return [
        Group([draw_problem(shelf, problem) for problem in found[:MOST_PROBLEMS]], len(found), title=kind)
        for kind, found in ordered
    ]


def draw_problem(shelf: Shelf, problem: dict[str, str]) -> Shot:
    """One of them. What no decoder could read before is not given to one again, but for truncated JPEGs."""
    draw = {"left out": shelf.thumb, "skipped": shelf.rest}[problem["action"]]
    shown = problem["action"] == "left out" or problem["problem"].startswith("truncated")
    return Shot(
        path=problem["path"],
        image=draw(problem["path"], SIDE_PX) if shown else None,
        note=problem["problem"],
        action=problem["action"],
    )


def draw_equalized(shelf: Shelf, sheets: dict[str, list[Shot]]) -> list[Equalized]:
    """What --equalize does to the pictures of the sheets with the least contrast, at most one of a class."""
    dullest = []
    for shots in sheets.values():
        found = [(contrast(shot.image), shot.path) for shot in shots if shot.image is not None]
        dullest += sorted(one for one in found if one[0] >= FLAT)[:1]
    paths = [path for _, path in sorted(dullest)[:EQUALIZED]]
    return [
        equalized(load_image(shelf.file(path), max_pixels=shelf.max_pixels), EQUALIZED_PX) for path in paths
    ]
