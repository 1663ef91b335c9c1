"""Settings of `san export`."""

from dataclasses import dataclass
from pathlib import Path

from sancli.config.base import Config
from sancli.config.download_weights import is_repository
from sancli.errors import UsageError, check_choice

SAFETENSORS, HUB, AUTHORS, ONNX = "safetensors", "hub", "authors", "onnx"
SUFFIXES = {SAFETENSORS: ".safetensors", AUTHORS: ".pth", ONNX: ".onnx"}
"""Of the formats that are one file."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Config):
    """Which model is written in which form, and where it goes."""

    model: str | None = None
    """A run's folder, a file or a published name. None: the newest run."""
    format: str | None = None
    """None: hub with --push, else what the ending of the output says, else safetensors."""
    output: Path | None = None
    """None: the model's name in the current folder; with --push nothing is kept here."""
    push: str | None = None
    """OWNER/NAME: the repository of the Hugging Face Hub that it is published in."""
    private: bool = False
    license: str | None = None
    """As the Hub names it, for the model card. None: MIT for the authors' networks, else unknown."""
    force: bool = False

    FORMATS = (SAFETENSORS, HUB, AUTHORS, ONNX)

    def __post_init__(self) -> None:
        """Refuses an unknown format, a repository that cannot be, and options without a use."""
        if self.format is not None:
            check_choice("--format", self.format, self.FORMATS)
        if self.push is not None and not is_repository(self.push):
            raise UsageError(
                f"--push {self.push} is no repository.",
                why="it takes the form OWNER/NAME.",
                fix="OWNER is your name on https://huggingface.co, or an organization's.",
            )
        if self.push is not None and self.form != HUB:
            raise UsageError(
                f"--push and --format {self.format} contradict each other.",
                why="what is published is the folder of --format hub.",
                fix="leave --format out.",
            )
        if self.private and self.push is None:
            raise UsageError(
                "--private wants --push.",
                why="it is about a repository that is made.",
                fix="add --push OWNER/NAME, or leave --private out.",
            )
        if self.license is not None and self.form != HUB:
            raise UsageError(
                "--license wants --format hub or --push.",
                why="it stands in the model card.",
                fix="add one of them, or leave --license out.",
            )

    @property
    def form(self) -> str:
        """The format that is written."""
        if self.format or self.push:
            return self.format or HUB
        ending = self.output.suffix if self.output else ""
        return next((form for form, suffix in SUFFIXES.items() if suffix == ending), SAFETENSORS)
