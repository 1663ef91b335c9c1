"""Everything worth knowing about a preparation: --json prints it, screen and report are made from it."""

import dataclasses
from collections import Counter
from typing import Any

from sancli.config import SPLITS
from sancli.data.listing import Problem
from sancli.data.preparation.classes import rewritten
from sancli.data.preparation.duplicates import KINDS
from sancli.data.preparation.picture import Picture
from sancli.data.preparation.plan import Plan
from sancli.data.preparation.selection import Selection
from sancli.data.prepared import Prepared
from sancli.tasks.preparation.reading import Images


def gather(plan: Plan, images: Images, chosen: Selection, problems: list[Problem]) -> dict[str, Any]:
    """Everything worth knowing about this run: what --json prints, and the screen is made from."""
    known = gather_known(plan, count(chosen.pictures), len(images.unlabelled))
    policy = plan.config.duplicates
    return known | {
        "unchanged": False,
        "not_taken": not_taken(known, len(images.bad), problems),
        "turned": images.turned,
        "several_frames": images.several_frames,
        "duplicates": {
            "policy": "report" if plan.layout.whole and policy == "drop" else policy,
            "sets": {kind: chosen.duplicates.sets[kind] for kind in KINDS},
            "dropped": {kind: chosen.duplicates.dropped[kind] for kind in KINDS},
            "shared": {"-".join(pair): files for pair, files in chosen.duplicates.shared.items()},
        },
        "near_duplicates": near_sets(chosen) if plan.config.near_duplicates else None,
        "images": images.described,
        "classes_left_out": chosen.small,
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }


def not_taken(known: dict[str, Any], bad: int, problems: list[Problem]) -> dict[str, int]:
    """Why images that were found are not taken, and how many for each reason."""
    actions = Counter(problem.action for problem in problems)
    reasons = {
        "dropped as duplicates": actions["dropped"],
        "could not be read": bad,
        "left out": actions["left out"],
    }
    others = known["images_found"] - known["images_taken"] - sum(reasons.values())
    return {reason: count for reason, count in (reasons | {"of other classes": others}).items() if count}


def near_sets(chosen: Selection) -> dict[str, int]:
    """Sets of pictures that look alike, by the worst that is true of them."""
    return {kind: sum(twins.kind == kind for twins in chosen.near) for kind in KINDS}


def gather_again(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """The same of an earlier run, without what only the images tell: turned ones, duplicates."""
    manifest = prepared.manifest
    known = gather_known(plan, manifest.counts, manifest.unlabelled)
    return manifest.to_dict() | known | {"unchanged": True, "problems": prepared.problems()}


def gather_known(plan: Plan, counts: dict[str, dict[str, int]], unlabelled: int) -> dict[str, Any]:
    """What the plan and the numbers of images tell, whether they are prepared now or were before."""
    learnt = counts.get("train") or next(iter(counts.values()))  # ImageNet's val has no train
    return {
        "command": "prepare",
        "source": str(plan.config.source),
        "out": str(plan.out),
        "dry_run": plan.config.dry_run,
        "layout": plan.layout.name,
        "label_files": sorted(plan.layout.label_files),
        "classes": sorted(learnt),
        "counts": counts,
        "unlabelled": unlabelled,
        "images_found": len(plan.source.listing.images),
        "images_taken": sum(sum(row.values()) for row in counts.values()) + unlabelled,
        "written": {},
        "ignored": dict(plan.source.listing.others),
        "split_off": plan.to_split,
        "seed": plan.config.seed,
        "largest_over_smallest": max(learnt.values()) / max(1, min(learnt.values())),
        "empty_folders": plan.layout.empty,
        "renamed": rewritten(plan.layout.images),
    }


def count(chosen: list[Picture]) -> dict[str, dict[str, int]]:
    """Images by split and class, both in their order; a split without images is left out."""
    found = Counter((picture.split, str(picture.label)) for picture in chosen)
    names = sorted({label for _, label in found})
    table = {split: {name: found[split, name] for name in names} for split in SPLITS}
    return {split: row for split, row in table.items() if any(row.values())}
