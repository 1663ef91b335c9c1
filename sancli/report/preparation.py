"""What `san prepare` found and did, on the screen: from the same facts that --json gives."""

import re
from collections import Counter
from typing import Any

from sancli.config import SPLITS
from sancli.console import plural, result, say, table, warn
from sancli.errors import printable

SHOWN = 5
"""Files named on the screen; problems.csv has them all."""
OVER_LIMIT = "over --max-per-class"
"""A problem that the user asked for."""
WAYS = {  # how images came into the prepared folder, and what that means
    "hard": "by hard link: they share their bytes with the source, which is never changed",
    "sym": "by symbolic link: they need the source where it is",
    "reflink": "by reflink: they share their blocks with the source until one of the two is changed",
    "copy": "copied",
    "resized": "made smaller and written anew, as --resize says",
    "move": "unpacked",
}
MANY = 40
"""Classes above which the table shows the smallest alone."""
TINY = 20
"""Training images under which a class is named: with fewer, even its accuracy is a guess."""


def show(facts: dict[str, Any]) -> None:
    """Prints counts, what was left out and why, duplicates and weak classes."""
    result(_counts(facts["counts"]))
    _say_sums(facts)
    for action, title in (("skipped", "could not be used"), ("left out", "left out")):
        chosen = [p for p in facts["problems"] if p["action"] == action and not said_at_once(p["problem"])]
        if chosen:
            words = f"{plural(len(chosen), 'file')} {title} ({kinds_of(chosen)})"
            _warn_of(words, chosen, written=not facts["dry_run"])
    _say_duplicates(facts)
    _say_near(facts)
    _say_classes(facts)


def said_at_once(problem: str) -> bool:
    """Whether one sentence tells it of many files: those over a limit, and those of a class too small."""
    return problem == OVER_LIMIT or problem.startswith("class ")


def renamed(names: dict[str, str]) -> str:
    """One line for class names that were rewritten: {name: what became of it}."""
    shown = ", ".join(f"{printable(name)} becomes {safe}" for name, safe in list(names.items())[:SHOWN])
    more = f", and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{plural(len(names), 'class name')} rewritten to be safe on every disk: {shown}{more}."


