"""Reads every image of a source: which of them can be used, and what all of them are like."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sancli.console import plural
from sancli.data.listing import Problem
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.scan import Scan, scan_files
from sancli.errors import DataError, printable

MOST_SIZES = 5
"""Sizes of images that are named."""


@dataclass(frozen=True)
class Images:
    """What came of reading them. The scans themselves are not kept: they fill the memory twice over."""

    labelled: list[Picture]
    unlabelled: list[Picture]
    bad: list[Problem]
    """The files that are no usable images."""
    hashes: list[str]
    """The sha256 of every file, in the order of the plan."""
    turned: int
    several_frames: int
    described: dict[str, Any]
    """Formats, modes and sizes."""


def read_images(plan: Plan, files: Sequence[str]) -> Images:
    """Reads the file of each image of the plan.

    Raises:
        DataError: One is no usable image, and --bad fail.
    """
    scans = scan_files(files, max_pixels=plan.config.max_pixels)
    bad = bad_files(plan, scans)
    usable = pictures(plan, files, scans)
    return Images(
        labelled=[picture for picture in usable if picture.label is not None],
        unlabelled=[picture for picture in usable if picture.label is None],
        bad=bad,
        hashes=[scan.sha256 for scan in scans],
        turned=sum(scan.turned for scan in scans),
        several_frames=sum(scan.frames for scan in scans),
        described=describe_images(scans),
    )


def bad_files(plan: Plan, scans: Sequence[Scan]) -> list[Problem]:
    """The files that are no usable images.

    Raises:
        DataError: There is one, and --bad fail.
    """
    bad = [
        Problem(image.path, scan.reason, "skipped")
        for image, scan in zip(plan.images, scans, strict=True)
        if scan.reason is not None
    ]
    wrong = [problem for problem in plan.unusable if problem.action == "skipped"] + bad
    if wrong and plan.config.bad == "fail":
        some = "; ".join(printable(f"{problem.path}: {problem.problem}") for problem in wrong[:3])
        raise DataError(
            f"{plural(len(wrong), 'file')} could not be used, of {len(scans):,} images.",
            why=f"{some}{'; and more' if len(wrong) > 3 else ''}.",
            fix="mend or remove them; or leave out --bad fail, and they are skipped.",
        )
    return bad


def pictures(plan: Plan, files: Sequence[str], scans: Sequence[Scan]) -> list[Picture]:
    """The images that can be used."""
    return [
        Picture(
            path=image.path,
            file=file,
            label=image.label,
            split=image.split,
            sha256=scan.sha256,
            width=scan.width,
            height=scan.height,
            format=scan.format,
            group=image.group,
        )
        for image, file, scan in zip(plan.images, files, scans, strict=True)
        if scan.reason is None
    ]


def describe_images(scans: Sequence[Scan]) -> dict[str, Any]:
    """Formats, modes and sizes of the images that can be read."""
    good = [scan for scan in scans if scan.reason is None]
    sides = sorted(min(scan.width, scan.height) for scan in good)
    sizes = Counter(f"{scan.width} x {scan.height}" for scan in good)
    return {
        "formats": _by_number(Counter(scan.format for scan in good)),
        "modes": _by_number(Counter(scan.mode for scan in good)),
        "sizes": dict(list(_by_number(sizes).items())[:MOST_SIZES]),
        "short_side_px": [sides[0], sides[len(sides) // 2], sides[-1]] if sides else [],
    }


def _by_number(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
