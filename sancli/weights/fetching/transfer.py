"""A file at an address -> bytes on the disk: resumed where the server can, counted, tried again.

The only file with requests, which follows redirects and proxies, and gives a token to no other host.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import requests
from requests import Response
from requests import exceptions as faults

from sancli import __version__
from sancli.console import busy, progress, size
from sancli.errors import StorageError, WeightsError
from sancli.files import free_bytes, storage_errors
from sancli.weights.fetching.pages import HEAD, page_of
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.retries import TransientError, Unreachable, no_way, retrying

TIMEOUT = (10.0, 30.0)
"""Seconds for a connection, and without a single byte."""
CHUNK = 1 << 18
PROXY = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
MIB = 1 << 20
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
REASONS = {
    401: "it is private: a token or a password is needed",
    403: "access is refused: it may be private, or its quota used up",
    404: "there is no such file",
    407: "the proxy wants a password",
    410: "the file was taken away",
    429: "too many requests came from here",
}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file that can be fetched, and what is known of it beforehand."""

    url: str
    label: str
    """How messages call it."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """With a token, maybe: never shown."""
    size: int | None = None
    sha256: str | None = None


def transfer(remote: Remote, partial: Partial) -> None:
    """Brings the file, whole as far as its length is known, to `partial`.

    Raises:
        WeightsError: It cannot be had; what has come of it stays where the server lets a transfer go on.
        StorageError: No space, or a place that cannot be written.
    """
    try:
        retrying(lambda: _one_try(remote, partial))
    except WeightsError as error:
        why = f"{error.why.rstrip('.')}; {partial.kept()}." if partial.count else error.why
        raise WeightsError(error.what, why=why, fix=error.fix) from None


def _one_try(remote: Remote, partial: Partial) -> None:
    version = partial.version(remote.url)
    here = partial.count
    before = here if version else 0
    with _network_errors(remote, partial, here), requests.Session() as session:
        headers = {"User-Agent": f"sancli/{__version__}", "Accept-Encoding": "identity"}
        headers |= remote.headers
        if before:
            headers |= {"Range": f"bytes={before}-", "If-Range": str(version)}
        # a token of ours is not to be replaced by what ~/.netrc says for the host
        auth = (lambda request: request) if "authorization" in remote.headers else None
        with session.get(remote.url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                if _total(response, 0) == before:  # the last byte came, and then the end of the program
                    return
                partial.drop()
                raise TransientError(_failed(remote, "the server has no bytes past those"))
            _check_status(remote, response)
            _receive(remote, partial, response, before)


def _receive(remote: Remote, partial: Partial, response: Response, before: int) -> None:
    """Writes what the response brings: after what is there, or from the start where the server does so."""
    resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
    same = _version(response) in (None, partial.version(remote.url))  # not every server minds If-Range
    if resumed and not (same and _start(response) == before):
        partial.drop()
        raise TransientError(_failed(remote, "the server sent other bytes than those asked for"))
    start = before if resumed else 0
    total = _total(response, start)
    if remote.size is not None and total not in (None, remote.size):
        raise _failed(remote, f"the server announces {total:,} bytes; it should be {remote.size:,}")
    with storage_errors(partial.path):
        partial.path.parent.mkdir(parents=True, exist_ok=True)
        if not resumed:
            partial.begin(remote.url, _version(response))
        _check_space(partial, (total or start) - start)
    for chunk in _shown(remote, response, start, total):
        with storage_errors(partial.path), partial.path.open("ab") as file:
            file.write(chunk)


def _shown(remote: Remote, response: Response, start: int, total: int | None) -> Iterator[bytes]:
    """The chunks, with a bar in MiB where the length is known."""
    chunks = response.iter_content(CHUNK)
    what = f"Fetching {remote.label.rpartition('/')[2] or remote.label}" + (
        f" from {size(start)} on" if start else ""
    )
    if total is None:
        with busy(what):
            yield from chunks
        return
    with progress(what, total=max(1, (total - start) // MIB), unit="MiB") as bar:
        come = 0
        for chunk in chunks:
            yield chunk
            come += len(chunk)
            bar.advance(min(come // MIB, bar.total) - bar.done)


def _version(response: Response) -> str | None:
    """What tells whether the file is still the same one when a transfer goes on: If-Range wants it strong."""
    etag = response.headers.get("ETag")
    if "Content-Encoding" in response.headers:
        return None
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _start(response: Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _total(response: Response, start: int) -> int | None:
    """Bytes of the whole file, as the server says; None: it does not say."""
    if found := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(found[1])
    length = response.headers.get("Content-Length", "")
    plain = "Content-Encoding" not in response.headers and "Transfer-Encoding" not in response.headers
    return start + int(length) if plain and length.isdigit() else None


def _check_space(partial: Partial, needed: int) -> None:
    free = free_bytes(partial.path)
    if needed > free:
        raise StorageError(
            f"no space to write {partial.path}.",
            why=f"{needed:,} bytes are needed, {free:,} are free there.",
            fix="free some space, or name a folder on another disk with --to.",
        )


def _check_status(remote: Remote, response: Response) -> None:
    """Refuses what is no file: an error of the server, with what its page says."""
    status = response.status_code
    if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    page = page_of(next(response.iter_content(HEAD), b""))
    reason = REASONS.get(status, f"the server cannot answer ({response.reason})" if status >= 500 else "")
    words = f"HTTP {status}: {reason or response.reason}" + (f"; {page}" if page else "")
    error = _failed(remote, words)
    if status in TRANSIENT:
        after = response.headers.get("Retry-After", "")
        raise TransientError(error, pause=float(after) if after.isdigit() else 0)
    raise error


@contextmanager
def _network_errors(remote: Remote, partial: Partial, here: int) -> Iterator[None]:
    """Turns the faults of requests into our words; those that may pass by themselves into TransientError."""
    try:
        yield
    except (faults.ProxyError, faults.SSLError, faults.InvalidProxyURL) as fault:
        raise network_error(remote.label, fault) from None
    except (faults.ConnectionError, faults.Timeout, faults.ChunkedEncodingError) as fault:
        error = network_error(remote.label, fault)
        if isinstance(error, Unreachable) and not here:
            raise error from None
        raise TransientError(error, gained=partial.count > here) from None
    except faults.RequestException as fault:  # no address, too many redirects, an encoding that is broken
        raise network_error(remote.label, fault) from None


def network_error(label: str, fault: Exception) -> WeightsError:
    """What kept a file from coming, as an error for the user."""
    text, kind = str(fault), WeightsError
    fix = "run the same command again when the network is there; --offline uses what is here."
    if isinstance(fault, faults.ProxyError):
        words, fix, kind = "the proxy does not let it through", PROXY, Unreachable
    elif isinstance(fault, faults.SSLError):
        words = "the certificate of the server is not accepted"
        fix = "check the clock of this machine, and REQUESTS_CA_BUNDLE where a company's proxy looks inside."
    elif isinstance(fault, faults.Timeout) or "timed out" in text:
        words = "the server did not answer in time"
    elif way := no_way(text):
        words, kind = way, Unreachable
    elif isinstance(fault, faults.ConnectionError | faults.ChunkedEncodingError):
        words = "the connection broke off"
    else:
        words, fix = text.split("\n")[0][:160], "check the address."
    return kind(f"{label} did not come.", why=f"{words}.", fix=fix)


def _failed(remote: Remote, words: str) -> WeightsError:
    return WeightsError(
        f"{remote.label} did not come.",
        why=f"{words}.",
        fix="check the address, or take another source: --from FILE, --from URL or --repo OWNER/NAME.",
    )
