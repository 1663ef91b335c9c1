"""Which column of a table names the image, which its label, which its split."""

from dataclasses import dataclass

from sancli.data.preparation.labels.table import Table
from sancli.data.preparation.labels.text import shown
from sancli.errors import DataError, UsageError, closest

IMAGE_NAMES = (  # the surest first; compared without case, spaces, dashes and underscores
    *("imagename", "imagefile", "imagefilename", "imagepath", "imagepaths", "imageid", "image", "images"),
    *("filename", "filenames", "filepath", "filepaths", "file", "files", "path", "paths"),
    *("imgname", "imgpath", "imgid", "img", "picture", "photo", "photoid", "relativepath", "relpath"),
    *("fname", "imgfile", "id", "name"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "classname", "labelname", "category", "categoryname", "target"),
    *("species", "breed", "dx", "diagnosis", "groundtruth", "wnid", "synset", "tag", "y"),
    *("classid", "labelid", "categoryid"),
)
SPLIT_NAMES = ("split", "dataset", "set", "subset", "partition", "fold", "phase", "usage", "datasplit")


@dataclass(frozen=True)
class Columns:
    """Places in a row."""

    image: int
    label: int
    split: int | None
    group: int | None = None


def find_columns(
    table: Table,
    *,
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
) -> Columns | None:
    """The columns that were asked for, or whose names are usual; None where image or label is not found.

    Args:
        table: Its header.
        image: The name of that column; None: usual names are looked for. So for `label` and `split`.
        label: As `image`.
        split: As `image`.
        group: A column of this very name tells the groups; there need be none.

    Raises:
        UsageError: A column that was asked for is not there, or is there twice.
        DataError: The column that was found is there twice.
    """
    places = (
        find_image(table, image),
        _asked(table, "--label-col", label) if label else _usual(table, LABEL_NAMES),
        _asked(table, "--split-col", split) if split else _usual(table, SPLIT_NAMES),
    )
    if places[0] is None or places[1] is None or places[0] == places[1]:
        return None
    groups = table.header.index(group) if group in table.header else None
    return Columns(places[0], places[1], places[2], groups)


def find_image(table: Table, wanted: str | None) -> int | None:
    """The column of the images alone; as `find_columns`."""
    return _asked(table, "--image-col", wanted) if wanted else _usual(table, IMAGE_NAMES)


def _asked(table: Table, option: str, wanted: str) -> int:
    exact = [place for place, name in enumerate(table.header) if name == wanted]
    near = [place for place, name in enumerate(table.header) if plain(name) == plain(wanted)]
    places = exact or near
    if not places:
        raise UsageError(
            f"{option} {wanted}: {table.name} has no such column.",
            why=f"its columns are {shown(table.header)}.",
            fix=closest(wanted, [shown([name]) for name in table.header]),
        )
    if len(places) > 1:
        raise _twice(table, table.header[places[0]])
    return places[0]


def _usual(table: Table, usual: tuple[str, ...]) -> int | None:
    names = [plain(name) for name in table.header]
    name = next((name for name in usual if name in names), None)
    if name is None:
        return None
    if names.count(name) > 1:
        raise _twice(table, table.header[names.index(name)])
    return names.index(name)


def _twice(table: Table, name: str) -> DataError:
    return DataError(
        f"{table.name} has two columns called {shown([name])}.",
        why=f"its columns are {shown(table.header)}.",
        fix="rename one of them.",
    )


def plain(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return "".join(char for char in name.lower() if char.isalnum())
