"""`san prepare`: a folder or an archive of images, checked, split, and laid out for training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sancli.config import PrepareConfig
from sancli.console import emit, next_command, plural, say, warn
from sancli.data.listing import describe_endings
from sancli.data.preparation import classes
from sancli.data.preparation.building import building, check_free, check_places
from sancli.data.preparation.groups import describe, grouped
from sancli.data.preparation.layouts import Layout, recognise
from sancli.data.preparation.near import check_library, find_near
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.selection import select, shares
from sancli.data.preparation.source import Source, open_source
from sancli.data.prepared import MANIFEST, PAGE, Prepared, open_prepared, write_sums
from sancli.errors import DataError, UsageError, command, printable
from sancli.report import preparation
from sancli.tasks.preparation.facts import gather, gather_again
from sancli.tasks.preparation.labelling import see
from sancli.tasks.preparation.reading import read_images
from sancli.tasks.preparation.reporting import write_report
from sancli.tasks.preparation.verifying import check
from sancli.tasks.preparation.writing import write

USUAL = "san15-patchwise"
"""The published network that is proposed where none is here."""


def run(config: PrepareConfig) -> None:
    """Prepares a source, or says that it was prepared already; with --check looks at what was prepared."""
    if config.check:
        check(config.source)
        return
    plan = look(config)
    if not config.force and (prepared := unchanged(plan)):
        say(f"{plan.out} is prepared already, from the same source with the same options: nothing to do.")
        emit(gather_again(plan, prepared))
        say_next(plan)
        return
    with workplace(plan) as folder, plan.source.files(plan.paths, folder) as files:
        images = read_images(plan, files)
        chosen = select(images.labelled, plan.classes, plan.to_split, config, whole=plan.layout.whole)
        if config.near_duplicates:
            chosen.near, looks = find_near(chosen.pictures, max_pixels=config.max_pixels)
            chosen.problems += looks
        problems = sorted(plan.unusable + images.bad + chosen.problems)
        facts = gather(plan, images, chosen, problems)
        if folder is not None:
            written = write(folder, plan, chosen.pictures + images.unlabelled, problems, images.hashes)
            facts["written"] = written.ways
            write_report(folder, plan=plan, facts=facts, written=written, chosen=chosen, files=files)
            write_sums(folder)
    finish(plan, facts)


def look(config: PrepareConfig) -> Plan:
    """Lists the source, recognises its layout, chooses classes and splits; writes nothing."""
    if config.near_duplicates:
        check_library()
    source = open_source(config.source)
    out = config.out or Path("data") / source.name
    if config.source.is_dir():
        check_places(config.source, out)
    if not source.is_folder and config.link in ("hard", "sym", "reflink"):
        raise UsageError(
            f"--link {config.link} cannot be obeyed.",
            why=f"the images are unpacked from {source.path}: there is nothing to link to.",
            fix="leave --link out.",
        )
    layout = recognise(see(config, source), config.layout)
    source.listing.use(layout.label_files)
    least = 1 if layout.whole else 2
    images = classes.choose(layout.images, only=config.only, skip=config.skip, least=least)
    if config.group_by is not None:
        images = grouped(images, config.group_by)
    classes.check_names(images)
    say_look(source, layout)
    if config.group_by is not None:
        say(f"--group-by: {describe(images)}.")
    if changed := classes.rewritten(images):
        warn(preparation.renamed(changed))
    for warning in [] if layout.whole else classes.check_splits(images):
        warn(warning)
    to_split = shares(images, config, whole=layout.whole)
    return Plan(source, out, layout, classes.cleaned(images), to_split, config)


def say_look(source: Source, layout: Layout) -> None:
    """Names the layout and why, and what is ignored, before anything is read or written."""
    names = sorted({image.label for image in layout.images if image.label is not None})
    some = ", ".join(map(printable, names[:8])) + (", ..." if len(names) > 8 else "")
    say(f"Layout: {layout.name}, because {printable(layout.why)}.")
    say(f"{plural(len(source.listing.images), 'image')}, {plural(len(names), 'class', 'classes')}: {some}")
    if links := source.listing.links:
        say(f"{links:,} of them are links to files in the source; an image and a link to it are duplicates.")
    for note in layout.notes:
        say(printable(note))
    if source.listing.others:
        others = source.listing.others
        say(f"{plural(others.total(), 'file')} with other extensions ignored ({describe_endings(others)})")
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


def finish(plan: Plan, facts: dict[str, Any]) -> None:
    """Shows what was found and done, and what to do next."""
    preparation.show(facts)
    emit(facts)
    if plan.config.dry_run:
        say("Nothing was written (--dry-run).")
        next_command("san", "prepare", *plan.config.arguments())
    else:
        say(f"All of it with pictures: {plan.out / PAGE}")
        say_next(plan)


def say_next(plan: Plan) -> None:
    """The next command: what has no training images is there to evaluate a published network."""
    if plan.layout.name != "imagenet-val":
        next_command("san", "train", plan.out)
        return
    name = _published()
    measure = ("san", "eval", "--weights", name or USUAL, "--data", plan.out, "--split", "val")
    if name:
        next_command(*measure)
    else:
        say(f"No published network is here to measure on it; with one: {command(*measure)}")
        next_command("san", "download-weights", USUAL)


def _published() -> str | None:
    """A published network that is here; None: there is none."""
    from sancli import weights  # brings in torch, which nothing else here needs
    from sancli.model.zoo import PUBLISHED

    return next((name for name in (USUAL, *PUBLISHED) if weights.is_downloaded(name)), None)
