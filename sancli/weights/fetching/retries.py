"""What may pass by itself is tried again, a few times, each time after a longer pause."""

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


class Unreachable(WeightsError):  # noqa: N818 -- the kinds of SanError are named by what happened
    """There is no way to a host at all: no use in asking for the next file."""


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


def retrying(action: Callable[[], T]) -> T:
    """What `action` gives in the first try that ends well.

    Raises:
        SanError: The fault of the last try.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            return action()
        except TransientError as fault:
            pauses = iter(PAUSES) if fault.gained else pauses
            pause = next(pauses, None)
            if pause is None or fault.pause > LONGEST_PAUSE:
                raise fault.error from None
            pause = max(pause, fault.pause)
            say(f"{fault.error.what.rstrip('.')}: {fault.error.why} Trying again in {duration(pause)}")
            time.sleep(pause)
