"""The compiled CPU kernels as Python sees them: which ones this process uses, why, and how one is called."""

import ctypes
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # before the kernels are loaded: these then share torch's OpenMP library, found by its soname
from torch import Tensor

from sancli.errors import StorageError, UsageError, check_choice
from sancli.ops.cpu import build

DOUBLE = {torch.float64}
FLOAT = {torch.float32, torch.bfloat16}
PLAIN = "plain PyTorch"


class Kernels:
    """The exported functions of one shared library; kernels/cpu/interface.h says how they look."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._bound: dict[str, Any] = {}

    def call(self, name: str, *args: Tensor | float | None) -> None:
        """Runs a kernel: asks it for the bytes of scratch memory that it needs, and hands them over.

        Args:
            name: With its prefix: san_aggregation.
            args: Tensor or None: its address; bool or int: 64 bits; float: a double. Nothing is checked here.
        """
        function = self._bound.get(name) or self._bind(name, args)
        plain = [arg.data_ptr() if isinstance(arg, Tensor) else arg for arg in args]
        threads = torch.get_num_threads()
        scratch = torch.empty(max(1, function(None, threads, *plain)), dtype=torch.uint8)  # empty: no address
        function(scratch.data_ptr(), threads, *plain)

    def _bind(self, name: str, args: tuple[Tensor | float | None, ...]) -> Any:
        function = getattr(self._library, name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64, *map(_c_type, args)]
        function.restype = ctypes.c_int64
        self._bound[name] = function
        return function


def _c_type(arg: Tensor | float | None) -> type:
    if arg is None or isinstance(arg, Tensor):
        return ctypes.c_void_p
    return ctypes.c_double if isinstance(arg, float) else ctypes.c_int64


@dataclass(frozen=True)
class State:
    """What runs on the CPU, and why."""

    kernels: Kernels | None
    """None: plain PyTorch."""
    what: str
    why: str = ""
    path: Path | None = None
    """Where the library lies; a temporary one is gone."""

    def __str__(self) -> str:
        return f"{self.what} ({self.why})" if self.why else self.what


def kernels(*tensors: Tensor | None) -> Kernels | None:
    """The kernels that can work on these tensors; None where plain PyTorch has to."""
    types = set()
    for tensor in tensors:
        if tensor is not None:
            if not tensor.is_cpu or not tensor.numel():
                return None
            types.add(tensor.dtype)
    if types <= FLOAT:
        return state("float").kernels
    return state("double").kernels if types == DOUBLE else None


def state(real: str = "float") -> State:
    """Loads the kernels for this type, building them where they are not, and says what came of it.

    Raises:
        UsageError: SAN_OPS or SAN_CPU has a value that is not known, or that does not run here.
    """
    chosen = instruction_set()
    return State(None, PLAIN, "SAN_OPS=reference") if chosen is None else _load(chosen, real)


@functools.cache
def instruction_set() -> str | None:
    """The best that this processor has, or the one of SAN_CPU; None where SAN_OPS=reference."""
    wanted = os.environ.get("SAN_OPS") or "auto"
    check_choice("SAN_OPS", wanted, ("auto", "reference"))
    if wanted == "reference":
        return None
    capability = torch.backends.cpu.get_cpu_capability()
    best = {"AVX512": "avx512", "AVX2": "avx2"}.get(capability, "plain")
    forced = os.environ.get("SAN_CPU") or best
    check_choice("SAN_CPU", forced, build.INSTRUCTION_SETS)
    order = list(build.INSTRUCTION_SETS)
    if order.index(forced) < order.index(best):
        raise UsageError(
            f"SAN_CPU={forced} does not run here.",
            why=f"the best that torch finds in this processor is {best}.",
            fix="leave SAN_CPU out: the best is taken.",
        )
    return forced


@functools.cache  # a failure too: it is tried, and said, once
def _load(chosen: str, real: str) -> State:
    try:
        with build.library(chosen, real) as path:
            loaded = Kernels(ctypes.CDLL(str(path)))
            return State(loaded, f"C++ kernels for {build.LABELS[chosen]}", path=path)
    except (build.UnavailableError, StorageError, OSError) as error:
        why = error.what.rstrip(".") if isinstance(error, StorageError) else str(error)
        _say_once(f"No compiled CPU kernels, plain PyTorch runs in their place, slower: {why}.")
        return State(None, PLAIN, why)


@functools.cache
def _say_once(text: str) -> None:
    build.announce(text)
