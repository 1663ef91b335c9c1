"""metrics.csv of a run -> curves.png."""

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sancli.report.figures import BLUE, GREY, ORANGE, drawing, open_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = dict[str, list[float]]


def write_curves(png: Path, metrics_csv: Path, *, best_epoch: int | None = None) -> None:
    """Draws loss, accuracy and learning rate by epoch, and marks the epoch whose network was kept.

    A column that is not there is left out.
    """
    columns = read_columns(metrics_csv)
    with drawing(png, width=11, height=3.6) as figure:
        loss, accuracy, rate = figure.subplots(1, 3, width_ratios=[3, 3, 2])
        draw(loss, columns, "loss", title="Loss")
        draw(accuracy, columns, "top1", title="Top-1 (%)", scale=100)
        if best_epoch:
            mark_best(accuracy, columns, best_epoch - 1)
        rate.set_title("Learning rate")
        rate.plot(columns["epoch"], columns.get("lr", [math.nan] * len(columns["epoch"])), color=GREY)
        for axes in (loss, accuracy, rate):
            open_frame(axes)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)


def read_columns(path: Path) -> Columns:
    """Every column as numbers; NaN where a cell is empty or no number."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    columns = {name: [_number(row[name]) for row in rows] for name in names}
    return {"epoch": [float(row) for row in range(1, len(rows) + 1)]} | columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def draw(axes: "Axes", columns: Columns, figure: str, *, title: str, scale: float = 1) -> None:
    """One line for training and one for validation, where the columns are there."""
    axes.set_title(title)
    single = "o" if len(columns["epoch"]) == 1 else None  # one epoch makes no line
    for split, name, color in (("train", "training", BLUE), ("val", "validation", ORANGE)):
        values = columns.get(f"{split}_{figure}", [])
        if any(map(math.isfinite, values)):
            scaled = [value * scale for value in values]
            axes.plot(columns["epoch"], scaled, color=color, label=name, marker=single)
            axes.legend(frameon=False, loc="best")


def mark_best(axes: "Axes", columns: Columns, best: int) -> None:
    """A dot with its value on the row of the best epoch."""
    values = columns.get("val_top1", [])
    if not best < len(values) or not math.isfinite(values[best]):
        return
    place = (columns["epoch"][best], values[best] * 100)
    axes.plot(*place, "o", color=ORANGE, markersize=5)
    axes.annotate(f"{place[1]:.1f}", place, (0, 6), textcoords="offset points", ha="center", color=ORANGE)
    axes.margins(y=0.12)
