"""What `san prepare` found and did, on the screen: from the same facts that --json gives."""

from collections.abc import Iterable
from typing import Any

from sancli.config import SPLITS
from sancli.console import plural, result, say, table, warn

SHOWN = 5
"""Files named on the screen; problems.csv has them all."""
TINY = 20
"""Training images under which a class is named: with fewer, even its accuracy is a guess."""


def show(facts: dict[str, Any]) -> None:
    """Prints counts, what was left out and why, duplicates and weak classes."""
    result(_counts(facts["counts"]))
    _say_sums(facts)
    _say_bad(facts)
    _say_duplicates(facts["duplicates"])
    _say_classes(facts)


def _counts(counts: dict[str, dict[str, int]]) -> Any:
    splits = [split for split in SPLITS if split in counts]
    classes = sorted({name for split in splits for name in counts[split]})
    rows: list[list[object]] = [[name, *(counts[split].get(name, 0) for split in splits)] for name in classes]
    rows.append(["all", *(sum(counts[split].values()) for split in splits)])
    return table(["class", *splits], rows)


def _say_sums(facts: dict[str, Any]) -> None:
    taken, found = facts["images_taken"], facts["images_found"]
    unlabelled = f", {facts['unlabelled']:,} of them unlabelled" if facts["unlabelled"] else ""
    say(f"{taken:,} of {plural(found, 'image')} taken{unlabelled}.")
    for split, share in facts["split_off"].items():
        say(f"{split}: {share:.0%} of each class, chosen by seed {facts['seed']}; the source brings none.")
    if facts["largest_over_smallest"]:
        say(f"Largest class over smallest, in train: {facts['largest_over_smallest']:.1f}")
    if facts["turned"]:
        say(f"{plural(facts['turned'], 'image')} will be turned upright, as EXIF says.")
    if facts["several_frames"]:
        say(f"{plural(facts['several_frames'], 'file')} with several frames or pages: the first is used.")


def _say_bad(facts: dict[str, Any]) -> None:
    for action, title in (("skipped", "could not be used"), ("left out", "left out")):
        chosen = [problem for problem in facts["problems"] if problem["action"] == action]
        if chosen:
            warn(f"{plural(len(chosen), 'file')} {title}:")
            _say_some(f"{problem['path']}: {problem['problem']}" for problem in chosen)


def _say_some(lines: Iterable[str]) -> None:
    lines = list(lines)
    for line in lines[:SHOWN]:
        say(f"  {line}")
    if len(lines) > SHOWN:
        say(f"  and {len(lines) - SHOWN:,} more, in problems.csv")


def _say_duplicates(found: dict[str, Any]) -> None:
    sets, dropped = found["sets"], found["dropped"]
    if sets["inside_class"]:
        what = plural(sets["inside_class"], "set")
        say(f"Duplicates: {what} of identical files inside a class; {_dropped(dropped['inside_class'])}.")
    if sets["across_classes"]:
        what = plural(sets["across_classes"], "set")
        warn(f"contradictory labels: {what} of identical files in more than one class; {_dropped(dropped['across_classes'])}.")
    for pair, count in found["shared"].items():
        one, other = pair.split("-")
        warn(f"leak: {plural(2 * count, 'file')} byte-identical in {one} and {other}")
    if sets["across_splits"]:
        say(f"  {_dropped(dropped['across_splits'])} for that.")


def _dropped(count: int) -> str:
    return f"{plural(count, 'image')} dropped from train" if count else "none dropped"
