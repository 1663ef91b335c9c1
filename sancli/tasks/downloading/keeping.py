"""A file that has arrived -> checked weights that describe themselves, and their record beside them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sancli import model, runs, weights
from sancli.console import say, size, warn
from sancli.errors import WeightsError
from sancli.model.zoo import PUBLISHED
from sancli.tasks.downloading.arrival import Arrival
from sancli.weights.fetching.partial import Partial
from sancli.weights.records import Record, sha256_of


def keep(name: str, arrival: Arrival, target: Path, *, force: bool, dry_run: bool = False) -> Record:
    """Reads the checkpoint, holds it to the network and to its record, and writes it; what it was made of.

    Raises:
        WeightsError: It is damaged, another network, names other classes, or has changed since it first came.
        StorageError: No space, or a place that cannot be written.
    """
    record = record_of(arrival)
    if arrival.fetched:
        check_record(record, {target, weights.cached(name)}, force=force)
    network, info = PUBLISHED[name], runs.published_info(name)
    with torch.device("meta"):  # neither memory nor random numbers: the file's own tensors take their place
        empty = model.build(network.arch, attention=info.attention, num_classes=len(info.classes))
    with called(arrival):
        weights.load_into(empty, weights.read(arrival.path), source=arrival.path)
        check_classes(arrival.path, info.classes)
    if dry_run:
        say(f"{arrival.label} is {name} ({size(record.bytes)}, sha256 {record.sha256}); nothing was written")
        return record
    weights.save(target, empty.state_dict(), info=json.dumps(info.to_dict()))
    record.beside(target, info.to_dict())
    say(f"Wrote {target} ({size(target.stat().st_size)}): {name}, {len(info.classes)} classes")
    return record


def keep_model(arrival: Arrival, partial: Partial, target: Path, *, force: bool) -> Record:
    """Opens a model of ours that has arrived, and gives it its place; what it was made of.

    Raises:
        WeightsError: It is damaged, does not describe itself, or is not the file of the first download.
        StorageError: No space, or a place that cannot be written.
    """
    record = record_of(arrival)
    check_record(record, {target}, force=force)
    with called(arrival):
        opened = runs.open_file(arrival.path)
    partial.place(target)
    record.beside(target, opened.info.to_dict())
    what = f"{opened.info.arch} {opened.info.attention}, {len(opened.info.classes)} classes"
    say(f"Wrote {target} ({size(record.bytes)}): {what}")
    return record


@contextmanager
def called(arrival: Arrival) -> Iterator[None]:
    """Calls the file in errors by where it came from: the name that it has here says nothing to the user."""
    try:
        yield
    except WeightsError as error:
        if not arrival.fetched:
            raise
        what, why = (text.replace(str(arrival.path), arrival.label) for text in (error.what, error.why))
        fix = f"nothing of it was kept; take another source, or ask those who publish {arrival.source}"
        raise WeightsError(what, why=why, fix=fix) from None


def record_of(arrival: Arrival) -> Record:
    """What has arrived.

    Raises:
        WeightsError: It is not there, or is not the file that this version of sancli knows.
    """
    if not arrival.fetched:
        weights.read_info(arrival.path)  # says what is wrong with the path
    record = Record(source=arrival.source, sha256=sha256_of(arrival.path), bytes=arrival.path.stat().st_size)
    if arrival.sha256 not in (None, record.sha256):
        raise WeightsError(
            f"{arrival.label} is another file than the one that this version of sancli knows.",
            why=f"its sha256 is {record.sha256[:16]}..., and not {str(arrival.sha256)[:16]}...",
            fix="ask those who publish it why it changed; --from FILE takes it all the same.",
        )
    return record


def check_record(record: Record, targets: set[Path], *, force: bool) -> None:
    """Refuses other bytes from the source of the first download, or with --force says that they differ.

    Raises:
        WeightsError: They differ.
    """
    try:
        for target in targets:
            record.check(target)
    except WeightsError as error:
        if not force:
            raise
        warn(f"{error.what} {error.why}")


def check_classes(source: Path, classes: tuple[str, ...]) -> None:
    """Refuses a file of ours whose 1000 classes are others than ImageNet's.

    Raises:
        WeightsError: They are.
    """
    text = weights.read_info(source)
    if text is not None and tuple(json.loads(text).get("classes", ())) != classes:
        raise WeightsError(
            f"{source} names other classes than ImageNet's.",
            why="under this name every label would be wrong.",
            fix="use the file as it is: --model takes it.",
        )
