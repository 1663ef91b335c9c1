"""A figure beside the one that the authors published: do the two agree, as far as so many images can tell?"""

from collections.abc import Set
from typing import Any

from sancli import console
from sancli.config import RELATIONS
from sancli.data import imagenet
from sancli.model.zoo import BASELINES, PUBLISHED, Network
from sancli.runs import ModelInfo

HARDLY_ANY = 0.01
"""Top-1 below which labels are to blame: chance alone gives 0.001, and every published network over 0.7."""
ALL = 50_000
"""Validation images of ImageNet, on which the published figures were measured."""


def published_for(info: ModelInfo) -> tuple[str, Network] | None:
    """The row of the authors' table that a network is to be held to; None: it is none of theirs."""
    names = imagenet.names()
    if set(info.classes) not in (set(names), set(names.values())):
        return None
    if info.arch in BASELINES:
        return info.arch, BASELINES[info.arch]
    name = f"{info.arch}-{info.attention}"
    usual = info.relation in (None, RELATIONS[info.attention][0])
    return (name, PUBLISHED[name]) if usual and name in PUBLISHED else None


def beside_published(info: ModelInfo, figures: dict[str, Any], present: Set[int]) -> dict[str, Any]:
    """For metrics.json: the published figures, and whether ours differ by more than chance; {} without any.

    Args:
        info: The network that was measured.
        figures: top1, its interval of 95 %, top5 and the number of images.
        present: The labels that have images.
    """
    row = published_for(info)
    if row is None:
        return {}
    name, network = row
    low, high = figures["top1_interval"]
    return {
        "classes_with_images": len(present),
        "published": {
            "name": name,
            "top1": network.top1 / 100,
            "top5": network.top5 / 100,
            "images": ALL,
            "difference": figures["top1"] - network.top1 / 100,
            "within_chance": low <= network.top1 / 100 <= high,
        },
    }


def show_published(figures: dict[str, Any]) -> None:
    """The published figures, and in a sentence what the difference means; nothing where there are none."""
    if "published" not in figures:
        return
    theirs, present, classes = figures["published"], figures["classes_with_images"], len(imagenet.names())
    console.result(
        f"Published for {theirs['name']}: top-1 {100 * theirs['top1']:.1f} %, top-5 "
        f"{100 * theirs['top5']:.1f}, on all {ALL:,} validation images"
    )
    console.result(verdict(figures))
    if present < classes:
        console.say(
            f"{present} of {classes:,} classes have images here; answers are still among all {classes:,}. "
            "The published figure is of all classes: these may be easier or harder."
        )
    if figures["top1"] < HARDLY_ANY and not theirs["within_chance"]:
        console.warn(
            "under 1 % is right: the labels are probably numbered differently from ImageNet's sorted wnids; "
            "look at --labels of san prepare, or name the class folders by their wnids."
        )


def verdict(figures: dict[str, Any]) -> str:
    """Whether the difference is chance, in a sentence."""
    theirs, images = figures["published"], console.plural(figures["images"], "image")
    difference = f"The difference of {100 * theirs['difference']:+.1f} points is"
    if theirs["within_chance"]:
        return f"{difference} within chance for {images}: the published top-1 lies in the 95 % interval."
    return (
        f"{difference} more than chance for {images}: the published top-1 lies outside the 95 % interval. "
        "Images, labels or weights are not the authors'."
    )
