"""Settings of `san eval`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sancli.config.base import AUTO, DEVICES, PRECISIONS, SPLITS, Config, check_range
from sancli.errors import check_choice


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Config):
    """What is measured, on which images, and where the figures go."""

    model: str | None = None
    """A run's folder, a file or a published name. None: the newest run."""
    data: Path | None = None
    """None: what the model was trained on."""
    split: str | None = None
    """None: test where there is one, else val."""
    tta: str = "none"
    batch_size: int = 64
    worst: int = 25
    out: Path | None = None
    """None: runs/<run>/eval-<split>."""
    device: str = "auto"
    precision: str = "auto"
    workers: int | Literal["auto"] = "auto"

    TTAS = ("none", "flip")

    def __post_init__(self) -> None:
        """Refuses what no evaluation could use."""
        if self.split is not None:
            check_choice("--split", self.split, SPLITS)
        check_choice("--tta", self.tta, self.TTAS)
        check_choice("--device", self.device, DEVICES)
        check_choice("--precision", self.precision, PRECISIONS)
        check_range("--batch-size", self.batch_size, 1, 1_000_000)
        check_range("--worst", self.worst, 0, 400)  # one sheet of pictures
        check_range("--workers", None if self.workers == AUTO else self.workers, 0, 1024)
