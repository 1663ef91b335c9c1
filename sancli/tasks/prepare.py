"""`san prepare`: a folder or an archive of images, checked, split, and laid out for training."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sancli.config import SPLITS, PrepareConfig
from sancli.console import emit, next_command, plural, say, warn
from sancli.data.listing import Problem
from sancli.data.preparation import classes
from sancli.data.preparation.building import building, check_free, check_places
from sancli.data.preparation.duplicates import KINDS
from sancli.data.preparation.layouts import Layout, recognise
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.placing import assign_names, place_files
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.scan import Scan, scan_files
from sancli.data.preparation.selection import Selection, select, shares
from sancli.data.preparation.source import Source, open_source
from sancli.data.prepared import MANIFEST, UNLABELLED, Manifest, Prepared, open_prepared, write_prepared
from sancli.errors import DataError, UsageError, printable
from sancli.report import preparation


def run(config: PrepareConfig) -> None:
    """Prepares a source, or says that it was prepared already."""
    plan = look(config)
    if not config.force and (prepared := unchanged(plan)):
        say(f"{plan.out} is prepared already, from the same source with the same options: nothing to do.")
        emit(gather_again(plan, prepared))
        next_command("san", "train", plan.out)
        return
    with workplace(plan) as folder, plan.source.files(plan.paths, folder) as files:
        scans = scan_files(files, max_pixels=config.max_pixels)
        bad = bad_files(plan, scans)
        labelled, unlabelled = pictures(plan, files, scans)
        chosen = select(labelled, plan.classes, plan.to_split, config)
        problems = sorted(plan.unusable + bad + chosen.problems)
        facts = gather(plan, scans, chosen, unlabelled, problems)
        if folder is not None:
            facts["written"] = write(folder, plan, chosen.pictures + unlabelled, problems, scans)
    finish(plan, facts)


def look(config: PrepareConfig) -> Plan:
    """Lists the source, recognises its layout, chooses classes and splits; writes nothing."""
    source = open_source(config.source)
    out = config.out or Path("data") / source.name
    if source.is_folder:
        check_places(source.path, out)
    elif config.link in ("hard", "sym"):
        raise UsageError(
            f"--link {config.link} cannot be obeyed.",
            why=f"{source.path} is an archive: its images are unpacked, and there is nothing to link to.",
            fix="leave --link out.",
        )
    layout = recognise(source.listing, source=str(config.source), wanted=config.layout)
    images = classes.choose(layout.images, only=config.only, skip=config.skip)
    classes.check_names(images)
    say_look(source, layout)
    if changed := classes.rewritten(images):
        warn(preparation.renamed(changed))
    for warning in classes.check_splits(images):
        warn(warning)
    return Plan(source, out, layout, classes.cleaned(images), shares(images, config), config)


def say_look(source: Source, layout: Layout) -> None:
    """Names the layout and why, and what is ignored, before anything is read or written."""
    names = sorted({image.label for image in layout.images if image.label is not None})
    some = ", ".join(map(printable, names[:8])) + (", ..." if len(names) > 8 else "")
    say(f"Layout: {layout.name}, because {layout.why}.")
    say(f"{plural(len(source.listing.images), 'image')}, {len(names)} classes: {some}")
    if source.listing.others:
        count = source.listing.others.total()
        say(f"{plural(count, 'file')} with other extensions ignored ({source.listing.describe_others()})")
    if layout.empty:
        some = ", ".join(map(printable, layout.empty[:8])) + (", ..." if len(layout.empty) > 8 else "")
        warn(f"{plural(len(layout.empty), 'class', 'classes')} without an image, left out: {some}")


def unchanged(plan: Plan) -> Prepared | None:
    """What is there already, where it is whole and made from the same images with the same settings."""
    if not (plan.out / MANIFEST).is_file():
        return None
    try:
        prepared = open_prepared(plan.out)
    except DataError:
        return None
    manifest = prepared.manifest
    same = manifest.options == plan.options() and manifest.layout == plan.layout.name and prepared.is_whole()
    return prepared if same and manifest.source["sha256"] == plan.sha256() else None


def differences(plan: Plan) -> str:
    """For people: how what is there differs from what is wanted, where `unchanged` found that it does."""
    try:
        prepared = open_prepared(plan.out)
    except DataError as error:
        return error.what.rstrip(".")
    then, now = prepared.manifest, plan.options()
    found = [
        f"--{key.replace('_', '-')} {_value(then.options.get(key))} then, {_value(now[key])} now"
        for key in now
        if then.options.get(key) != now[key]
    ]
    if then.source["name"] != (name := plan.source.path.resolve().name):
        found.append(f"another source, {then.source['name']} then, {name} now")
    if not prepared.is_whole():
        found.append(f"{plan.out} has changed since")
    return "; ".join(found) or "the source has changed since"


def _value(value: Any) -> str:
    return "not given" if value is None else str(value)


@contextmanager
def workplace(plan: Plan) -> Iterator[Path | None]:
    """Gives the folder that becomes OUT; None with --dry-run."""
    if plan.config.dry_run:
        yield None
        return
    check_free(plan.out, force=plan.config.force, differs=lambda: differences(plan))
    with building(plan.out) as folder:
        yield folder


def bad_files(plan: Plan, scans: list[Scan]) -> list[Problem]:
    """The files that are no usable images.

    Raises:
        DataError: There is one, and --bad fail.
    """
    bad = [
        Problem(image.path, scan.reason, "skipped")
        for image, scan in zip(plan.images, scans, strict=True)
        if scan.reason is not None
    ]
    if bad and plan.config.bad == "fail":
        some = "; ".join(printable(f"{problem.path}: {problem.problem}") for problem in bad[:3])
        raise DataError(
            f"{plural(len(bad), 'file')} of {len(scans):,} could not be used.",
            why=f"{some}{'; ...' if len(bad) > 3 else ''}.",
            fix="mend or remove them; or leave out --bad fail, and they are skipped.",
        )
    return bad


def pictures(plan: Plan, files: list[Path], scans: list[Scan]) -> tuple[list[Picture], list[Picture]]:
    """The usable images: labelled ones, then those without a class."""
    usable = [
        Picture(
            path=image.path,
            file=file,
            label=image.label,
            split=image.split,
            sha256=scan.sha256,
            width=scan.width,
            height=scan.height,
            format=scan.format,
        )
        for image, file, scan in zip(plan.images, files, scans, strict=True)
        if scan.reason is None
    ]
    labelled = [picture for picture in usable if picture.label is not None]
    return labelled, [picture for picture in usable if picture.label is None]


def gather(
    plan: Plan, scans: list[Scan], chosen: Selection, unlabelled: list[Picture], problems: list[Problem]
) -> dict[str, Any]:
    """Everything worth knowing about this run: what --json prints, and the screen is made from."""
    known = gather_known(plan, count(chosen.pictures), len(unlabelled))
    return known | {
        "unchanged": False,
        "turned": sum(scan.turned for scan in scans),
        "several_frames": sum(scan.frames for scan in scans),
        "duplicates": {
            "policy": plan.config.duplicates,
            "sets": {kind: chosen.duplicates.sets[kind] for kind in KINDS},
            "dropped": {kind: chosen.duplicates.dropped[kind] for kind in KINDS},
            "shared": {"-".join(pair): files for pair, files in chosen.duplicates.shared.items()},
        },
        "classes_left_out": chosen.small,
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }


def gather_again(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """The same of an earlier run, without what only the images tell: turned ones, duplicates."""
    manifest = prepared.manifest
    known = gather_known(plan, manifest.counts, manifest.unlabelled)
    return manifest.to_dict() | known | {"unchanged": True, "problems": prepared.problems()}


def gather_known(plan: Plan, counts: dict[str, dict[str, int]], unlabelled: int) -> dict[str, Any]:
    """What the plan and the numbers of images tell, whether they are prepared now or were before."""
    train = counts["train"]
    return {
        "command": "prepare",
        "source": str(plan.config.source),
        "out": str(plan.out),
        "dry_run": plan.config.dry_run,
        "layout": plan.layout.name,
        "classes": sorted(train),
        "counts": counts,
        "unlabelled": unlabelled,
        "images_found": len(plan.source.listing.images),
        "images_taken": sum(sum(row.values()) for row in counts.values()) + unlabelled,
        "written": {},
        "ignored": dict(plan.source.listing.others),
        "split_off": plan.to_split,
        "seed": plan.config.seed,
        "largest_over_smallest": max(train.values()) / max(1, min(train.values())),
        "empty_folders": plan.layout.empty,
    }


def count(chosen: list[Picture]) -> dict[str, dict[str, int]]:
    """Images by split and class, both in their order; a split without images is left out."""
    found = Counter((picture.split, str(picture.label)) for picture in chosen)
    names = sorted({label for _, label in found})
    table = {split: {name: found[split, name] for name in names} for split in SPLITS}
    return {split: row for split, row in table.items() if any(row.values())}


def write(
    folder: Path, plan: Plan, chosen: list[Picture], problems: list[Problem], scans: list[Scan]
) -> dict[str, int]:
    """Fills the prepared folder; gives back how many files came there in which way."""
    chosen = [dataclasses.replace(p, split=UNLABELLED) if p.label is None else p for p in chosen]
    names = assign_names(chosen)
    ways = place_files(chosen, names, folder, link=plan.config.link if plan.source.is_folder else "move")
    rows = [
        (
            "/".join(filter(None, (p.split, p.label, names[p.path]))),
            *(p.split, p.label or "", p.path, p.sha256, p.width, p.height),
        )
        for p in chosen
    ]
    manifest = describe(plan, chosen, sha256=plan.sha256([scan.sha256 for scan in scans]))
    write_prepared(folder, manifest, sorted(rows), map(dataclasses.astuple, problems))
    return dict(ways)


def describe(plan: Plan, chosen: list[Picture], *, sha256: str) -> Manifest:
    """What becomes dataset.json; the order of the classes is decided here."""
    labelled = [picture for picture in chosen if picture.label is not None]
    sides = [min(picture.width, picture.height) for picture in labelled if picture.split == "train"]
    return Manifest(
        name=plan.source.name,
        layout=plan.layout.name,
        classes=tuple(sorted({str(picture.label) for picture in labelled})),
        counts=count(labelled),
        unlabelled=len(chosen) - len(labelled),
        median_short_side_px=int(statistics.median(sides)),
        source={
            "name": plan.source.path.resolve().name,
            "kind": "folder" if plan.source.is_folder else "zip",
            "sha256": sha256,
        },
        options=plan.options(),
    )


def finish(plan: Plan, facts: dict[str, Any]) -> None:
    """Shows what was found and done, and what to do next."""
    preparation.show(facts)
    emit(facts)
    if plan.config.dry_run:
        say("Nothing was written (--dry-run).")
        next_command("san", "prepare", *plan.config.arguments())
    else:
        next_command("san", "train", plan.out)
