"""Where the file of a network comes from, and its way here."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sancli.config import DownloadConfig
from sancli.console import duration, say
from sancli.errors import UsageError, WeightsError
from sancli.files import locked, storage_errors
from sancli.model.zoo import PUBLISHED
from sancli.weights.fetching.drive import VIEW, fetch_from_drive
from sancli.weights.fetching.hub import Repository, chosen, open_repository
from sancli.weights.fetching.pages import page_in
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.transfer import Remote, transfer
from sancli.weights.records import sha256_of

LOCK_WAIT = 600.0
"""Seconds for another process to end: a download of the largest network at 2 Mbit/s takes about as long."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A file that is here now, not yet checked."""

    path: Path
    label: str
    """How messages call it."""
    source: str
    """What is recorded."""
    fetched: bool
    """Over the network; else it is the user's own file."""
    sha256: str | None = None
    """What it has to be."""


def source_of(config: DownloadConfig, name: str) -> str:
    """What is recorded as the source of a network."""
    if config.source is not None:
        return recorded(config.source) if config.is_address else str(Path(config.source).absolute())
    if config.repo is not None:
        return page_of(config.repo, config.revision)
    return VIEW.format(PUBLISHED[name].drive_id)


def page_of(repository: str, revision: str | None) -> str:
    """The address of a repository for people, on the Hub that is asked."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{hub}/{repository}/tree/{revision or 'main'}"


def is_fetched(config: DownloadConfig) -> bool:
    """Whether the file comes over the network."""
    return config.source is None or config.is_address


def arrive(config: DownloadConfig, name: str, partial: Partial) -> Arrival:
    """Brings the file of the network here.

    Raises:
        WeightsError: It cannot be had.
        StorageError: No space, or a place that cannot be written.
    """
    source = source_of(config, name)
    if not is_fetched(config):
        path = Path(str(config.source))
        return Arrival(path=path, label=str(path), source=source, fetched=False)
    if config.source is not None:
        remote = Remote(url=config.source, label=without_query(config.source))
    elif config.repo is not None:
        repository = open_repository(config.repo, config.revision)
        remote = chosen(repository, (name, "model.safetensors", "model_best"))
    else:
        label = f"{name} from Google Drive"
        say(f"Fetching {name} from the authors' release, {source}")
        drive_id = str(PUBLISHED[name].drive_id)
        fetch_from_drive(drive_id, partial, label=label, name=name)
        refuse_page(partial, label)
        return Arrival(
            path=partial.path, label=label, source=source, fetched=True, sha256=PUBLISHED[name].sha256
        )
    say(f"Fetching {name} from {without_query(remote.url)}")
    bring(remote, partial)
    return Arrival(path=partial.path, label=remote.label, source=source, fetched=True)


def bring(remote: Remote, partial: Partial) -> None:
    """Transfers the file and holds it to its sha256, where that is known; wrong bytes are fetched once more.

    Raises:
        WeightsError: It cannot be had, is a web page, or is not the file that it should be.
        StorageError: No space, or a place that cannot be written.
    """
    for tries_left in (1, 0):
        transfer(remote, partial)
        refuse_page(partial, remote.label)
        found, count = sha256_of(partial.path), partial.count
        if remote.sha256 in (None, found) and remote.size in (None, partial.count):
            return
        partial.drop()
        if tries_left:
            say(f"{remote.label} came with wrong bytes. Fetching it once more")
    raise WeightsError(
        f"{remote.label} came with wrong bytes, twice.",
        why=f"its sha256 is {found[:16]}... and its size {count:,} bytes, not those published with it.",
        fix="try later, or over another network; nothing of it was kept.",
    )


def refuse_page(partial: Partial, label: str) -> None:
    """Refuses a web page that came in place of the file.

    Raises:
        WeightsError: It is one, told apart by what it says.
    """
    if page := page_in(partial.path):
        partial.drop()
        raise WeightsError(
            f"{label} brought no weights.",
            why=f"{page}.",
            fix="open the address with a browser, fetch the file there, then: --from FILE",
        )


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Holds the place of `target`, after a bounded wait for another process that fetches the same.

    Raises:
        UsageError: The other one is still at it.
        StorageError: The place cannot be written.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(target.parent, name=name))
        except UsageError as error:
            say(f"{target.name} is being fetched already: {error.why} Waiting {duration(LOCK_WAIT)} at most")
            stack.enter_context(locked(target.parent, name=name, wait=LOCK_WAIT))
        yield


def recorded(url: str) -> str:
    """The address as it is kept: with a digest of what stands behind ?, for files can differ in it alone."""
    query = urlsplit(url).query
    digest = hashlib.sha256(query.encode()).hexdigest()[:16]
    return f"{without_query(url)}?sha256:{digest}" if query else without_query(url)


def without_query(url: str) -> str:
    """The address as it is shown: no password, and nothing of what stands behind ?, which may be a secret."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def model_in(repository: Repository) -> Remote:
    """The file of a model of ours.

    Raises:
        WeightsError: The repository has none.
    """
    if remote := repository.files.get("model.safetensors"):
        return remote
    there = ", ".join(sorted(repository.files)[:6]) or "nothing"
    raise WeightsError(
        f"{repository.name} holds no model of san.",
        why=f"it has no model.safetensors; there are: {there}.",
        fix=f"for a published network in it: san download-weights NAME --repo {repository.name}",
    )
