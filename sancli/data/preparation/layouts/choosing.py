"""Which tables of a source say what its images show."""

from collections import defaultdict

from sancli.data.preparation.labels.claims import Claim, claim
from sancli.data.preparation.labels.columns import find_columns, plain
from sancli.data.preparation.labels.matching import Images
from sancli.data.preparation.labels.onehot import from_one_hot
from sancli.data.preparation.labels.table import Table, read_table
from sancli.data.preparation.labels.text import shown, wrong_line
from sancli.data.preparation.layouts.layout import LabelFile, Seen, split_above, split_of
from sancli.errors import DataError, SanError, UsageError

ENDINGS = (".csv", ".tsv")
MAX_TABLES = 20
"""Tables that are tried in one source; the nearest to its top come first."""


def choose_claims(seen: Seen) -> tuple[list[Claim], list[SanError]]:
    """The tables that say what the images show: none, one, or one for each split.

    Returns:
        The tables; and why others are none that could be meant.

    Raises:
        DataError: A table is surely meant and cannot be used; or several are, and it is not clear which.
        UsageError: No table has a column that was asked for.
    """
    claims: list[Claim] = []
    unread: list[SanError] = []
    files = candidates(seen, ENDINGS)
    images = Images(seen.listing.images if files else ())
    for file in files:
        try:
            one = _claim(seen, read_table(file.content, file.name), images)
        except (DataError, UsageError) as error:
            if seen.hints.labels is not None:
                raise
            unread.append(error)
            continue
        if one is not None and one.error is not None:
            raise one.error
        if one is not None:
            claims.append(one)
    asked = [error for error in unread if isinstance(error, UsageError)]
    if asked and not claims:
        raise asked[0]
    return _one_or_splits(claims), [error for error in unread if error not in asked]


def unread_tables(seen: Seen) -> list[SanError]:
    """Why tables that may have been meant say nothing about the images; for an error."""
    try:
        return choose_claims(seen)[1]
    except SanError as error:
        return [error]


def candidates(seen: Seen, endings: tuple[str, ...]) -> list[LabelFile]:
    """The file that the user named, or those in the source with one of the endings, read."""
    if seen.hints.labels is not None:
        return [seen.hints.labels]
    paths = [path for path in seen.listing.tables if path.lower().endswith(endings)]
    paths = [path for path in paths if "submission" not in plain(path.rpartition("/")[2])]
    paths.sort(key=lambda path: (path.count("/"), path))
    paths = paths[:MAX_TABLES]
    contents = seen.read(paths) if paths else {}
    return [LabelFile(path, contents[path]) for path in paths]


def _claim(seen: Seen, table: Table, images: Images) -> Claim | None:
    """What a table says, with the first mistake in it; None where it is about something else.

    Raises:
        DataError: It has no header, or not the columns; or it cannot be told what it is about.
        UsageError: It has not the columns that were asked for.
    """
    hints = seen.hints
    columns = find_columns(
        table,
        image=hints.image_col,
        label=hints.label_col,
        split=hints.split_col,
        group=hints.group_by,
    )
    if columns is None and not (hints.label_col or hints.split_col):
        table = from_one_hot(table, hints.image_col) or table
        columns = find_columns(table, image=hints.image_col)
    if columns is not None:
        split = split_of_table(table.name)  # train/1.jpg and test/1.jpg: train.csv means the first
        one = claim(table, columns, images, near=lambda path: split in (None, split_above(path)))
        if hints.labels is not None:
            return one
        if _says_what_folders_say(one):
            return None
        if _speaks_of(one, len(seen.listing.images)):
            return one
        if one.error is not None:
            raise one.error
        return None
    if any(cell and images.find(cell) for cell in table.header):
        raise wrong_line(
            table.name,
            1,
            "names an image, where the names of the columns belong",
            why=f"it reads {shown(table.header, most=5)}",
            fix="put a line above it, such as: image,label",
        )
    if hints.labels is None:
        return None
    raise DataError(
        f"{table.name} has no columns known for image and label.",
        why=f"its columns are {shown(table.header, most=20)}.",
        fix="say which they are: --image-col NAME --label-col NAME",
    )


def _speaks_of(one: Claim, images: int) -> bool:
    """Whether a table is about these images: half of its rows, or of them, are met."""
    return 2 * len(one.found) >= max(1, min(len(one.entries), images))


def _says_what_folders_say(one: Claim) -> bool:
    """Whether each label has a folder of its own, and each folder one label: then folders are the classes."""
    folders: dict[str, set[str]] = defaultdict(set)
    labels: dict[str, set[str]] = defaultdict(set)
    for entry in one.found:
        folder = str(entry.path).rpartition("/")[0].rpartition("/")[2]
        folders[folder].add(entry.label)
        labels[entry.label].add(folder)
    pairs = [*folders.values(), *labels.values()]
    return len(folders) > 1 and all(len(pair) == 1 for pair in pairs)


def _one_or_splits(claims: list[Claim]) -> list[Claim]:
    """The only claim, or one for each split by their names: train.csv, test.csv."""
    if len(claims) < 2:
        return claims
    splits = [split_of_table(one.table.name) for one in claims]
    if None not in splits and len(set(splits)) == len(splits):
        return claims
    names = [one.table.name for one in claims]
    raise DataError(
        f"{len(names)} tables say what the images show: {shown(names, most=5)}.",
        why="only tables named for splits, such as train.csv and test.csv, are taken together.",
        fix=f"name the one that counts: --labels {names[0]}",
    )


def split_of_table(name: str) -> str | None:
    """The split that the name of a table tells: train.csv, labels_test.csv."""
    words = name.rpartition("/")[2].rpartition(".")[0].replace("-", "_").replace(".", "_").split("_")
    found = {split for split in map(split_of, words) if split}
    return found.pop() if len(found) == 1 else None
