"""Fills the prepared folder: the images, and the files that describe them."""

import dataclasses
import statistics
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from sancli.data.listing import Problem
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.placing import assign_places, place_files
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.resizing import place_resized, written_as
from sancli.data.prepared import UNLABELLED, Manifest, write_prepared
from sancli.tasks.preparation.facts import count


@dataclass(frozen=True)
class Written:
    """What stands in the prepared folder now."""

    ways: dict[str, int]
    """How many images came there in which way."""
    pictures: list[Picture]
    places: list[str]
    """Of each picture, relative to the folder."""
    manifest: Manifest


def write(
    folder: Path, plan: Plan, chosen: list[Picture], problems: list[Problem], hashes: list[str]
) -> Written:
    """Fills the prepared folder.

    Args:
        folder: It is empty.
        plan: What was to be done.
        chosen: The images that are taken, with a split each; and those without a class.
        problems: What was found about the others.
        hashes: Of all images that were found.
    """
    chosen = [dataclasses.replace(p, split=UNLABELLED) if p.label is None else p for p in chosen]
    link, side = plan.config.link if plan.source.is_folder else "move", plan.config.resize
    if side is None:
        places = assign_places(chosen)
        ways = place_files(chosen, places, folder, link=link)
    else:
        chosen = [written_as(picture, side) for picture in chosen]
        places = assign_places(chosen)
        link = "copy" if link == "auto" else link
        limit = plan.config.max_pixels
        chosen, ways = place_resized(chosen, places, folder, side=side, max_pixels=limit, link=link)
    manifest = describe(plan, chosen, sha256=plan.sha256(hashes))
    rows = (
        (place, p.split, p.label or "", p.path, p.sha256, p.width, p.height)
        for place, p in sorted(zip(places, chosen, strict=True), key=itemgetter(0))
    )
    write_prepared(folder, manifest, rows, map(dataclasses.astuple, problems))
    return Written(dict(ways), chosen, places, manifest)


def describe(plan: Plan, chosen: list[Picture], *, sha256: str) -> Manifest:
    """What becomes dataset.json; the order of the classes is decided here."""
    labelled = [picture for picture in chosen if picture.label is not None]
    learnt = [picture for picture in labelled if picture.split == "train"] or labelled
    sides = [min(picture.width, picture.height) for picture in learnt]
    return Manifest(
        name=plan.source.name,
        layout=plan.layout.name,
        classes=tuple(sorted({str(picture.label) for picture in labelled})),
        counts=count(labelled),
        unlabelled=len(chosen) - len(labelled),
        median_short_side_px=int(statistics.median(sides)),
        source={
            "name": plan.source.path.resolve().name,
            "kind": plan.source.kind,
            "sha256": sha256,
        },
        options=plan.options(),
    )
