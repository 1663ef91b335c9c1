"""What all figures share: paper, type, colours, and how they get onto the disk."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sancli.errors import printable
from sancli.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#3b6ea8", "#d9782d", "#8a8f98"
DPI = 150
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "text.parse_math": False,  # a class may be called a$b$c
}


@contextmanager
def drawing(path: Path, *, width: float, height: float) -> Iterator["Figure"]:
    """Gives an empty figure, so many inches large, and writes it as a PNG when the block has ended well."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: no window, no state, Agg by itself

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a class name in a rare script
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=DPI)


def shown(name: str, *, length: int = 24) -> str:
    """A class name as it fits into a picture: one line, shortened in the middle."""
    name = printable(name)
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[:half]}\u2026{name[-half:]}"


def open_frame(axes: "Axes") -> None:
    """Leaves the left and the lower edge, and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True)
