"""What a model says of each image -> .csv, .json or .jsonl. To add a format, write a function for WRITERS."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sancli.files import write_csv, write_json, write_text

UNSURE = "unsure"


@dataclass(frozen=True)
class Prediction:
    """The answer for one image, or why there is none."""

    path: Path
    top: tuple[tuple[str, float], ...] = ()
    """Labels with their probabilities, the highest first; empty where the image could not be read."""
    error: str = ""
    sure: bool = True
    """Whether the highest probability is enough."""
    true: str | None = None
    """The right label, where it is known."""

    @property
    def label(self) -> str:
        """The answer in one word; empty where the image could not be read."""
        return "" if not self.top else self.top[0][0] if self.sure else UNSURE

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the path as it is."""
        return {
            "path": str(self.path),
            **({} if self.true is None else {"true": self.true}),
            "label": self.label or None,
            "confidence": self.top[0][1] if self.top else None,
            "top": [{"label": label, "confidence": confidence} for label, confidence in self.top],
            "error": self.error or None,
        }


def as_csv(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes a row an image: path, (true,) label, confidence, label_2, confidence_2, ..., error."""
    ranks = max([1, *(len(one.top) for one in predictions)])
    known = any(one.true is not None for one in predictions)
    names = [name for rank in range(2, ranks + 1) for name in (f"label_{rank}", f"confidence_{rank}")]
    header = ("path", *(["true"] if known else []), "label", "confidence", *names, "error")
    write_csv(path, header, (_row(one, ranks=ranks, known=known) for one in predictions))


def _row(one: Prediction, *, ranks: int, known: bool) -> list[str]:
    answers = [text for label, confidence in one.top for text in (label, f"{confidence:.6f}")]
    answers += [""] * (2 * ranks - len(answers))
    true = [one.true or ""] if known else []
    return [decodable(one.path), *true, one.label, *answers[1:], one.error]


def decodable(path: Path) -> str:
    r"""The path as valid Unicode, other bytes as \xff: one odd name must not make the table unreadable."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def as_json(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes one object with the list of predictions."""
    write_json(path, {"predictions": [one.to_dict() for one in predictions]})


def as_jsonl(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes one object a line."""
    write_text(path, "".join(json.dumps(one.to_dict()) + "\n" for one in predictions))


WRITERS: dict[str, Callable[[Path, Sequence[Prediction]], None]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".jsonl": as_jsonl,
}
