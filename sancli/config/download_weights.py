"""Settings of `san download-weights`."""

import re
from dataclasses import dataclass
from pathlib import Path

from sancli.config.base import ATTENTIONS, Config
from sancli.errors import UsageError, check_choice, command

LIST, ALL = "list", "all"
REPOSITORY = re.compile(r"(?!.*--)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""OWNER/NAME, as the Hugging Face Hub allows it: never a path that leads out of a folder."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(Config):
    """Which published weights are wanted, and where they come from."""

    name: str = LIST
    """san10, san15 or san19, with -patchwise or -pairwise; list; all; or OWNER/NAME, a model on the Hub."""
    attention: str | None = None
    """None: as the name says; patchwise where it does not; both for all."""
    source: str | None = None
    """A file or an address, of the authors' checkpoint or one of ours. None: the authors' release."""
    repo: str | None = None
    """A repository of the Hugging Face Hub that has the file."""
    revision: str | None = None
    """A branch, a tag or a commit of it."""
    to: Path | None = None
    """A folder. None: the user's cache."""
    force: bool = False
    offline: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuses an attention or a repository that cannot be, and options that contradict each other."""
        if self.attention is not None:
            check_choice("--attention", self.attention, ATTENTIONS)
        if self.repo is not None and not is_repository(self.repo):
            raise UsageError(
                f"--repo {self.repo} is no repository.",
                why="it takes the form OWNER/NAME.",
                fix="copy it from its page: https://huggingface.co/OWNER/NAME",
            )
        for first, second in self._contradictions():
            raise UsageError(
                f"{first} and {second} contradict each other.",
                why=f"{first} has no use for {second}.",
                fix=command("san", "download-weights", self.name),
            )
        if self.revision and not (self.repo or is_repository(self.name)):
            raise UsageError(
                "--revision wants a repository.",
                why="it is a branch, a tag or a commit of one.",
                fix="add --repo OWNER/NAME, or leave --revision out.",
            )

    @property
    def is_address(self) -> bool:
        """Whether --from names an address, not a file."""
        return bool(self.source) and str(self.source).lower().startswith(("http://", "https://"))

    def _contradictions(self) -> list[tuple[str, str]]:
        source, repo = ("--from", self.source is not None), ("--repo", self.repo is not None)
        attention, to = ("--attention", self.attention is not None), ("--to", self.to is not None)
        rules = [
            (LIST, self.name == LIST, [source, repo]),
            (ALL, self.name == ALL, [source]),
            (self.name, is_repository(self.name), [source, repo, attention, to]),
            ("--from", self.source is not None, [repo]),
        ]
        return [(who, other) for who, holds, others in rules for other, given in others if holds and given]


def is_repository(name: str) -> bool:
    """Whether it has the form OWNER/NAME."""
    return REPOSITORY.fullmatch(name) is not None
