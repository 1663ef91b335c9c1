"""A folder on this disk -> a repository of the Hugging Face Hub, through huggingface_hub."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from sancli.console import busy, detail
from sancli.errors import WeightsError
from sancli.weights.fetching.hub import unreached
from sancli.weights.fetching.retries import TransientError, retrying
from sancli.weights.fetching.transfer import TRANSIENT

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo

T = TypeVar("T")
CARD = "README.md"
PATIENCE = 15.0
"""Seconds after the first fault, or of a single try, after which there is no further one: huggingface_hub by
itself asks most things six times, in 5 to 23 s."""
TOKENS = "https://huggingface.co/settings/tokens"
LOGIN = f"hf auth login, or set HF_TOKEN to a token that may write: {TOKENS}"
REFUSALS = {
    401: ("the Hub does not accept the token", LOGIN),
    402: (
        "the Hub wants to be paid for it",
        "look at the owner's settings on https://huggingface.co/settings",
    ),
    403: ("the token may not write there", f"check OWNER, and that the token may write: {TOKENS}"),
    404: ("there is no such owner or repository, or the token may not see it", "check OWNER/NAME."),
    413: ("a file is too large for the Hub", "export it with -o, and upload it with hf upload."),
}


class Published(NamedTuple):
    """What has become of a folder on the Hub."""

    address: str
    removed: list[str]
    """Files of an earlier export that were taken away, because this one has none of that name."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """A repository that is to be written to, with the right to try."""

    name: str
    """OWNER/NAME."""
    private: bool
    token: str

    def __repr__(self) -> str:
        return f"<Publisher of {self.name}>"

    @classmethod
    def ready(cls, name: str, *, private: bool) -> Self:
        """What is needed to publish, looked for on this machine; the network is not touched.

        Raises:
            WeightsError: There is no token, or the Hub may not be reached.
        """
        from huggingface_hub import constants, get_token

        what = f"{name} was not published."
        if constants.HF_HUB_OFFLINE:
            raise WeightsError(what, why="HF_HUB_OFFLINE is set.", fix="unset it, or leave --push out.")
        token = get_token()
        if token is None:
            raise WeightsError(what, why="there is no token for the Hugging Face Hub here.", fix=LOGIN)
        return cls(name=name, private=private, token=token)

    def publish(self, folder: Path, *, title: str, made_before: Callable[[str], set[str]]) -> Published:
        """Makes the repository, where there is none, and puts the files of the folder there in one commit.

        Args:
            folder: Its files go to the top of the repository; files of others there stay.
            title: Of the commit.
            made_before: From the card that is there to the files that an earlier export put beside it.

        Raises:
            WeightsError: The Hub refuses it or does not answer.
        """
        import huggingface_hub

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our words stand for its own
        api = huggingface_hub.HfApi(library_name="sancli", token=self.token)
        with quiet(), busy(f"Publishing {self.name}"):
            address = self._ask(
                lambda: str(api.create_repo(self.name, exist_ok=True, private=self.private or None))
            )
            there = self._ask(lambda: api.model_info(self.name))
            if self.private:
                self._check_private(there.private)
            former = made_before(self._card(api)) if CARD in files_of(there) else set()
            removed = sorted(former & files_of(there) - {path.name for path in folder.iterdir()})
            self._ask(lambda: self._commit(api, folder, removed, title=title))
        return Published(address, removed)

    def _commit(self, api: "HfApi", folder: Path, removed: list[str], *, title: str) -> None:
        if removed:  # a try before this one may have done it all, and its answer been lost
            there = files_of(api.model_info(self.name))
            removed = [name for name in removed if name in there]
        api.create_commit(self.name, operations(folder, removed), commit_message=title)

    def _card(self, api: "HfApi") -> str:
        """The card that is in the repository."""
        with tempfile.TemporaryDirectory() as place:
            path = self._ask(lambda: api.hf_hub_download(self.name, CARD, local_dir=place))
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def _check_private(self, private: bool | None) -> None:
        if not private:
            raise WeightsError(
                f"{self.name} was not published.",
                why="the repository is there already and is public, and --private was given.",
                fix="make it private on its page, name another, or leave --private out.",
            )

    def _ask(self, action: Callable[[], T]) -> T:
        """What the Hub answers; what may pass by itself is asked again, for half a minute."""

        def asked() -> T:
            try:
                return action()
            except Exception as fault:  # the errors of its HTTP library and of Xet share no name
                detail(str(fault))
                raise self._said(fault) from None

        return retrying(asked, patience=PATIENCE)

    def _said(self, fault: Exception) -> TransientError | WeightsError:
        """The Hub's answer as our error; one that may pass by itself is to be tried again."""
        from huggingface_hub import errors as faults

        what = f"{self.name} was not published."
        if isinstance(fault, RuntimeError) and isinstance(fault.__cause__, Exception):
            fault = fault.__cause__  # what it wraps around the fault of a single file
        if isinstance(fault, faults.OfflineModeIsEnabled):
            return WeightsError(what, why="HF_HUB_OFFLINE is set.", fix="unset it, or leave --push out.")
        if isinstance(fault, faults.HfHubHTTPError):
            status, words = fault.response.status_code, str(fault.server_message or "").strip()
            kind = "the Hub is out of order" if status >= 500 else "the Hub refuses it"
            why, fix = REFUSALS.get(status, (kind, "look at https://status.huggingface.co"))
            said = f": {' '.join(words.split())[:160]}" if words else ""
            error = WeightsError(what, why=f"{why} (HTTP {status}{said}).", fix=fix)
            return TransientError(error) if status in TRANSIENT else error
        return unreached(what, fault, fix="check the connection, and run the same command again.")


def files_of(repository: "ModelInfo") -> set[str]:
    """The names of what is in a repository."""
    return {file.rfilename for file in repository.siblings or ()}


def operations(folder: Path, removed: Iterable[str]) -> list["CommitOperationAdd | CommitOperationDelete"]:
    """What a commit is to do, made anew for each try: they remember what became of them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = sorted(folder.iterdir())
    return [
        *(CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files),
        *(CommitOperationDelete(path_in_repo=name) for name in removed),
    ]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the bars and warnings of huggingface_hub from the screen."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    were_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if were_shown:
            enable_progress_bars()
