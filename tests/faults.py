"""Stands for decoders with bugs, in a worker; it imports little, as every worker imports it."""

import os
import re
import signal
import time
from contextlib import suppress

from sancli.data.preparation.inspection import Scan, scan_file


def faulty(path, max_pixels):
    """As scan_file; what goes wrong is the name of the file."""
    if path.stem in FAULTS:
        return FAULTS[path.stem](path)
    return scan_file(path, max_pixels)


def crash(_):
    os.kill(os.getpid(), signal.SIGKILL)


def once(path):
    """As where another program has taken the memory, and has ended the next time."""
    with suppress(FileExistsError):
        path.with_suffix(".seen").touch(exist_ok=False)
        crash(path)
    return scan_file(path, 10**6)


def hang(_):
    """In C, as a decoder does: no other thread of Python gets a turn."""
    return re.match(r"(a+)+$", "a" * 60 + "b")


def take_memory(_):
    kept = [bytearray(2**24) for _ in range(200)]
    return Scan(reason=f"{len(kept)} taken")


def bug(_):
    raise KeyError("a bug")


FAULTS = {
    "crash": crash,
    "once": once,
    "hang": hang,
    "sleep": lambda _: time.sleep(1000),
    "memory": take_memory,
    "bug": bug,
}
