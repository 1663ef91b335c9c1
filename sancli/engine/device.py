"""Where the work is done and in which precision: the choice and the reason; and how much memory is free."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sancli.errors import DeviceError, UsageError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device, a precision, and why these."""

    torch_device: torch.device
    precision: str
    """fp32, bf16 or fp16: of the multiplications; weights and sums stay fp32."""
    reason: str

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network runs."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, DTYPES[self.precision])

    def send(self, images: Tensor) -> Tensor:
        """A batch of images on this device, with the channels innermost."""
        return images.to(self.torch_device, non_blocking=True, memory_format=torch.channels_last)

    def place(self, network: nn.Module) -> nn.Module:
        """The network itself, moved to this device with the channels innermost."""
        return network.to(self.torch_device).to(memory_format=torch.channels_last)

    def free_bytes(self) -> int | None:
        """Memory that is free for tensors; None where the system does not say."""
        if self.torch_device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.torch_device)[0])
        return _free_memory() if self.torch_device.type == "cpu" else None

    def describe(self) -> str:
        """For people: cpu, fp32 (there is no GPU here)."""
        return f"{self.torch_device}, {self.precision} ({self.reason})"


def choose(device: str, precision: str) -> Device:
    """The device to work on.

    Args:
        device: auto, cuda, mps or cpu.
        precision: auto, fp32, bf16 or fp16.

    Raises:
        DeviceError: The device that was asked for is not there.
        UsageError: The device cannot work in the precision that was asked for.
    """
    if device == "auto":
        name, reason = _best()
    else:
        name, reason = device, "as asked"
        if not _is_there(device):
            raise DeviceError(
                f"--device {device} is not there.",
                why=_why_not(device),
                fix="leave --device out: the best device that is there is taken.",
            )
    index = int(os.environ.get("LOCAL_RANK", 0))  # one process for each GPU, under torchrun
    chosen = torch.device(name, index) if name == "cuda" else torch.device(name)
    return Device(chosen, _precision(chosen, precision), reason)


def _best() -> tuple[str, str]:
    if _is_there("cuda"):
        return "cuda", torch.cuda.get_device_name(0)
    if _is_there("mps"):
        return "mps", "this Mac's GPU"
    cores = torch.get_num_threads()
    return "cpu", f"no GPU here; {cores} threads" if cores > 1 else "no GPU here; 1 thread"


def _is_there(device: str) -> bool:
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    return available[device]()


def _why_not(device: str) -> str:
    if device == "mps":
        return "torch finds no Apple GPU."
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA."
    return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU or no driver."


def _precision(device: torch.device, precision: str) -> str:
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "--precision fp16 does not work on a CPU.",
            why="it needs the scaled gradients of a GPU.",
            fix="use --precision fp32 or bf16.",
        )
    return precision


def _free_memory() -> int | None:
    """The smaller of what the system has left and what the container may still take."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    with suppress(OSError, ValueError):  # "max": no limit
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(found)) if found else None
