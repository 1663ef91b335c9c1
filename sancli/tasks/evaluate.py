"""`san eval`: how good a model is on the images of a split."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sancli import console
from sancli.config import AUTO, EvalConfig
from sancli.data import imagenet
from sancli.data.dataset import Batch
from sancli.data.prepared import MANIFEST, Prepared, Sample, open_prepared
from sancli.engine.device import Device, choose
from sancli.errors import DataError, StorageError
from sancli.files import new_folder, unused
from sancli.report.evaluation import write_evaluation
from sancli.runs import Model, open_model, versions
from sancli.tasks.inference.asking import ask
from sancli.tasks.inference.measuring import evaluation_of
from sancli.tasks.inference.published import beside_published, show_published

MANY = 20
"""Classes from which on it helps to count those that have images."""
SHOWN_PAIRS = 3
"""Most confused pairs on the screen."""


def run(config: EvalConfig) -> None:
    """Measures a model, writes its tables and pictures, and shows the figures."""
    if config.out is not None and config.out.exists():
        raise StorageError(
            f"{config.out} exists.",
            why="results are never overwritten.",
            fix="name another folder, or leave --out out.",
        )
    model = open_model(config.model)
    prepared = data_of(model, config.data)
    split = choose_split(prepared, config.split, own=is_own(model, prepared))
    device = choose(config.device, config.precision)
    console.say(f"On {device.describe()}")
    figures = evaluate_split(
        model,
        prepared,
        split,
        config.out or own_place(model, prepared, split),
        device=device,
        batch_size=config.batch_size,
        workers=config.workers,
        tta=config.tta,
        worst=config.worst,
    )
    show(figures)
    console.emit(figures)
    named = ("--model", config.model) if config.model else ()
    console.next_command("san", "predict", prepared.root / split, *named)


def own_place(model: Model, prepared: Prepared, split: str) -> Path:
    """Where the results go: in the model's run; those on other data than its own bear the data's name.

    A folder that was exported or downloaded is no run: it stays as it is, and can be made anew.
    """
    run, data = model.run, prepared.manifest.name
    home = run.folder if run and run.config.exists() else Path("runs", model.info.name)
    return home / (f"eval-{split}" if is_own(model, prepared) else f"eval-{data}-{split}")


def is_own(model: Model, prepared: Prepared) -> bool:
    """Whether these are the data that the model was trained on."""
    return bool(prepared.manifest.name == model.info.data.get("name"))


def data_of(model: Model, folder: Path | None) -> Prepared:
    """The prepared folder that was named, or the one that the model was trained on.

    Raises:
        DataError: None was named, and the model's own is not known or not there.
    """
    if folder is None:
        folder = own_data(model)
        manifest = (folder / MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != model.info.data.get("sha256"):
            console.warn(f"{folder} is not what this model was trained on: it was prepared anew since.")
    prepared = open_prepared(folder)
    console.say(f"Data: {folder} ({prepared.describe()})")
    return prepared


def own_data(model: Model) -> Path:
    """The prepared folder that a model was trained on.

    Raises:
        DataError: It is not known or not there.
    """
    known, sha256 = model.info.data.get("path"), model.info.data.get("sha256")
    if known is not None and Path(known, MANIFEST).is_file():
        folder, here = Path(known), Path.cwd()
        return folder.relative_to(here) if folder.is_relative_to(here) else folder  # shorter in every table
    for manifest in sorted(Path("data").glob(f"*/{MANIFEST}")):  # the project was moved, or is a copy
        if hashlib.sha256(manifest.read_bytes()).hexdigest() == sha256:
            return manifest.parent
    raise DataError(
        "the data to measure on is not known." if known is None else f"{known} is not there.",
        why=f"{model.path} says that it was trained on {known or 'no prepared folder'}.",
        fix="name a prepared folder with --data.",
    )


def choose_split(prepared: Prepared, asked: str | None, *, own: bool) -> str:
    """The split that was asked for; else test where there is one, else val.

    Args:
        prepared: The data.
        asked: By the user.
        own: The model was trained on these data.

    Raises:
        DataError: It holds no images.
    """
    split = asked or ("test" if prepared.total("test") else "val")
    if not prepared.total(split):
        there = ", ".join(f"{name} ({prepared.total(name):,} images)" for name in prepared.splits)
        raise DataError(
            f"{prepared.root} has no {split} split.",
            why=f"it has {there or 'no images at all'}.",
            fix="choose one of them with --split, or other data with --data.",
        )
    if asked is None and split == "val":
        chose = "; val chose the best epoch: it flatters a little" if own else ""
        console.say(f"On val, as there is no test split{chose}.")
    return split


def evaluate_split(
    model: Model,
    prepared: Prepared,
    split: str,
    out: Path,
    *,
    device: Device,
    batch_size: int = EvalConfig.batch_size,
    workers: int | Literal["auto"] = AUTO,
    tta: str = EvalConfig.tta,
    worst: int = EvalConfig.worst,
) -> dict[str, Any]:
    """Measures the model on a split; writes all tables and pictures into a new folder, whole or not at all.

    Where `out` exists the new folder is out-002, out-003, ...: results are never overwritten.

    Returns:
        What metrics.json holds, and `folder`, where it is.

    Raises:
        DataError: The split has classes that the model does not know, or an image cannot be read.
    """
    classes, out = model.info.classes, unused(out)
    samples = matched(prepared.samples(split), prepared.classes, classes)
    origin = {
        "model": {"name": model.info.name, "arch": model.info.arch, "epoch": model.info.epoch},
        "data": prepared.manifest.name,
        "split": split,
        "conditions": versions() | {"device": device.describe(), "tta": tta, "batch_size": batch_size},
    }
    with new_folder(out) as folder:  # made before the work: a place that cannot be written is known at once
        asked = ask(
            model,
            samples,
            device=device,
            batch_size=batch_size,
            workers=workers,
            tta=tta,
            title=f"Evaluating on {split}",
        )
        logits = torch.cat([logits for _, logits in every_image(asked, samples)])
        evaluation = evaluation_of(logits, samples, classes, origin=origin, worst=worst)
        present = {sample.label for sample in samples}
        evaluation.figures.update(beside_published(model.info, evaluation.figures, present))
        write_evaluation(folder, evaluation)
    return evaluation.figures | {"folder": str(out)}


def matched(samples: Sequence[Sample], classes: Sequence[str], known: Sequence[str]) -> list[Sample]:
    """The samples with the model's labels in place of the data's: matched by name, never by order.

    Raises:
        DataError: A class with images is not among the known ones.
    """
    labels = {name: label for label, name in enumerate(known)}
    for wnid, name in imagenet.names().items():  # ImageNet's folders bear wnids, its networks know names
        for ours, theirs in ((name, wnid), (wnid, name), (name, name.replace(" ", "_"))):
            if ours in labels:
                labels.setdefault(theirs, labels[ours])
    present = dict.fromkeys(classes[sample.label] for sample in samples)
    if unknown := [name for name in present if name not in labels]:
        raise DataError(
            f"the model does not know {console.plural(len(unknown), 'class', 'classes')}: {listed(unknown)}.",
            why=f"it knows {listed(known)}.",
            fix="rename the folders and prepare the data again, or leave them out: san prepare --skip.",
        )
    seen = {labels[name] for name in present}
    if missing := [name for label, name in enumerate(known) if label not in seen]:
        count = f" ({len(seen):,} of {len(known):,} classes have some)" if len(known) > MANY else ""
        console.warn(f"no images of {listed(missing)}{count}: the figures say nothing about them.")
    return [Sample(sample.path, labels[classes[sample.label]]) for sample in samples]


def listed(names: Sequence[str], *, most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def every_image(
    asked: Iterable[tuple[Batch, Tensor]], samples: Sequence[Sample]
) -> Iterator[tuple[Batch, Tensor]]:
    """Passes the batches on while every image can be read: a figure over the others would be another figure.

    Raises:
        DataError: One cannot.
    """
    for batch, logits in asked:
        for index, reason in batch.failures[:1]:
            raise DataError(
                f"{samples[index].path}: {reason}.",
                why="it could be read when the data was prepared.",
                fix="put it back, or prepare the data again.",
            )
        yield batch, logits


def show(figures: dict[str, Any]) -> None:
    """The figures in a line, with the interval that so few images allow, and the commonest mistakes."""
    low, high = figures["top1_interval"]
    parts = [
        f"Top-1 {percent(figures['top1'])} % (95 % CI {percent(low)}-{percent(high)}, n={figures['images']})",
        *([f"top-5 {percent(figures['top5'])}"] if "top5" in figures else []),
        f"balanced {percent(figures['balanced'])}",
        f"macro-F1 {percent(figures['macro_f1'])}",
        f"ECE {percent(figures['ece'])}",
    ]
    dot = console.drawable("\u00b7", "|")
    console.result(f" {dot} ".join(parts))
    if pairs := figures["most_confused"][:SHOWN_PAIRS]:
        mistakes = (f"{pair['true']} -> {pair['predicted']} {pair['images']}" for pair in pairs)
        console.result(f"Most confused: {', '.join(mistakes)}")
    show_published(figures)
    console.say(f"Tables and pictures: {figures['folder']}")


def percent(share: float) -> str:
    """A fraction from 0 to 1 in percent, without the sign."""
    return f"{100 * share:.1f}"
