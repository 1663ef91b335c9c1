"""Whether the CUDA kernels can run on a card, and if not why: asked once, before the first of them."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from sancli.errors import check_choice

PLAIN = "plain PyTorch"
OLDEST_CARD = 7, 5
"""NVRTC 13 compiles for nothing older."""
KEEPS_TEMPLATES = 14, 2
"""The first CuPy whose disk cache takes templates; before it they are compiled at each start."""


@dataclass(frozen=True)
class State:
    """What runs on a card, and why."""

    usable: bool
    """False: plain PyTorch."""
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.why})" if self.why else self.what


def plain_wanted() -> bool:
    """Whether SAN_OPS=reference asks for plain PyTorch.

    Raises:
        UsageError: It has a value that is not known.
    """
    wanted = os.environ.get("SAN_OPS") or "auto"
    check_choice("SAN_OPS", wanted, ("auto", "reference"))
    return wanted == "reference"


def wrong_card(index: int) -> str | None:
    """Why this card or this torch cannot have the kernels; None where they can."""
    if torch.version.cuda is None:
        return "torch is not built for CUDA"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST_CARD:
        name = f"{torch.cuda.get_device_name(index)} (compute capability {dotted(capability)})"
        return f"{name} is older than what NVRTC compiles for, {dotted(OLDEST_CARD)}"
    return None


def wrong_cupy(cupy: Any) -> str | None:
    """Why this CuPy cannot compile the kernels; None where it can."""
    built = cupy.cuda.runtime.runtimeGetVersion() // 1000
    if built != int(str(torch.version.cuda).partition(".")[0]):
        found = f"CuPy is built for CUDA {built}, torch for CUDA {torch.version.cuda}"
        return f"{found}: pip uninstall cupy-cuda{built}x, then {install()}"
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # ImportError, RuntimeError, OSError: as the system has it
        return f"CuPy finds no NVRTC ({one_line(error)}): {install()}"
    return None


def compiler(cupy: Any) -> str:
    """What compiles the kernels, with its versions."""
    return f"NVRTC {dotted(cupy.cuda.nvrtc.getVersion())} of CuPy {cupy.__version__}"


def keeps_templates(cupy: Any) -> bool:
    """Whether what it compiles is there at the next start."""
    major, minor = (int(part) for part in cupy.__version__.split(".")[:2])
    return (major, minor) >= KEEPS_TEMPLATES


def install() -> str:
    """The command that brings a CuPy for this torch."""
    return f"pip install 'sancli[cuda{str(torch.version.cuda).partition('.')[0]}]'"


def dotted(version: tuple[int, ...]) -> str:
    """(8, 0) as 8.0."""
    return ".".join(map(str, version))


def one_line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[0] if lines else type(error).__name__
