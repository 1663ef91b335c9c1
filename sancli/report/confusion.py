"""Counts by true and predicted class -> confusion_matrix.png."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sancli.report.figures import drawing, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNTED, NAMED = 30, 100
"""Up to so many classes the cells hold their counts, and the axes the names of the classes."""


def draw_confusion(png: Path, matrix: Tensor, classes: Sequence[str], *, title: str) -> None:
    """Draws the matrix: a row is a true class, and the colour is the share of its images.

    Args:
        png: Where to.
        matrix: [true, predicted], counts.
        classes: The name of each row and column.
        title: What was measured, on how many images.
    """
    counts = matrix.cpu().numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    many = len(classes) > NAMED
    body = min(10.0, max(2.4, len(classes) * 0.45))  # inches; 1000 classes are 1.5 pixels each
    with drawing(png, width=body + (0.8 if many else 1.9), height=body + (0.9 if many else 1.6)) as figure:
        axes = figure.subplots()
        # the root of the share: with hundreds of classes single mistakes would not be seen
        axes.imshow(
            np.sqrt(shares) if many else shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set(xlabel="predicted", ylabel="true")
        figure.suptitle(title, x=0.02, ha="left", fontsize=10)
        if len(classes) <= COUNTED:
            write_counts(axes, counts, shares, cell_points=72 * body / len(classes))
        if many:
            axes.set(xlabel="predicted (number of the class in per_class.csv)", ylabel="true")
        else:
            name_axes(axes, classes)


def write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, *, cell_points: float) -> None:
    """The number of images in each cell that has any, as large as the cell allows."""
    for true, predicted in zip(*counts.nonzero(), strict=True):
        text = f"{counts[true, predicted]}"
        color = "white" if shares[true, predicted] > 0.5 else "#333333"
        size = min(9.0, 0.85 * cell_points / (0.64 * len(text)))  # a digit is 0.64 of its size wide
        axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=size)


def name_axes(axes: "Axes", classes: Sequence[str]) -> None:
    """The classes' names along both sides."""
    size = 9 if len(classes) <= 12 else 7 if len(classes) <= COUNTED else 4.5
    names = [shown(name) for name in classes]
    slant = 45 if len(classes) <= 12 else 90
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    axes.set_xticks(
        range(len(classes)),
        names,
        fontsize=size,
        rotation=slant,
        ha="right" if slant == 45 else "center",
        rotation_mode="anchor" if slant == 45 else "default",
    )
