"""How often the model is right when it is so and so sure -> reliability.png."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sancli.report.figures import BLUE, GREY, drawing, open_frame


def draw_reliability(png: Path, bins: Sequence[dict[str, Any]], *, ece: float) -> None:
    """Draws accuracy by confidence, and how many images there are at each confidence.

    Args:
        png: Where to.
        bins: low, high, count, confidence and accuracy of each, as in metrics.json.
        ece: Expected calibration error, a fraction.
    """
    lows, widths = [b["low"] for b in bins], [b["high"] - b["low"] for b in bins]
    with drawing(png, width=4.4, height=5) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        upper.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="as sure as right")
        upper.bar(lows, [b["accuracy"] for b in bins], widths, align="edge", color=BLUE, edgecolor="white")
        upper.set_title(f"ECE {100 * ece:.1f} %")
        figure.legend(frameon=False, loc="upper right")  # above the bars, which may reach any height
        upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        lower.bar(lows, [b["count"] for b in bins], widths, align="edge", color=GREY, edgecolor="white")
        lower.set(xlabel="confidence", ylabel="images")
        for axes in (upper, lower):
            open_frame(axes)
