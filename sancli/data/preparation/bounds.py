"""What a file may cost the process that looks at it: processor time, time by the clock, memory."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

PATIENCE = 20
"""Times its processor time that a file may take by the clock: the machine may be busy, its disk slow."""
OVERTIME = (1, -getattr(signal, "SIGPROF", 1))
"""Exit codes of processes out of time: by the clock, which faulthandler keeps; by the processor's."""
NO_MEMORY = 3
"""The exit code of a process that was refused memory."""


@dataclass(frozen=True)
class Bounds:
    """What one file may cost."""

    memory_bytes: int
    """Beyond what a worker begins with, where the system holds processes to that."""
    seconds: float = 5.0
    """Of processor time; ordinary files take a hundredth of it."""
    seconds_per_mb: float = 1.0
    """More, for each megabyte of the file."""

    def seconds_for(self, path: Path) -> float:
        """Processor time for this file."""
        with suppress(OSError, ValueError):
            return self.seconds + self.seconds_per_mb * path.stat().st_size / 1e6
        return self.seconds


@contextmanager
def limited_time(seconds: float, nowhere: TextIO) -> Iterator[None]:
    """The process dies where the block takes longer, whatever library it hangs in.

    Args:
        seconds: Of processor time, and PATIENCE times as long by the clock.
        nowhere: Takes what faulthandler has to say.
    """
    faulthandler.dump_traceback_later(PATIENCE * seconds, exit=True, file=nowhere)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(more: int) -> None:
    """Lets this process ask for `more` bytes, where the system has such a limit; then they are refused it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + more
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
