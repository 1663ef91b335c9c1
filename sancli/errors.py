"""Errors a user can put right, one kind for each exit code. Anything else is a bug."""

import difflib
import importlib.util
import shlex
import textwrap
from collections.abc import Iterable

COLUMNS = 100
"""Of a terminal that most people have open."""


def printable(name: object, *, keep: str = "") -> str:
    """The name as one line that is safe on any terminal: control and undecodable characters are escaped."""
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in str(name)
    )


def command(*words: object) -> str:
    """A command to paste: words that a shell would take apart are quoted."""
    return shlex.join(map(str, words))


def folded(text: str, *, most: int = 4) -> str:
    """The text of a `why` that lists many things, in at most so many lines that fit a terminal."""
    begin = "  why: "
    lines = textwrap.wrap(
        printable(text),
        COLUMNS,
        initial_indent=begin,
        subsequent_indent="    ",
        max_lines=most,
        placeholder=" ...",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)[len(begin) :]


class SanError(Exception):
    """Says what happened, why, and what to do about it.

    Args:
        what: The fact, with the path or the value in it.
        why: What was looked at, counted or expected.
        fix: A command or an edit the user can make now.
    """

    exit_code: int

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        self.what, self.why, self.fix = (printable(text, keep="\n") for text in (what, why, fix))
        super().__init__(f"Error: {self.what}\n  why: {self.why}\n  fix: {self.fix}")


class UsageError(SanError):
    """The command line or a setting is wrong."""

    exit_code = 2


class DataError(SanError):
    """Nothing usable among the images, or some of those named could not be read."""

    exit_code = 3


class WeightsError(SanError):
    """Weights or a checkpoint are missing, damaged or refused."""

    exit_code = 4


class DeviceError(SanError):
    """A device that was asked for is not there."""

    exit_code = 5


class StorageError(SanError):
    """No space, or a place that cannot be read or written."""

    exit_code = 6


class TrainingError(SanError):
    """Training failed: a loss that is not finite, no memory, a worker killed."""

    exit_code = 7


class Interruption(SanError):  # noqa: N818 -- it is no fault
    """A signal ended the work after its state was put in order; the exit code is 128 + the signal."""

    def __init__(self, what: str, *, why: str, fix: str, signal_number: int) -> None:
        super().__init__(what, why=why, fix=fix)
        self.exit_code = 128 + signal_number


def closest(word: str, known: Iterable[str]) -> str:
    """A question with the known word that `word` was probably meant to be; all of them where none is near."""
    known = list(known)

    def likeness(candidate: str) -> tuple[float, float]:  # the second sees swapped letters: san51, san15
        pairs = ((word.lower(), candidate), (sorted(word.lower()), sorted(candidate)))
        order, letters = (difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return order, letters

    near = max(known, key=likeness, default="")
    return f"did you mean {near}?" if near and likeness(near)[0] > 0.5 else f"use one of: {', '.join(known)}."


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Refuses a value that is not among the known ones.

    Raises:
        UsageError: With the known values and the nearest of them.
    """
    known = list(known)
    if value not in known:
        raise UsageError(
            f"{option} {value} is not known.", why=f"known: {', '.join(known)}.", fix=closest(value, known)
        )


def check_extra(option: str, extra: str, packages: Iterable[str], *, otherwise: str = "") -> None:
    """Refuses an option whose packages an extra of sancli brings, and that are not installed.

    Raises:
        UsageError: With those that are missing, and the command that brings them.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"{option} needs {', '.join(missing)}.",
            why=f"not installed; the extra {extra} of sancli brings what is missing.",
            fix=f'pip install "sancli[{extra}]"{otherwise}',
        )
