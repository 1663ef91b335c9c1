"""A file on Google Drive -> bytes on the disk, through gdown, which follows Google's changes.

The only file with gdown. What it brings is checked by the same code as any other file.
"""

from contextlib import ExitStack

from sancli.console import Bar, busy, detail, progress
from sancli.errors import WeightsError
from sancli.files import storage_errors
from sancli.weights.fetching.pages import QUOTA, quota
from sancli.weights.fetching.partial import Partial
from sancli.weights.fetching.retries import PAUSES
from sancli.weights.fetching.transfer import MIB, TIMEOUT, network_error

VIEW = "https://drive.google.com/file/d/{}/view"
WHOLE = "whole"
FETCH = "https://drive.google.com/uc?id={}"


def fetch_from_drive(drive_id: str, partial: Partial, *, label: str, name: str) -> None:
    """Brings the file to `partial`.

    Raises:
        WeightsError: It cannot be had; the browser may have more luck.
        StorageError: No space, or a place that cannot be written.
    """
    import gdown
    from requests.exceptions import RequestException

    address = VIEW.format(drive_id)
    if partial.version(address) == WHOLE:  # it came, and then the disk was full
        return
    with storage_errors(partial.path), ExitStack() as stack:
        partial.path.parent.mkdir(parents=True, exist_ok=True)
        for path in (
            partial.path,
            *partial.parts()[1:],
        ):  # gdown goes on with its own part, if there is but one
            path.unlink(missing_ok=True)
        stack.enter_context(busy(f"Asking for {label}"))
        try:
            gdown.download(
                url=FETCH.format(drive_id),
                output=str(partial.path),
                quiet=True,
                use_cookies=False,
                resume=True,
                timeout=TIMEOUT,
                retries=len(PAUSES),
                progress=Shown(stack, label),
            )
        except (gdown.exceptions.DownloadError, RequestException, LookupError, AssertionError) as fault:
            detail(repr(fault))  # the last two: an answer without the headers that gdown looks for
            raise _said(fault, drive_id, partial, label=label, name=name) from None
    partial.remember(address, WHOLE)


def _said(fault: Exception, drive_id: str, partial: Partial, *, label: str, name: str) -> WeightsError:
    """What gdown says as our error: with the way round, where there is one."""
    import gdown
    from requests import exceptions as faults

    cause = fault.__cause__ if isinstance(fault, gdown.exceptions.DownloadError) else fault
    if isinstance(fault, gdown.exceptions.FileURLRetrievalError):
        words = quota() if QUOTA.search(str(fault)) else "Google Drive gave a page in place of the file"
    elif isinstance(cause, faults.HTTPError) and cause.response is not None:
        words = f"Google Drive answers with HTTP {cause.response.status_code}"
    elif isinstance(cause, faults.RequestException) and not isinstance(cause, faults.ChunkedEncodingError):
        return network_error(label, cause)
    elif "byte range" in str(fault):
        partial.drop()
        words = "Google Drive did not go on where it broke off before; the next try is from the start"
    elif isinstance(fault, gdown.exceptions.DownloadError):
        words = f"the connection broke off; {partial.kept()}"
    else:
        words = "Google Drive gave an answer without the usual headers"
    return WeightsError(
        f"{label} did not come.",
        why=f"{words}.",
        fix=f"fetch {VIEW.format(drive_id)} with a browser, then:\n"
        f"       san download-weights {name} --from model_best.pth",
    )


class Shown:
    """What gdown calls after each piece; the bar begins with the first, which says how long the file is."""

    def __init__(self, stack: ExitStack, label: str) -> None:
        self.stack, self.label, self.start = stack, label, 0
        self.bar: Bar | None = None

    def __call__(self, count: int, total: int | None) -> None:
        """Takes the bytes that are here, and those of the whole file."""
        if total is None:
            return
        if self.bar is None:
            self.start = count
            self.stack.close()  # what turned until now
            bar = progress(f"Fetching {self.label}", total=max(1, (total - count) // MIB), unit="MiB")
            self.bar = self.stack.enter_context(bar)
        self.bar.advance(min((count - self.start) // MIB, self.bar.total) - self.bar.done)