def _counts(counts: dict[str, dict[str, int]]) -> Any:
    splits = [split for split in SPLITS if split in counts]
    classes = sorted({name for split in splits for name in counts[split]})
    if len(classes) > MANY:  # the small ones are those to worry about
        first = counts[splits[0]]
        smallest = sorted(classes, key=lambda name: first[name])[: MANY // 2]
        shown, title = sorted(smallest), f"The {len(smallest)} smallest of {len(classes):,} classes"
    else:
        shown, title = classes, None
    rows: list[list[object]] = [[name, *(counts[split].get(name, 0) for split in splits)] for name in shown]
    rows.append(["all", *(sum(counts[split].values()) for split in splits)])
    return table(["class", *splits], rows, title=title)


def _say_sums(facts: dict[str, Any]) -> None:
    taken, found = facts["images_taken"], facts["images_found"]
    unlabelled = f", {facts['unlabelled']:,} of them unlabelled" if facts["unlabelled"] else ""
    rest = "".join(f"; {count:,} {reason}" for reason, count in facts["not_taken"].items())
    say(f"{taken:,} of {plural(found, 'image')} taken{unlabelled}{rest}.")
    if over := sum(problem["problem"] == OVER_LIMIT for problem in facts["problems"]):
        say(f"{plural(over, 'image')} {OVER_LIMIT} left out.")
    for way, count in facts["written"].items():
        say(f"{plural(count, 'image')} {WAYS[way]}.")
    for split, share in facts["split_off"].items():
        say(f"{split}: {share:.0%} of each class, chosen by seed {facts['seed']}; the source brings none.")
    first = next(split for split in SPLITS if split in facts["counts"])
    say(f"Largest class over smallest, in {first}: {facts['largest_over_smallest']:.1f}")
    if facts["turned"]:
        say(f"{plural(facts['turned'], 'image')} will be turned upright, as EXIF says.")
    if facts["several_frames"]:
        say(f"{plural(facts['several_frames'], 'file')} with several frames or pages: the first is used.")


def kinds_of(problems: list[dict[str, str]]) -> str:
    """For people: 7 truncated, 1 not an image."""
    kinds = Counter(kind_of(problem["problem"]) for problem in problems)
    return ", ".join(f"{count:,} {printable(kind)}" for kind, count in kinds.most_common())


def kind_of(problem: str) -> str:
    """What many files have in common: `truncated` of `truncated (54 bytes missing)`."""
    return re.split(r" \(|: ", problem)[0]


def _warn_of(words: str, problems: list[dict[str, str]], *, written: bool) -> None:
    """A warning with its first files: in one go, so that --quiet keeps them together."""
    warn("\n".join([f"{words}:", *_some(problems, written=written)]))


def _some(problems: list[dict[str, str]], *, written: bool) -> list[str]:
    shown = [f"{problem['path']}: {problem['problem']}" for problem in problems[:SHOWN]]
    lines = ["  " + printable(line) for line in shown]  # a name may hold a newline
    more = f"  and {len(problems) - SHOWN:,} more{', in problems.csv' if written else ''}"
    return [*lines, more] if len(problems) > SHOWN else lines


def _say_duplicates(facts: dict[str, Any]) -> None:
    sets, gone = facts["duplicates"]["sets"], facts["duplicates"]["dropped"]
    written = not facts["dry_run"]
    if count := sets["inside_class"]:
        sentence = f"{plural(count, 'set')} of identical files inside a class"
        say(f"Duplicates: {sentence}; {dropped(gone['inside_class'])}.")
    if count := sets["across_classes"]:
        sentence = f"{plural(count, 'set')} of identical files in more than one class"
        words = f"contradictory labels: {sentence}; {dropped(gone['across_classes'])}"
        _warn_of(words, _about(facts, "contradictory label"), written=written)
    for pair, count in facts["duplicates"]["shared"].items():
        splits = " and ".join(pair.split("-"))
        warn(f"leak: {count:,} files are byte-identical in {splits}.")
    if sets["across_splits"]:
        words = f"  {dropped(gone['across_splits'])} for leaks; what val and test bring is kept:"
        say("\n".join([words, *_some(_about(facts, "leak"), written=written)]))


def _say_near(facts: dict[str, Any]) -> None:
    if (near := facts["near_duplicates"]) is None:
        return
    if not any(near.values()):
        say("No two of the pictures look alike (near duplicates).")
        return
    telling = [*_about(facts, "near duplicate in another"), *_about(facts, "near duplicate:")]
    words = f"{near_words(near)}; they are reported, none is dropped"
    _warn_of(words, telling, written=not facts["dry_run"])


def near_words(near: dict[str, int]) -> str:
    """For people: 3 sets of pictures that look alike (1 across classes, 2 inside a class)."""
    kinds = ", ".join(
        f"{near[kind]:,} {kind.replace('_', ' ').replace('inside', 'inside a')}"
        for kind in ("across_classes", "across_splits", "inside_class")
        if near[kind]
    )
    return f"{plural(sum(near.values()), 'set')} of pictures that look alike ({kinds})"


def _about(facts: dict[str, Any], word: str) -> list[dict[str, str]]:
    return [problem for problem in facts["problems"] if problem["problem"].startswith(word)]


def dropped(count: int) -> str:
    """For people: 3 images dropped from train."""
    return f"{plural(count, 'image')} dropped from train" if count else "none dropped"


def _say_classes(facts: dict[str, Any]) -> None:
    if small := facts["classes_left_out"]:
        warn(f"too few usable training images, left out: {some_classes(small)}.")
    if tiny := {name: count for name, count in facts["counts"].get("train", {}).items() if count < TINY}:
        warn(f"fewer than {TINY} training images: {some_classes(tiny)}. Expect little of them.")


def some_classes(counts: dict[str, int]) -> str:
    """For people: the first classes with their numbers, and how many there are besides."""
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:SHOWN])
    more = len(counts) - SHOWN
    return f"{shown} and {plural(more, 'more class', 'more classes')}" if more > 0 else shown
