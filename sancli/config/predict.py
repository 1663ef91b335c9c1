"""Settings of `san predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sancli.config.base import AUTO, DEVICES, PRECISIONS, Config, check_range
from sancli.config.evaluate import EvalConfig
from sancli.config.prepare import PrepareConfig
from sancli.errors import check_choice


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Config):
    """Which images are named, by which model, and where the answers go."""

    paths: tuple[str, ...]
    """Files, folders, globs, or - for names on stdin."""
    model: str | None = None
    topk: int = 5
    min_confidence: float = 0.0
    """Below it the label is "unsure"."""
    output: Path | None = None
    """.csv, .json or .jsonl. None: predictions.csv for more than one image."""
    sort_into: Path | None = None
    tta: str = "none"
    batch_size: int = 64
    max_pixels: int = PrepareConfig.max_pixels
    device: str = "auto"
    precision: str = "auto"
    workers: int | Literal["auto"] = "auto"

    OUTPUTS = (".csv", ".json", ".jsonl")

    def __post_init__(self) -> None:
        """Refuses what no prediction could use."""
        check_choice("--tta", self.tta, EvalConfig.TTAS)
        check_choice("--device", self.device, DEVICES)
        check_choice("--precision", self.precision, PRECISIONS)
        if self.output is not None:
            check_choice("the ending of --output", self.output.suffix.lower(), self.OUTPUTS)
        check_range("--topk", self.topk, 1, 1_000_000)
        check_range("--min-confidence", self.min_confidence, 0, 1)
        check_range("--batch-size", self.batch_size, 1, 1_000_000)
        check_range("--max-pixels", self.max_pixels, 1, 10**12)
        check_range("--workers", None if self.workers == AUTO else self.workers, 0, 1024)
