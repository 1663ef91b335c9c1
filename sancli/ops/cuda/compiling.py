"""One kernel, compiled: by one process at a time, once for all of them, with a line that says so."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from sancli.ops.cpu import build
from sancli.ops.cuda import cache, diagnosis
from sancli.ops.cuda.sources import text
from sancli.ops.registry import UnavailableError

OPTIONS = ("-std=c++17",)
"""CuPy adds the architecture, -ftz=true, and that constexpr functions are the device's too."""


def _nothing_to_show(_: str) -> AbstractContextManager[Any]:
    return nullcontext()


busy: Callable[[str], AbstractContextManager[Any]] = _nothing_to_show
"""Shows that something goes on for a second; whoever has a way to puts it here. Lines: build.announce."""


def compiled(cupy: Any, source: str, kernel: str, device: torch.device) -> Any:
    """The handle of a kernel, on torch's current device, which is `device`.

    Raises:
        UnavailableError: It does not compile.
        RuntimeError: A CUDA graph is being captured.
    """
    if torch.cuda.is_current_stream_capturing():
        reason = f"{kernel} would have to be compiled while a CUDA graph is captured"
        raise RuntimeError(f"{reason}: run the same work once before the capture")
    code, by = text(source), diagnosis.compiler(cupy)
    card, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    mark = cache.mark(code, kernel, by, str(capability))
    known = mark is not None and mark.exists() and diagnosis.keeps_templates(cupy)
    if not known:
        say_once(f"Compiling the CUDA kernels for {card} with {by}, {_how_often(cupy)}; about a second each.")
    try:
        with cache.held(), nullcontext() if known else busy(f"Compiling {kernel.partition('<')[0]}"):
            function = _made(cupy, code, kernel)
    except (cupy.cuda.compiler.CompileException, cupy.cuda.driver.CUDADriverError) as error:
        why = f"{source} does not compile with {by} ({kernel}: {diagnosis.one_line(error)})"
        say_once(f"No CUDA kernels, plain PyTorch runs in their place, slower: {why}.")
        raise UnavailableError(why) from error
    cache.remember(mark)
    return function


def _made(cupy: Any, code: str, kernel: str) -> Any:
    def made() -> Any:
        module = cupy.RawModule(code=code, options=OPTIONS, name_expressions=(kernel,))
        return module.get_function(kernel)

    try:
        return made()
    except OSError:  # a disk that is full by now: CuPy keeps it before it gives it
        cache.keep_nothing()
        return made()


def _how_often(cupy: Any) -> str:
    if why := cache.prepare():
        return f"for this run alone, because {why}"
    if not diagnosis.keeps_templates(cupy):
        return f"at each start, because CuPy {cupy.__version__} does not keep them"
    return "once"


@functools.cache
def say_once(line: str) -> None:
    """Shows it, the first time."""
    build.announce(line)
