"""`san predict`: what is on images."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sancli import console
from sancli.config import PredictConfig
from sancli.data.inputs import STDIN, Found, find_images
from sancli.data.listing import describe_endings
from sancli.data.prepared import Sample
from sancli.engine.device import Device, choose
from sancli.errors import DataError, StorageError, UsageError
from sancli.files import storage_errors, unused
from sancli.report.predictions import UNSURE, WRITERS, Prediction
from sancli.report.sorting import sort_into
from sancli.runs import Model, open_model
from sancli.tasks.inference.asking import NO_ANSWER, ask, best

SHOWN = 20
"""Rows of the table on the screen."""
WARNED = 5
"""Warnings of one kind on the screen; the others are counted."""
BAR = 32
"""Characters of a bar for a probability of 1."""


def run(config: PredictConfig) -> None:
    """Predicts every image that was named; shows, writes and sorts the answers."""
    found = find(config)
    output = output_of(config, images=len(found.images))
    if config.sort_into is not None:
        check_sorting(config.sort_into, found)
    model = open_model(config.model)
    device = choose(config.device, config.precision)
    console.detail(f"On {device.describe()}")
    predictions = predict_files(model, found, config, device=device)
    if output is not None:
        WRITERS[output.suffix.lower()](output, predictions)
        console.say(f"Written: {output} ({console.plural(len(predictions), 'image')})")
    if config.sort_into is not None:
        copied, there = sort_into(config.sort_into, predictions)
        already = f", {there:,} there already" if there else ""
        console.say(f"Sorted into {config.sort_into}: {console.plural(copied, 'copy', 'copies')}{already}")
    show(predictions)
    console.emit(as_object(predictions, model, output=output))
    check_all_read(predictions)
    check_none_empty(found)
    if model.run is not None:
        named = ("--model", config.model) if config.model else ()
        console.next_command("san", "eval", *named)


def find(config: PredictConfig) -> Found:
    """The images that were named; says what was left out.

    Raises:
        DataError: There are none.
    """
    found = find_images(config.paths, stdin=sys.stdin.buffer if STDIN in config.paths else ())
    warn_first([f"{path}: {problem}, skipped." for path, problem in found.skipped])
    if found.ignored:
        files = console.plural(found.ignored.total(), "file")
        console.say(f"{files} with other extensions ignored ({describe_endings(found.ignored, most=5)})")
    if not found.images:
        raise nothing_found(config, found)
    warn_first([f"{path}: {problem}." for path, problem in found.empty])
    return found


def warn_first(lines: Sequence[str]) -> None:
    """A warning for each of the first lines, and one that counts the others."""
    for line in lines[:WARNED]:
        console.warn(line)
    if len(lines) > WARNED:
        console.warn(f"and {len(lines) - WARNED:,} more like these.")


def nothing_found(config: PredictConfig, found: Found) -> DataError:
    """Why there is nothing to predict."""
    if found.empty and all(path == Path(STDIN) for path, _ in found.empty):
        return DataError(
            "no names came on stdin.",
            why="- reads the names of images there, one a line.",
            fix="check the command before the pipe.",
        )
    return DataError(
        f"no images in {', '.join(config.paths)}.",
        why="looked for files with an ending such as .jpg or .png.",
        fix="name image files, or a folder that holds some.",
    )


def output_of(config: PredictConfig, *, images: int) -> Path | None:
    """The file to write, which does not exist yet and can be written; None for a single image.

    Raises:
        StorageError: The file that was asked for exists, or its place cannot be written.
    """
    if config.output is None:
        return writable(unused(Path("predictions.csv"))) if images > 1 else None
    if config.output.exists():
        raise StorageError(
            f"{config.output} exists.", why="results are never overwritten.", fix="name another file with -o."
        )
    return writable(config.output)


def check_sorting(folder: Path, found: Found) -> None:
    """Refuses a folder to sort into that cannot be written, or lies among the images.

    Raises:
        StorageError: It cannot be written.
        UsageError: It lies inside a folder that is read.
    """
    if any(folder.resolve().is_relative_to(source.resolve()) for source in found.folders):
        raise UsageError(
            f"--sort-into {folder} lies inside a folder that is read.",
            why="the next run would take the copies for new images.",
            fix="name a folder beside it.",
        )
    writable(folder / UNSURE)


def writable(path: Path) -> Path:
    """The path, once a file beside it could be made: nobody should learn after an hour that it cannot.

    Raises:
        StorageError: It could not.
    """
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    return path


def predict_files(model: Model, found: Found, config: PredictConfig, *, device: Device) -> list[Prediction]:
    """An answer for each image, in their order; where one cannot be read, the reason."""
    paths = found.images
    answers: dict[int, Prediction] = {}
    asked = ask(
        model,
        [Sample(path, 0) for path in paths],
        device=device,
        batch_size=config.batch_size,
        workers=config.workers,
        tta=config.tta,
        max_pixels=config.max_pixels,
        title="Predicting",
    )
    for batch, logits in asked:
        for index, reason in batch.failures:
            error = "matches nothing" if paths[index] in found.unmatched else reason
            answers[index] = Prediction(paths[index], error=error)
        tops = best(logits, model.info.classes, count=config.topk) if len(logits) else []
        for index, top in zip(batch.indices.tolist(), tops, strict=True):
            sure = bool(top) and top[0][1] >= config.min_confidence
            answers[index] = Prediction(paths[index], top=top, error="" if top else NO_ANSWER, sure=sure)
    return [answers[index] for index in range(len(paths))]


def show(predictions: Sequence[Prediction]) -> None:
    """Bars for one image; for more the first rows of a table."""
    if len(predictions) == 1:
        show_one(predictions[0])
        return
    rows = [
        (one.path, one.label, f"{one.top[0][1]:.3f}" if one.top else "", one.error)
        for one in predictions[:SHOWN]
    ]
    console.result(console.table(("image", "label", "confidence", "error"), rows))
    if len(predictions) > SHOWN:
        console.result(f"... and {len(predictions) - SHOWN:,} more")


def show_one(prediction: Prediction) -> None:
    """The likeliest labels of an image, each with a bar as long as it is likely."""
    if not prediction.top:  # the error that ends the command says why
        return
    mark = console.drawable("\u2588", "#")
    rows = [(label, f"{100 * share:5.1f} %", mark * round(BAR * share)) for label, share in prediction.top]
    console.result(console.table(("label", "probability", ""), rows, title=str(prediction.path)))
    if not prediction.sure:
        console.result(f"{UNSURE}: no label reaches the confidence that was asked for")


def as_object(predictions: Sequence[Prediction], model: Model, *, output: Path | None) -> dict[str, object]:
    """The object of --json."""
    return {
        "model": str(model.path),
        "classes": list(model.info.classes),
        "images": len(predictions),
        "unread": sum(bool(one.error) for one in predictions),
        "output": None if output is None else str(output),
        "predictions": [one.to_dict() for one in predictions],
    }


def check_all_read(predictions: Sequence[Prediction]) -> None:
    """Ends the command with exit code 3 where images could not be read; everything is written by then.

    Raises:
        DataError: With their number, and the first of them.
    """
    if unread := [one for one in predictions if one.error]:
        more = f"; and {len(unread) - 1:,} more, in the error column" if len(unread) > 1 else ""
        others = "; every other image has its answer" if len(unread) < len(predictions) else ""
        raise DataError(
            f"{len(unread):,} of {len(predictions):,} not read.",
            why=f"{unread[0].path}: {unread[0].error}{more}.",
            fix=f"check {'this file' if len(unread) == 1 else 'these files'}{others}.",
        )


def check_none_empty(found: Found) -> None:
    """Ends the command with exit code 3 where something that was named gave nothing, as a missing file does.

    Raises:
        DataError: With their number, and the first of them.
    """
    if found.empty:
        path, problem = found.empty[0]
        raise DataError(
            f"{console.plural(len(found.empty), 'input')} gave no image.",
            why=f"{path}: {problem}.",
            fix="check what was named; every image has its answer.",
        )
