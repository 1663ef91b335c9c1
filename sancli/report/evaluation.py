"""The folder of an evaluation. To add an output, write a function and name it in WRITERS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sancli.files import write_csv, write_json
from sancli.report.confusion import draw_confusion
from sancli.report.pictures import Mistake, write_worst
from sancli.report.predictions import Prediction, as_csv
from sancli.report.reliability import draw_reliability


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that is known once a model was asked about every image of a split. C classes."""

    classes: Sequence[str]
    figures: dict[str, Any]
    """metrics.json: with loss, top1 and so on, split, images, reliability."""
    matrix: Tensor
    """[C, C], images by true and predicted class."""
    per_class: dict[str, Tensor]
    """[C] each, by the name of the column."""
    most_confused: Sequence[tuple[str, str, int]]
    """True class, predicted class, images."""
    predictions: Sequence[Prediction]
    worst: Sequence[Mistake]
    """The one of which the model was surest first."""


def metrics_json(folder: Path, evaluation: Evaluation) -> None:
    """Writes the figures and their conditions."""
    write_json(folder / "metrics.json", evaluation.figures)


def per_class_csv(folder: Path, evaluation: Evaluation) -> None:
    """Writes one row a class: its number, its name, and its value in each column."""
    values = zip(*(column.tolist() for column in evaluation.per_class.values()), strict=True)
    rows = [
        (number, name, *(round(value, 6) for value in row))
        for number, (name, row) in enumerate(zip(evaluation.classes, values, strict=True))
    ]
    write_csv(folder / "per_class.csv", ("number", "class", *evaluation.per_class), rows)


def confusion_matrix_csv(folder: Path, evaluation: Evaluation) -> None:
    """Writes the counts with the true classes in the first column and the predicted ones in the first row."""
    rows = [(name, *row) for name, row in zip(evaluation.classes, evaluation.matrix.tolist(), strict=True)]
    write_csv(folder / "confusion_matrix.csv", ("true \\ predicted", *evaluation.classes), rows)


def confusion_matrix_png(folder: Path, evaluation: Evaluation) -> None:
    """Draws the counts."""
    figures = evaluation.figures
    title = f"Top-1 {100 * figures['top1']:.1f} % on {figures['split']}, {figures['images']:,} images"
    draw_confusion(folder / "confusion_matrix.png", evaluation.matrix, evaluation.classes, title=title)


def most_confused_csv(folder: Path, evaluation: Evaluation) -> None:
    """Writes every kind of mistake, the most frequent first."""
    write_csv(folder / "most_confused.csv", ("true", "predicted", "images"), evaluation.most_confused)


def predictions_csv(folder: Path, evaluation: Evaluation) -> None:
    """Writes what the model says of each image."""
    as_csv(folder / "predictions.csv", evaluation.predictions)


def worst_jpg(folder: Path, evaluation: Evaluation) -> None:
    """Shows the images of which the model was surest and wrong; no file where there are none."""
    if evaluation.worst:
        write_worst(folder / "worst.jpg", evaluation.worst)


def reliability_png(folder: Path, evaluation: Evaluation) -> None:
    """Draws how often the model is right when it is so and so sure."""
    figures = evaluation.figures
    draw_reliability(folder / "reliability.png", figures["reliability"], ece=figures["ece"])


WRITERS: tuple[Callable[[Path, Evaluation], None], ...] = (
    metrics_json,
    per_class_csv,
    confusion_matrix_csv,
    confusion_matrix_png,
    most_confused_csv,
    predictions_csv,
    worst_jpg,
    reliability_png,
)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Writes every output into `folder`."""
    for write in WRITERS:
        write(folder, evaluation)
