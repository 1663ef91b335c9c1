"""Ctrl-C and SIGTERM while a network learns: the first waits for the end of the step, the second does not."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sancli.console import duration, say

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORTH_SAYING_S = 5
"""A step that may take longer than this is announced with its duration."""


class StopRequest:
    """Whether a signal has asked for the end, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.step_s = 0.0
        """How long a step takes."""

    def __bool__(self) -> bool:
        return self.signal is not None

    def take(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler: notes the first signal, obeys the second at once."""
        if self:
            stop_workers()
            os._exit(128 + number)
        self.signal = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        wait = f", about {duration(self.step_s)}" if self.step_s > WORTH_SAYING_S else ""
        with suppress(RuntimeError):  # the signal came in the middle of another line
            say(f"{name}: stopping after this step{wait}, then saving; again: stop at once")


def stop_workers() -> None:
    """Ends the processes that read images, at once."""
    children = multiprocessing.active_children()
    for child in children:
        child.kill()
    for child in children:
        child.join()


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Holds Ctrl-C and SIGTERM back for the block, which asks the request when it is ready to stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.take) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
