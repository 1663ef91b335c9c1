"""Settings of `san download-weights`."""

from dataclasses import dataclass
from pathlib import Path

from sancli.config.base import Config


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Config):
    """Which published weights are wanted, and where they come from."""

    name: str = "list"
    """san10, san15 or san19, with -patchwise or -pairwise; or list."""
    attention: str | None = None
    source: Path | None = None
    """A file with the authors' checkpoint or one of ours."""
    to: Path | None = None
    """None: the user's cache."""
    force: bool = False
