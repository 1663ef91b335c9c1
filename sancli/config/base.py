"""What all settings can do: check a value, be saved as TOML, be opened again."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w

from sancli.errors import UsageError, closest

ARCHS = ("san10", "san15", "san19", "resnet26", "resnet38", "resnet50")
ATTENTIONS = ("patchwise", "pairwise")
RELATIONS = {  # the first is the authors' released network
    "patchwise": ("concatenation", "star-product", "clique-product"),
    "pairwise": ("subtraction", "summation", "concatenation", "hadamard", "dot-product"),
}
DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SPLITS = ("train", "val", "test")
AUTO: Literal["auto"] = "auto"


class Config:
    """What every task's settings can do; the tasks' dataclasses add the fields."""

    def to_toml(self) -> str:
        """The settings as TOML; what is None is left out."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        return tomli_w.dumps({key: _plain(value) for key, value in values.items()})

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """The settings that `to_toml` wrote.

        Raises:
            UsageError: A key is unknown, or the text is not TOML.
        """
        types = {field.name: field.type for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        values = read_toml(text, known=types)
        paths = {key: Path(value) for key, value in values.items() if "Path" in str(types[key])}
        return cls(**values | paths)

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changed, checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def read_toml(text: str, *, known: Any) -> dict[str, Any]:
    """The settings in a TOML text; dashes in names count as underscores, as on the command line.

    Raises:
        UsageError: It is not TOML, or holds a setting that is not among the known ones.
    """
    try:
        values = {key.replace("-", "_"): value for key, value in tomllib.loads(text).items()}
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            "the settings are not TOML.", why=f"{error}.", fix='write lines such as: arch = "san15"'
        ) from None
    for key in values:
        if key not in known:
            raise UsageError(
                f"there is no setting {key}.",
                why="this version of sancli does not know it for this command.",
                fix=closest(key, known),
            )
    return values


def check_range(option: str, value: float | None, low: float, high: float) -> None:
    """Refuses a number outside [low, high]; None, not given, is fine.

    Raises:
        UsageError: With both bounds.
    """
    if value is not None and not low <= value <= high:
        raise UsageError(
            f"{option} {value} is out of range.",
            why=f"it must lie between {low:g} and {high:g}.",
            fix="change it, or leave it out.",
        )
