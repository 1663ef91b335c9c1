"""A GPU to measure on, or a CPU in its place to try the programs: times, caches, stand-ins for kernels."""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from routes import cuda
from subjects import ROOT

from sancli.ops.cuda import loader

FLUSHED = 2**28
"""Bytes that are written between two calls: more than any second-level cache holds."""
ENOUGH_S = 1.0
"""Seconds of calls after which the median is known well enough."""


def synchronize(device: str) -> None:
    """Waits until a GPU has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(function: Callable[[], Any], device: str, *, times: int = 20, warm: int = 3) -> float:
    """The median of some calls, each with nothing of the one before in the cache."""
    began = time.perf_counter()
    for _ in range(warm if device == "cuda" else 0):
        function()
        synchronize(device)
        if time.perf_counter() - began > ENOUGH_S:
            break
    rubbish = torch.empty(FLUSHED if device == "cuda" else 1, dtype=torch.int8, device=device)
    found: list[float] = []
    while len(found) < times and sum(found) < 1e3 * ENOUGH_S:
        rubbish.zero_()
        found.append(once(function, device))
    return statistics.median(found)


def once(function: Callable[[], Any], device: str) -> float:
    """Milliseconds of one call, on the GPU's own clock."""
    if device != "cuda":
        began = time.perf_counter()
        function()
        return (time.perf_counter() - began) * 1e3
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    function()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after))


def or_none(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function gives; None where it needs more memory than there is."""
    try:
        return function(*args, **kwargs)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


@contextlib.contextmanager
def kernels(device: str) -> Iterator[None]:
    """Within it the operators launch CUDA kernels: on a CPU through the emulator of the tests."""
    if device == "cuda":
        yield
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from emulator import the_emulator

    emulator = the_emulator()
    names = ("launch", "usable", "shared_limit", "capability")
    with patch.multiple(loader, **{name: getattr(emulator, name) for name in names}), cuda():
        yield


@contextlib.contextmanager
def naive() -> Iterator[None]:
    """Within it the naive kernels run: on a card whose blocks have no memory, no tile fits."""
    with patch.object(loader, "shared_limit", lambda device: 0):
        yield
