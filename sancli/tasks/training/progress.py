"""How far a run has come."""

from dataclasses import dataclass, field
from typing import Any

FIGURES = {"top1": "top1", "macro-f1": "macro_f1", "loss": "loss"}
"""The names of --select, and of the figures on val."""


@dataclass
class Progress:
    """How far a run has come. Plain values: it stands in the checkpoint."""

    epoch: int = 0
    """Epochs that are complete, val included."""
    step: int = 0
    """Steps of the epoch that goes on."""
    loss: float = 0.0
    """Sum over the images of the epoch that goes on."""
    correct: float = 0.0
    images: int = 0
    best_epoch: int = 0
    """0: none yet."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One for each complete epoch: metrics.csv."""
    seconds: float = 0.0
    """Spent so far; never in metrics.csv, which is the same however often a run stopped."""

    def epochs_left(self, epochs: int, *, steps_per_epoch: int) -> float:
        """Of `epochs`, with what is left of the one that goes on."""
        return epochs - self.epoch - self.step / steps_per_epoch

    def best(self) -> dict[str, Any]:
        """The row of the best epoch."""
        return self.rows[self.best_epoch - 1]

    def is_better(self, row: dict[str, Any], select: str) -> bool:
        """Whether the row is the best so far, by --select; of equals, the one with the lower loss."""
        if not self.best_epoch:
            return True
        name, best = f"val_{FIGURES[select]}", self.best()
        sign = -1 if name == "val_loss" else 1
        return bool((sign * row[name], -row["val_loss"]) > (sign * best[name], -best["val_loss"]))

    def best_text(self, select: str) -> str:
        """The best figure so far, by --select, for people."""
        value = self.best()[f"val_{FIGURES[select]}"]
        return f"{value:.3f}" if select == "loss" else f"{100 * value:.1f} %"
