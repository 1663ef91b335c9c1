"""What a model is besides its numbers."""

import platform
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch

from sancli import __version__
from sancli.config import ARCHS, RELATIONS
from sancli.data.preprocessing import Preprocessing

FORMAT = 1


def versions() -> dict[str, str]:
    """What made a file, for whoever reads it later."""
    return {"sancli": __version__, "torch": torch.__version__, "python": platform.python_version()}


UNLIKE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading JSON raises, and ModelInfo.from_dict, where a text describes no model."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Everything but the numbers that a model needs to be used; it travels inside model.safetensors."""

    name: str
    """Of the run, or of the published network."""
    classes: tuple[str, ...]
    """The network's output i is classes[i]."""
    arch: str
    attention: str
    relation: str | None
    """None: the authors' own for this attention."""
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    """On val, fractions from 0 to 1, of these very weights."""
    epoch: int = 0
    """Epochs that these weights have learnt for."""
    finished: bool = True
    """False while the run goes on, or where it was stopped."""
    data: dict[str, Any] = field(default_factory=dict)
    """name, path and sha256 (of dataset.json) of what it was trained on."""
    started_from: str = "scratch"
    versions: dict[str, str] = field(default_factory=versions)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: It was not made by `to_dict`.
            ValueError: The class names are missing, empty or not unique, or the network is one unknown here.
        """
        classes = tuple(map(str, values["classes"]))
        if len(set(classes)) != len(classes) or not classes:
            raise ValueError("its class names are missing or not unique")
        arch, attention, relation = (values[key] for key in ("arch", "attention", "relation"))
        if arch not in ARCHS or relation not in (None, *RELATIONS[attention]):
            raise ValueError(f"its network is unknown here: {arch}, {attention}, {relation}")
        preprocessing = Preprocessing.from_dict(values["preprocessing"])
        return cls(**values | {"classes": classes, "preprocessing": preprocessing})
