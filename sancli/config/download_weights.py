"""Settings of `san download-weights`."""

from dataclasses import dataclass
from pathlib import Path

from sancli.config.base import ATTENTIONS, Config
from sancli.errors import check_choice


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Config):
    """Which published weights are wanted, and where they come from."""

    name: str = "list"
    """san10, san15 or san19, with -patchwise or -pairwise; or list."""
    attention: str | None = None
    """None: as the name says; patchwise where it does not."""
    source: Path | None = None
    """A file with the authors' checkpoint or one of ours."""
    to: Path | None = None
    """A folder. None: the user's cache."""
    force: bool = False

    def __post_init__(self) -> None:
        """Refuses an attention that does not exist."""
        if self.attention is not None:
            check_choice("--attention", self.attention, ATTENTIONS)
