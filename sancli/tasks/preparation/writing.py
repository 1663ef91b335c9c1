"""Fills the prepared folder: the images, and the files that describe them."""

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path

from sancli.data.listing import Problem
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.placing import assign_names, place_files, place_of
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.resizing import place_resized, written_as
from sancli.data.preparation.scan import Scan
from sancli.data.prepared import UNLABELLED, Manifest, write_prepared
from sancli.tasks.preparation.facts import count


@dataclass(frozen=True)
class Written:
    """What stands in the prepared folder now."""

    ways: dict[str, int]
    """How many images came there in which way."""
    pictures: list[Picture]
    """Each with its split, and its file where it is now."""
    manifest: Manifest


def write(
    folder: Path, plan: Plan, chosen: list[Picture], problems: list[Problem], scans: list[Scan]
) -> Written:
    """Fills the prepared folder."""
    chosen = [dataclasses.replace(p, split=UNLABELLED) if p.label is None else p for p in chosen]
    link, side = plan.config.link if plan.source.is_folder else "move", plan.config.resize
    if side is None:
        names = assign_names(chosen)
        ways = place_files(chosen, names, folder, link=link)
    else:
        chosen = [written_as(picture, side) for picture in chosen]
        names = assign_names(chosen)
        link = "copy" if link == "auto" else link
        limit = plan.config.max_pixels
        chosen, ways = place_resized(chosen, names, folder, side=side, max_pixels=limit, link=link)
    chosen = [dataclasses.replace(p, file=folder / place_of(p, names[p.path])) for p in chosen]
    rows = [
        (place_of(p, names[p.path]), p.split, p.label or "", p.path, p.sha256, p.width, p.height)
        for p in chosen
    ]
    manifest = describe(plan, chosen, sha256=plan.sha256([scan.sha256 for scan in scans]))
    write_prepared(folder, manifest, sorted(rows), map(dataclasses.astuple, problems))
    return Written(dict(ways), chosen, manifest)


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
