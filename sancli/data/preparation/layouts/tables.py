"""Layout csv: a table says what each image shows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sancli.console import plural
from sancli.data.listing import Problem
from sancli.data.preparation.labels.claims import Claim, Entry
from sancli.data.preparation.labels.matching import Images
from sancli.data.preparation.labels.text import shown, wrong_line
from sancli.data.preparation.layouts.choosing import choose_claims, split_of_table
from sancli.data.preparation.layouts.layout import (
    Layout,
    Placed,
    Seen,
    split_of,
    splits_by_folder,
    unlabelled,
)
from sancli.errors import DataError, SanError, folded, printable

SHOWN = 10


def csv(seen: Seen) -> Layout | None:
    """A table, as labels.csv."""
    claims, unread = choose_claims(seen)
    if not claims:
        return None
    _check_missing(claims, seen.listing.images, skip=seen.hints.skip_missing)
    entries = _agreed(_with_splits(claims, asked=seen.hints.split_col is not None))
    found = Layout("csv", _why(claims, entries))
    found.label_files = {one.table.name: one.table.sha256 for one in claims}
    found.images = [_placed(path, entries.get(path)) for path in seen.listing.images]
    found.left_out = [
        Problem(entry.name, f"labelled but not there: {entry.where()}", "skipped")
        for one in claims
        for entry in one.entries
        if entry.path is None
    ]
    found.notes = [*_notes(claims, len(seen.listing.images) - len(entries)), *map(_passed_over, unread)]
    return found


def _placed(path: str, entry: Entry | None) -> Placed:
    if entry is None:
        return unlabelled(path)
    return Placed(path, entry.label, entry.split, entry.group)


def _check_missing(claims: list[Claim], images: list[str], *, skip: bool) -> None:
    missing = [entry for one in claims for entry in one.entries if entry.path is None]
    if not missing or (skip and any(one.found for one in claims)):
        return
    like = Images(images).like(missing[0].name)
    some = ", ".join(f"{shown([entry.name])} (line {entry.line:,})" for entry in missing[:SHOWN])
    raise DataError(
        f"{plural(len(missing), 'image')} of {missing[0].table} {_are(len(missing))} not in the source.",
        why=folded(
            f"not there: {some}{', ...' if len(missing) > SHOWN else '.'}"
            + (f" There is {printable(like)}." if like else "")
        ),
        fix="add the files, or correct the names; --skip-missing goes on without them."
        if any(one.found for one in claims)
        else "check that the source is the folder of these images; not one of them was found.",
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _agreed(entries: Iterable[Entry]) -> dict[str, Entry]:
    """One row for each image.

    Raises:
        DataError: Two rows say different things of one image; says which.
    """
    agreed: dict[str, Entry] = {}
    conflicts: list[tuple[Entry, Entry]] = []
    for entry in entries:
        first = agreed.setdefault(str(entry.path), entry)
        if (first.label, first.split) != (entry.label, entry.split):
            conflicts.append((first, entry))
    if conflicts:
        some = "; ".join(
            f"{shown([one.name])} is {_say(one, other)}, {_say(other, one)}"
            for one, other in conflicts[:SHOWN]
        )
        raise DataError(
            f"{plural(len(conflicts), 'row')} contradict others about the same image.",
            why=folded(f"{some}{'; ...' if len(conflicts) > SHOWN else '.'}"),
            fix="leave one row for each image; or say --layout folders, if folders are the classes.",
        )
    return agreed


def _say(entry: Entry, other: Entry) -> str:
    said = entry.label if entry.label != other.label else str(entry.split)
    return f"{shown([said])} in {entry.where()}"


def _with_splits(claims: list[Claim], *, asked: bool) -> list[Entry]:
    """The rows with their splits: by a column, by the names of the tables, or by folders named for splits.

    Args:
        claims: The tables.
        asked: The column of the split was named by the user: it must hold nothing else.
    """
    entries = [entry for one in claims for entry in one.found]
    if len(claims) > 1:
        return [replace(entry, split=split_of_table(entry.table)) for entry in entries]
    if claims[0].columns.split is not None:
        splits = [split_of(str(entry.split)) for entry in entries]
        if None not in splits:
            return _given(entries, splits)
        if asked:
            raise _no_split(entries[splits.index(None)])
    return _given(entries, splits_by_folder([str(entry.path) for entry in entries]))


def _given(entries: list[Entry], splits: Sequence[str | None]) -> list[Entry]:
    pairs = zip(entries, splits, strict=True)
    return [entry if entry.split == split else replace(entry, split=split) for entry, split in pairs]


def _no_split(entry: Entry) -> DataError:
    return wrong_line(
        entry.table,
        entry.line,
        f"{shown([entry.split or 'nothing'])} is no split",
        why="a split is train, val or test, or one of their other names, such as valid",
        fix="correct it, or name the column that holds the split: --split-col NAME",
    )


def _why(claims: list[Claim], entries: dict[str, Entry]) -> str:
    names = " and ".join(shown([one.table.name]) for one in claims)
    header, columns = claims[0].table.header, claims[0].columns
    label = "a 1 in that of the class" if claims[0].table.one_hot else shown([header[columns.label]])
    words = f"columns {shown([header[columns.image]])} and {label}"
    if len(claims) == 1 and columns.split is not None and any(one.split for one in entries.values()):
        words += f", split in {shown([header[columns.split]])}"
    shows = "say" if len(claims) > 1 else "says"
    return f"{names} {shows} what {plural(len(entries), 'image')} show ({words})"


def _notes(claims: list[Claim], unnamed: int) -> list[str]:
    notes = [
        f"{shown([one.table.name])} was read as {one.table.encoding}."
        for one in claims
        if one.table.encoding != "UTF-8"
    ]
    if unnamed:
        notes.append(f"{plural(unnamed, 'image')} without a row: unlabelled.")
    return notes


def _passed_over(error: SanError) -> str:
    return f"not used: {error.what.rstrip('.')} ({error.why.rstrip('.')})."
