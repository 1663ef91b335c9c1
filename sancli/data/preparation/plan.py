"""What is known about a source by its names alone, and what is to be made of it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sancli.config import PrepareConfig
from sancli.data.listing import Problem
from sancli.data.preparation.layouts import Layout, Placed
from sancli.data.preparation.scan import hash_source
from sancli.data.preparation.source import Source

NOT_IN_RESULT = ("source", "out", "labels", "dry_run", "force", "check")
"""Settings that do not change what a prepared folder holds; what --labels names counts by its content."""


@dataclass
class Plan:
    """A source that was looked at, before any image is read."""

    source: Source
    out: Path
    layout: Layout
    images: list[Placed]
    """The images of the classes that are wanted, and the unlabelled ones."""
    to_split: dict[str, float]
    config: PrepareConfig

    @property
    def paths(self) -> list[str]:
        """Of the images, relative to the source."""
        return [image.path for image in self.images]

    @property
    def classes(self) -> set[str]:
        """Names of the classes that are wanted, before any image is read."""
        return {image.label for image in self.images if image.label is not None}

    @property
    def unusable(self) -> list[Problem]:
        """What names alone tell: links, fifos, images outside every class."""
        return self.source.listing.problems + self.layout.left_out

    def sha256(self, hashes: list[str] | None = None) -> str:
        """Of all that decides the result; without the hashes of the images they are read."""
        others = [problem.path for problem in self.unusable]
        whole = self.source.sha256(self.paths, hashes, others=others)
        labels = sorted(self.layout.label_files.values())
        return hash_source([("", whole), *(("labels", one) for one in labels)]) if labels else whole

    def options(self) -> dict[str, Any]:
        """The settings that decide the result, as dataset.json has them."""
        values = dataclasses.asdict(self.config)
        return {key: value for key, value in values.items() if key not in NOT_IN_RESULT}
