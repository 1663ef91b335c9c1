"""CUDA kernels as Python sees them: compiled by CuPy at first use, run on torch's stream."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "__half",
    torch.bfloat16: "__nv_bfloat16",
}
OFFSETS = 2**31
"""Offsets inside one image are 32 bits wide and signed."""


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
    """
    raise NotImplementedError


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels can work on these tensors; where not, plain PyTorch has to."""
    return False


def fits(*tensors: Tensor | None) -> bool:
    """What kernels ask of tensors, whatever the device: a known type, something in them, 32-bit offsets."""
    return all(
        tensor is None or (tensor.numel() and tensor.dtype in CTYPES and reach(tensor) <= OFFSETS)
        for tensor in tensors
    )


def reach(tensor: Tensor) -> int:
    """The elements from the first to the last of one image, or of a tensor of less than four axes."""
    inside = range(int(tensor.dim() >= 4), tensor.dim())
    return 1 + sum((tensor.shape[axis] - 1) * tensor.stride(axis) for axis in inside)


def ctype(dtype: torch.dtype) -> str:
    """How CUDA calls the type."""
    return CTYPES[dtype]


def shared_limit(device: torch.device) -> int:
    """Bytes of shared memory that a block may have."""
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def capability(device: torch.device) -> tuple[int, int]:
    """Of the card: (8, 0) for an A100."""
    return torch.cuda.get_device_capability(device)


def sources() -> Path:
    """The folder of the CUDA sources: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


def text(source: str) -> str:
    """A source with its headers put in: CuPy's disk cache does not notice an edited header."""
    seen: set[str] = set()

    def inlined(name: str) -> str:
        lines = (sources() / name).read_text(encoding="utf-8").splitlines()
        return "\n".join(included(line) for line in lines if line.strip() != "#pragma once")

    def included(line: str) -> str:
        found = re.match(r'\s*#include "(\w+\.cuh)"', line)
        if not found:
            return line
        if found[1] in seen:
            return ""
        seen.add(found[1])
        return inlined(found[1])

    return inlined(source)
