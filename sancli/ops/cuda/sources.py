"""The CUDA sources, and what they ask of the tensors that they are given."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

CTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.float16: "__half",
    torch.bfloat16: "__nv_bfloat16",
}
OFFSETS = 2**31
"""Offsets inside one image are 32 bits wide and signed; where an image begins has 64."""


def folder() -> Path:
    """Where the sources are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[2]
    inside = package / "kernels"
    return inside if inside.is_dir() else package.parent / "kernels"


def text(source: str) -> str:
    """A source with its headers put in: CuPy's disk cache does not notice an edited header."""
    seen: set[str] = set()

    def inlined(name: str) -> str:
        lines = (folder() / name).read_text(encoding="utf-8").splitlines()
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


def fits(*tensors: Tensor | None) -> bool:
    """What kernels ask of tensors, whatever the device: a known type, something in them, 32-bit offsets."""
    return all(
        tensor is None or (tensor.numel() and tensor.dtype in CTYPES and reach(tensor) <= OFFSETS)
        for tensor in tensors
    )


def reach(tensor: Tensor) -> int:
    """The elements from the first to the last of one image, or of a tensor of less than four axes.

    Of one whose strides are 0, those of the copy that the kernels are given.
    """
    inside = range(int(tensor.dim() >= 4), tensor.dim())
    span = 1 + sum((tensor.shape[axis] - 1) * tensor.stride(axis) for axis in inside)
    return max(span, math.prod(tensor.shape[axis] for axis in inside))


def ctype(dtype: torch.dtype) -> str:
    """How CUDA calls the type."""
    return CTYPES[dtype]
