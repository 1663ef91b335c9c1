"""`san doctor`: what this machine can do, and why; one line for each thing that decides it.

A line is "ok", "missing" (sancli works without it) or "broken" (it does not: the last line, and exit code 5).
torch is imported inside the checks: where it cannot be imported, a doctor is wanted most.
"""

import importlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sancli import __version__
from sancli.console import emit, next_command, plural, result, size, table
from sancli.errors import DeviceError
from sancli.files import free_bytes

if TYPE_CHECKING:
    import torch

LIBRARIES = ("numpy", "PIL", "torchvision", "safetensors", "matplotlib")
ENOUGH_DISK = 1 << 30  # a SAN19 run keeps two checkpoints of weights, their mean and two moments: 0.7 GB
TOLERANCE = 1e-4  # of the largest value: fp32 sums of some hundred products of normal numbers


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    state: str
    """ok, missing or broken."""
    text: str


def run() -> None:
    """Checks one thing after the other and shows what it found.

    Raises:
        DeviceError: Something is broken that sancli needs.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        findings.append(check())
        if findings[-1].state == "broken":  # the others would stumble over it
            break
    last = findings[-1]
    emit(
        {
            "command": "doctor",
            "ok": last.state != "broken",
            "checks": [asdict(finding) for finding in findings],
        }
    )
    result(table(("what", "state", "found"), [(one.name, one.state, one.text) for one in findings]))
    if last.state == "broken":
        raise DeviceError(
            f"{last.name} is broken, and sancli needs it.",
            why=f"{last.text}.",
            fix="install into a fresh environment, torch and torchvision from the same index.",
        )
    next_command("san", "demo")


def python() -> Finding:
    """The interpreter and the system it runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}, {plural(cores, 'core')}"
    return Finding("python", "ok", f"{platform.python_version()} with sancli {__version__} on {system}")


def pytorch() -> Finding:
    """The library that computes."""
    try:
        module = importlib.import_module("torch")
    except Exception as error:  # a broken installation raises nearly anything: that is the finding
        return Finding("torch", "broken", _one_line(error))
    built = f"built for CUDA {module.version.cuda}" if module.version.cuda else "built without CUDA"
    return Finding(
        "torch", "ok", f"{module.__version__}, {built}, {plural(module.get_num_threads(), 'thread')}"
    )


def libraries() -> Finding:
    """The other libraries, each of them imported."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # as above; torchvision beside another torch raises RuntimeError
            return Finding("libraries", "broken", f"{name}: {_one_line(error)}")
    return Finding("libraries", "ok", ", ".join(LIBRARIES))


def gpu() -> Finding:
    """The GPU and its driver."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Finding("gpu", "ok", f"{torch.cuda.get_device_name(0)}, {size(memory)}, driver {_driver()}")
    if torch.backends.mps.is_available():
        return Finding("gpu", "ok", "the one of this Mac (mps)")
    if (driver := _driver()) is None:
        return Finding("gpu", "missing", "no NVIDIA driver found: the CPU does the work")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
    return Finding("gpu", "missing", f"driver {driver} is there, but torch ({built}) cannot use it")


def gpu_kernels() -> Finding:
    """Which operators have CUDA kernels here, and why; CuPy is looked for only beside a GPU."""
    import torch

    from sancli.ops.cuda import loader
    from sancli.ops.registry import implemented

    if not torch.cuda.is_available():
        return Finding("gpu kernels", "missing", "not looked for: there is no CUDA GPU to run them on")
    state = loader.state(torch.device("cuda", 0))
    if not state.usable:
        return Finding("gpu kernels", "missing", f"{state.why}; {state.what} does the work of a GPU")
    names = [name for name in implemented("CUDA") if not name.endswith("_backward")]
    return Finding("gpu kernels", "ok", f"{state}: {', '.join(names)}")


def compiler() -> Finding:
    """The system's C++ compiler."""
    from sancli.ops.cpu import build

    found = build.find_compiler()
    if found is None:
        return Finding("compiler", "missing", "no C++ compiler; plain PyTorch needs none")
    try:
        return Finding("compiler", "ok", f"{found.path}: {found.version()}")
    except build.UnavailableError as error:
        return Finding("compiler", "missing", f"{found.path}: {error}")


def kernels() -> Finding:
    """The compiled CPU kernels, built now where they are not."""
    from sancli.ops.cpu import library

    state = library.state()
    if state.kernels is None:
        return Finding("kernels", "missing", f"{state.why}; {state.what} does the work of a CPU")
    return Finding("kernels", "ok", f"{state.what}, {state.path}")


def operators() -> Finding:
    """Which implementation of the attention runs, and whether it computes what the paper says."""
    from sancli.engine import device
    from sancli.tasks.selfcheck import largest_difference

    chosen = device.choose("auto", "fp32")
    difference = largest_difference(str(chosen.torch_device))
    state = "ok" if difference < TOLERANCE else "broken"
    which = _implementation(chosen.torch_device)
    text = f"{which} on {chosen.torch_device} ({chosen.reason}); forward and backward"
    return Finding("operators", state, f"{text} within {difference:.0e} of their definition in float64")


def disk() -> Finding:
    """Room for runs in this folder."""
    free = free_bytes(Path.cwd())
    if not os.access(Path.cwd(), os.W_OK):
        return Finding("disk", "missing", f"{Path.cwd()} cannot be written: work in another folder")
    if free < ENOUGH_DISK:
        return Finding("disk", "missing", f"{size(free)} free here; a run can need {size(ENOUGH_DISK)}")
    return Finding("disk", "ok", f"{size(free)} free here")


def downloads() -> Finding:
    """Which published weights are in the cache."""
    from sancli import weights
    from sancli.model import zoo

    here = [name for name in zoo.PUBLISHED if weights.is_downloaded(name)]
    place = weights.cached("NAME").parent
    if not here:
        return Finding("weights", "missing", f"none in {place}: training starts from scratch")
    return Finding("weights", "ok", f"{', '.join(here)} in {place}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    python,
    pytorch,
    libraries,
    gpu,
    gpu_kernels,
    compiler,
    kernels,
    operators,
    disk,
    downloads,
)


def _implementation(device: "torch.device") -> str:
    from sancli.ops.cpu import library
    from sancli.ops.cuda import loader

    if device.type == "cuda":
        return loader.state(device).what
    return library.state().what if device.type == "cpu" else library.PLAIN


def _driver() -> str | None:
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    return _output(program, "--query-gpu=driver_version", "--format=csv,noheader")


def _output(*command: str) -> str | None:
    """The first line that a program prints; None where it fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.strip().splitlines()), None)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
