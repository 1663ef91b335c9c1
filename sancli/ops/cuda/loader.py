"""CUDA kernels as Python sees them: compiled by CuPy at first use, run on torch's stream.

The only file that knows CuPy. Memory, streams and the current device are torch's.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sancli.ops.cuda import cache, compiling, diagnosis
from sancli.ops.cuda.diagnosis import PLAIN, State
from sancli.ops.cuda.sources import CTYPES, ctype, fits, reach, text
from sancli.ops.cuda.sources import folder as sources
from sancli.ops.registry import UnavailableError

__all__ = ["CTYPES", "State", "capability", "ctype", "fits", "launch", "reach", "shared_limit", "sources"]
__all__ += ["state", "text", "usable"]

SHARED_BY_DEFAULT = 48 << 10
"""Bytes of shared memory that a kernel may have without asking."""
OLDEST_WITH_BFLOAT16 = 8, 0


_states: dict[int, State] = {}
_functions: dict[tuple[int, str, str], Any] = {}
_shared: dict[tuple[int, str, str], int] = {}


def launch(
    source: str,
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    *args: Tensor | np.generic | None,
    shared: int = 0,
) -> None:
    """Runs a kernel on torch's current stream, on the device of the first tensor.

    Args:
        source: Its file in kernels/: "aggregation.cu".
        kernel: The instantiation: "aggregation_forward<float, 7>".
        grid: Blocks, along up to three axes.
        block: Threads of a block, likewise.
        args: Tensor: its address; None: a null pointer; np.int32, np.int64, np.float32, np.float64: as it is.
            A bare Python number would arrive 64 bits wide, whatever the kernel expects.
        shared: Bytes of shared memory a block.

    Raises:
        UnavailableError: It does not compile, or wants more shared memory than there is.
        RuntimeError: It would have to be compiled while a CUDA graph is captured.
    """
    device = next(arg.device for arg in args if isinstance(arg, Tensor))
    with torch.cuda.device(device):  # never cupy.cuda.Device: it moves torch's current device
        function = _function(source, kernel, device, shared)
        stream = torch.cuda.current_stream(device).cuda_stream  # asked for at each launch: it changes
        function(
            tuple(map(int, grid)),
            tuple(map(int, block)),
            tuple(map(_argument, args)),
            shared_mem=shared,
            stream=_cupy().cuda.ExternalStream(stream, device.index),
        )


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels can work on these tensors; where not, plain PyTorch has to.

    They cannot where there are no kernels, and not on tensors of several devices, without an element, of a
    type that the card lacks, or with an image beyond 32-bit offsets.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    device = given[0].device
    if device.type != "cuda" or any(tensor.device != device for tensor in given) or not fits(*given):
        return False
    if not state(device).usable:
        return False
    halves = any(tensor.dtype == torch.bfloat16 for tensor in given)
    return not halves or capability(device) >= OLDEST_WITH_BFLOAT16


def capability(device: torch.device) -> tuple[int, int]:
    """Of the card: (8, 0) for an A100."""
    return torch.cuda.get_device_capability(device)


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block may have, where it asks."""
    return _shared_limit(device.index)


@functools.cache
def _shared_limit(index: int) -> int:
    runtime = _cupy().cuda.runtime
    return int(runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, index))


def state(device: torch.device) -> State:
    """What runs on this device, and why; said once where it is not the kernels.

    Raises:
        UsageError: SAN_OPS has a value that is not known.
    """
    found = _states.get(device.index)
    if found is None:
        found = _states[device.index] = _diagnosed(device.index)
        if not found.usable and not diagnosis.plain_wanted():
            compiling.say_once(f"No CUDA kernels, plain PyTorch runs in their place, slower: {found.why}.")
    return found


def _diagnosed(index: int) -> State:
    if diagnosis.plain_wanted():
        return State(False, PLAIN, "SAN_OPS=reference")
    if why := diagnosis.wrong_card(index):
        return State(False, PLAIN, why)
    try:
        cupy = _cupy()
    except ModuleNotFoundError as error:
        missing = "CuPy is not installed" if error.name == "cupy" else f"CuPy lacks {error.name}"
        return State(False, PLAIN, f"{missing}: {diagnosis.install()}")
    except Exception as error:  # a broken installation raises nearly anything
        return State(False, PLAIN, f"CuPy cannot be imported ({diagnosis.one_line(error)})")
    if why := diagnosis.wrong_cupy(cupy):
        return State(False, PLAIN, why)
    return State(True, "CUDA kernels", diagnosis.compiler(cupy))


@functools.cache
def _cupy() -> Any:
    cache.prepare()
    import cupy

    return cupy


def _argument(arg: Tensor | np.generic | None) -> Any:
    if arg is None:
        return 0  # CuPy would take None for the argument's own address
    return arg.data_ptr() if isinstance(arg, Tensor) else arg


def _function(source: str, kernel: str, device: torch.device, shared: int) -> Any:
    """The kernel's handle: one for each device, with its shared memory asked for."""
    key = device.index, source, kernel
    function = _functions.get(key)
    if function is None:
        try:
            function = _functions[key] = compiling.compiled(_cupy(), source, kernel, device)
        except UnavailableError as error:
            _states[device.index] = State(False, PLAIN, str(error))  # nobody tries again
            raise
    if shared > _shared.get(key, SHARED_BY_DEFAULT):
        if shared > shared_limit(device):
            wants = f"{kernel} wants {shared} bytes of shared memory, and the card has {shared_limit(device)}"
            compiling.say_once(f"Plain PyTorch runs in the place of a CUDA kernel, slower: {wants}.")
            raise UnavailableError(wants)
        function.max_dynamic_shared_size_bytes = _shared[key] = shared
    return function
