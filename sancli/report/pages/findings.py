"""What stands at the top of the page of a preparation: the numbers, and what the user should look at."""

from collections.abc import Iterator
from typing import Any

from sancli.console import plural
from sancli.report.preparation import (
    OVER_LIMIT,
    TINY,
    dropped,
    kinds_of,
    near_words,
    said_at_once,
    some_classes,
)

IMBALANCE = 3.0
"""Largest over smallest class from which `san train` weighs the loss by itself."""
Finding = tuple[str, str]
"""bad, look or note; and the sentence."""


def tiles(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The numbers at the top: (number, what it counts, bad, look, or nothing)."""
    bad = sum(problem["action"] == "skipped" for problem in facts["problems"])
    sets = facts["duplicates"]["sets"]
    twins = sum(facts["duplicates"]["dropped"].values())
    numbers = [
        (facts["images_taken"], f"of {plural(facts['images_found'], 'image')} taken", ""),
        (len(facts["classes"]), "classes", ""),
        (bad, "could not be used", "bad"),
        (sets["across_classes"], "contradictory labels", "bad"),
        (sets["across_splits"], "leaks between splits", "bad"),
        (twins, "duplicates dropped", "look"),
    ]
    return [(f"{number:,}", words, level if number else "") for number, words, level in numbers]


def findings(facts: dict[str, Any]) -> list[Finding]:
    """Sentences for people, the worst first."""
    found = [*_bad(facts), *_duplicates(facts), *_near(facts), *_classes(facts), *_notes(facts)]
    return sorted(found, key=lambda finding: ("bad", "look", "note").index(finding[0]))


def _bad(facts: dict[str, Any]) -> Iterator[Finding]:
    for action, words, level in (("skipped", "could not be used", "bad"), ("left out", "left out", "look")):
        chosen = [p for p in facts["problems"] if p["action"] == action and not said_at_once(p["problem"])]
        if chosen:
            yield level, f"{plural(len(chosen), 'file')} {words}: {kinds_of(chosen)}."


def _duplicates(facts: dict[str, Any]) -> Iterator[Finding]:
    found = facts["duplicates"]
    if count := found["sets"]["across_classes"]:
        sentence = f"{plural(count, 'set')} of identical files in more than one class (contradictory labels)"
        yield "bad", f"{sentence}; {dropped(found['dropped']['across_classes'])}."
    for pair, count in found["shared"].items():
        first, second = pair.split("-")
        yield "bad", f"{plural(count, 'file')} byte-identical in {first} and {second} (a leak)."
    if found["sets"]["across_splits"]:
        yield "look", f"For leaks {dropped(found['dropped']['across_splits'])}; val and test keep theirs."
    if count := found["sets"]["inside_class"]:
        sentence = f"{plural(count, 'set')} of identical files inside a class"
        yield "look", f"{sentence}; {dropped(found['dropped']['inside_class'])}."


def _near(facts: dict[str, Any]) -> Iterator[Finding]:
    if (near := facts["near_duplicates"]) is not None and any(near.values()):
        yield "look", f"{near_words(near)}; none is dropped."


def _classes(facts: dict[str, Any]) -> Iterator[Finding]:
    if small := facts["classes_left_out"]:
        yield "bad", f"Too few usable training images, left out: {some_classes(small)}."
    train = facts["counts"].get("train", {})
    if tiny := {name: count for name, count in train.items() if count < TINY}:
        yield "look", f"Fewer than {TINY} training images: {some_classes(tiny)}. Expect little of them."
    if train and (ratio := facts["largest_over_smallest"]) > IMBALANCE:
        words = f"The largest class has {ratio:.1f} times the training images of the smallest"
        yield "look", f"{words}: san train weighs the loss by itself."
    if facts["empty_folders"]:
        folders = dict.fromkeys(facts["empty_folders"], 0)
        yield "look", f"Class folders without an image, left out: {some_classes(folders)}."
    if facts["renamed"]:
        names = ", ".join(f"{name} is now {new}" for name, new in list(facts["renamed"].items())[:5])
        yield "note", f"{plural(len(facts['renamed']), 'class name')} made safe for every disk: {names}."


def _notes(facts: dict[str, Any]) -> Iterator[Finding]:
    for split, share in facts["split_off"].items():
        words = f"{share:.0%} of each class, chosen by seed {facts['seed']} and content"
        yield "note", f"{split}: {words}; the source brings none."
    if over := sum(problem["problem"] == OVER_LIMIT for problem in facts["problems"]):
        yield "note", f"{plural(over, 'image')} {OVER_LIMIT} left out."
    if facts["turned"]:
        yield "note", f"{plural(facts['turned'], 'image')} will be turned upright, as EXIF says."
    if facts["several_frames"]:
        yield "note", f"{plural(facts['several_frames'], 'file')} with several frames: the first is used."
    if facts["ignored"]:
        endings = ", ".join(f"{ending} {count:,}" for ending, count in facts["ignored"].items())
        yield "note", f"Files with other endings, ignored: {endings}."
