"""What may pass by itself is tried again, a few times, each time after a longer pause."""

import math
import re
import time
from collections.abc import Callable
from typing import TypeVar

from sancli.console import duration, say
from sancli.errors import SanError, WeightsError

T = TypeVar("T")
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try: a server that restarts or a network that changes is back by then."""
LONGEST_PAUSE = 60.0
"""Of what a server may ask for; beyond it an error says so at once."""


NO_HOST = re.compile(
    "NameResolutionError|name resolution|failed to resolve|getaddrinfo|name or service not known"
    "|nodename nor servname|no address associated",
    re.IGNORECASE,
)
"""What requests, httpx and the systems say. Not a bare "resolve": it stands in every address of the Hub."""
REFUSED = re.compile("connection refused|actively refused", re.IGNORECASE)


class Unreachable(WeightsError):  # noqa: N818 -- the kinds of SanError are named by what happened
    """There is no way to a host at all: no use in asking for the next file."""


def no_way(fault: str) -> str | None:
    """Why there is no way to a host, from the words of a fault; None: it is another fault."""
    if NO_HOST.search(fault):
        return "its host was not found: there is no connection, or no such host"
    if REFUSED.search(fault):
        return "nothing answers at its address: the connection is refused"
    return None


class TransientError(Exception):
    """What went wrong this time, and the error that it is when the last try has failed too.

    Args:
        error: For the user.
        gained: More of the file is here than ever before: the count of tries begins anew.
        pause: Seconds that the server asks for.
    """

    def __init__(self, error: SanError, *, gained: bool = False, pause: float = 0) -> None:
        super().__init__(str(error))
        self.error, self.gained, self.pause = error, gained, pause


def retrying(action: Callable[[], T], *, patience: float | None = None) -> T:
    """What `action` gives in the first try that ends well.

    Args:
        action: Raises TransientError where another try may help.
        patience: Seconds after the first fault, or of a single try, after which there is no further one; the
            error then says how long it was tried. None: only the pauses are counted.

    Raises:
        SanError: The fault of the last try.
    """
    pauses, began, first = iter(PAUSES), time.monotonic(), math.inf
    while True:
        start = time.monotonic()
        try:
            return action()
        except TransientError as fault:
            now = time.monotonic()
            first = min(first, now)
            pauses = iter(PAUSES) if fault.gained else pauses
            pause = next(pauses, None)
            late = patience is not None and max(now - start, now - first) > patience
            if pause is None or fault.pause > LONGEST_PAUSE or late:
                raise (fault.error if patience is None else _after(fault.error, now - began)) from None
            pause = max(pause, fault.pause)
            say(f"{fault.error.what.rstrip('.')}: {fault.error.why} Trying again in {duration(pause)}")
            time.sleep(pause)


def _after(error: SanError, seconds: float) -> SanError:
    """The error with how long it was tried."""
    why = f"{error.why.rstrip('.')}, after {duration(seconds)} of trying."
    return type(error)(error.what, why=why, fix=error.fix)
