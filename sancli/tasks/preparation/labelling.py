"""What the user says about labels, and the files that hold some, gathered for the layouts."""

from collections.abc import Sequence
from pathlib import Path

from sancli.config import PrepareConfig
from sancli.data.images import BadImage, read_file
from sancli.data.preparation.labels.text import MAX_BYTES
from sancli.data.preparation.layouts import Hints, LabelFile, Seen
from sancli.data.preparation.source import Source
from sancli.errors import DataError, closest


def see(config: PrepareConfig, source: Source) -> Seen:
    """All that a layout is recognised from.

    Raises:
        DataError: The file of --labels is not there, or cannot be read.
    """
    hints = Hints(
        labels=None if config.labels is None else _label_file(config.labels, source),
        image_col=config.image_col,
        label_col=config.label_col,
        split_col=config.split_col,
        label_regex=config.label_regex,
        group_by=config.group_by,
        skip_missing=config.skip_missing,
    )

    def read(names: Sequence[str]) -> dict[str, bytes]:
        return source.read(names, limit=MAX_BYTES)

    return Seen(source.listing, str(config.source), hints, read)


def _label_file(path: Path, source: Source) -> LabelFile:
    """A file on the disk, or one in the source by the name that it has there."""
    if not path.exists() and (inside := path.as_posix()) in source.listing.tables:
        return LabelFile(inside, source.read([inside], limit=MAX_BYTES)[inside])
    try:
        return LabelFile(str(path), read_file(path, limit=MAX_BYTES))
    except BadImage as bad:
        known = source.listing.tables
        raise DataError(
            f"--labels {path} cannot be read.",
            why=f"{bad.reason}.",
            fix=closest(str(path), known)
            if known and not path.exists()
            else "name the file with the labels.",
        ) from None
