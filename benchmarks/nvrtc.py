"""CUDA C++ to machine code and what that takes of a card, without a driver and without a GPU.

NVRTC, which torch brings on Linux, compiles; cuobjdump and nvdisasm, which Triton brings, read what came out.
What was compiled once is kept: source, kernels, architecture and compiler make its name.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sancli.files import cache_folder, write_text

Figures = dict[str, Any]
FORMAT = "1"
"""Of what is kept: it changes with what is read out of a cubin."""
TOGETHER = 12
"""Kernels in one program: nvdisasm takes 0.6 s to start, and all that wait for one program wait long."""
ADDED = ("-ftz=true", "-default-device")
"""What CuPy adds to the options of the loader."""
USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.MULTILINE)
SECTION = re.compile(r"^//-+ \.text\.(\S+) -+$", re.MULTILINE)


class UnavailableError(Exception):
    """What this machine lacks to compile, and where it comes from."""


class CompileError(Exception):
    """What NVRTC says of a source."""


@dataclass(frozen=True)
class Program:
    """Kernels that are compiled together."""

    name: str
    """Of the file that the text is from."""
    text: str
    """With its headers in it."""
    kernels: tuple[str, ...]
    """As name expressions: aggregation_forward<float, 7>."""
    arch: str
    options: tuple[str, ...] = ()
    mix: bool = True
    """Whether the shares of instructions are wanted: nvdisasm finds them, in as long as NVRTC takes."""

    def key(self) -> str:
        """Changes with everything that decides the result."""
        read = FORMAT if self.mix else f"{FORMAT} usage"
        parts = (self.text, *self.kernels, self.arch, *self.options, version(), read)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def programs(of: Program) -> list[Program]:
    """The kernels of one source, a dozen in a program."""
    names = sorted(of.kernels)
    groups = (tuple(names[i : i + TOGETHER]) for i in range(0, len(names), TOGETHER))
    return [replace(of, kernels=group) for group in groups]


def compile_all(jobs: Iterable[Program]) -> list[Figures]:
    """Figures of every kernel, one process a core; a kernel that does not compile has an `error` instead."""
    jobs = list(jobs)
    waiting = [job for job in jobs if not kept(job).is_file()]
    if waiting:
        tools(), headers()  # what is missing is said here, once
    found = dict(zip(waiting, in_processes(figures, waiting), strict=True))
    return [figure for job in jobs for figure in (found[job] if job in found else figures(job))]


def in_processes(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """function(item) for each, by as many processes as there are cores."""
    workers = min(len(items), os.cpu_count() or 1)
    if workers <= 1:
        return [function(item) for item in items]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, items))


def figures(job: Program) -> list[Figures]:
    """Of each kernel: kernel, arch, registers, stack, shared; if wanted, instructions {name: share}."""
    path = kept(job)
    if not path.is_file():
        try:
            found = examined(job)
        except CompileError as error:
            return failures(job, str(error))
        write_text(path, json.dumps(found))
    found = json.loads(path.read_text(encoding="utf-8"))
    about = {"arch": job.arch, "source": job.name}
    return [{"kernel": kernel} | about | found[kernel] for kernel in job.kernels]


def failures(job: Program, error: str) -> list[Figures]:
    """One kernel spoils the program of all: each is tried alone."""
    if len(job.kernels) == 1:
        return [{"kernel": job.kernels[0], "arch": job.arch, "source": job.name, "error": error}]
    return [figure for kernel in job.kernels for figure in figures(replace(job, kernels=(kernel,)))]


def kept(job: Program) -> Path:
    """Where the figures of a program are."""
    return cache_folder("cubins") / f"{job.key()}.json"


def examined(job: Program) -> dict[str, Figures]:
    """The figures by kernel, from the machine code."""
    cubin, lowered = compiled(job)
    with tempfile.TemporaryDirectory(prefix="san-cubin-") as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin)
        usage = {name: numbers for name, *numbers in USAGE.findall(run("cuobjdump", "-res-usage", path))}
        code = run("nvdisasm", "-c", path) if job.mix else ""
    names, bodies = SECTION.findall(code), SECTION.split(code)[2::2]
    mixes = {name: shares(body) for name, body in zip(names, bodies, strict=True)}
    found = {}
    for kernel, symbol in lowered.items():
        registers, stack, shared = map(int, usage[symbol])
        found[kernel] = {"registers": registers, "stack": stack, "shared": shared} | mixes.get(symbol, {})
    return found


def shares(body: str) -> Figures:
    """How many instructions there are, and the share of each; padding is none."""
    counts = Counter(name for name in INSTRUCTION.findall(body) if name != "NOP")
    return {
        "length": counts.total(),
        "instructions": {name: round(n / counts.total(), 4) for name, n in counts.most_common()},
    }


def compiled(job: Program) -> tuple[bytes, dict[str, str]]:
    """The cubin, and the symbol of each kernel in it.

    Raises:
        CompileError: With the compiler's own log.
    """
    nvrtc = module()
    program = checked(nvrtc.nvrtcCreateProgram(job.text.encode(), job.name.encode(), 0, [], []))
    try:
        for kernel in job.kernels:
            checked(nvrtc.nvrtcAddNameExpression(program, kernel.encode()))
        options = [f"-arch={job.arch}", f"-I{headers()}", *job.options]
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(options), [x.encode() for x in options])
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
            checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise CompileError(log.rstrip(b"\0").decode(errors="replace"))
        cubin = b" " * checked(nvrtc.nvrtcGetCUBINSize(program))
        checked(nvrtc.nvrtcGetCUBIN(program, cubin))
        symbols = (checked(nvrtc.nvrtcGetLoweredName(program, kernel.encode())) for kernel in job.kernels)
        return cubin, {kernel: name.decode() for kernel, name in zip(job.kernels, symbols, strict=True)}
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def checked(result: tuple[Any, ...]) -> Any:
    """What a call of NVRTC gives beside its status."""
    status, *given = result
    if status.value:
        raise CompileError(f"NVRTC: {status.name}")
    return given[0] if given else None


@functools.cache
def module() -> Any:
    """cuda.bindings.nvrtc.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise UnavailableError(f"no NVRTC ({error}): torch brings cuda-bindings on Linux") from None
    return nvrtc


@functools.cache
def version() -> str:
    """Of NVRTC: of its package, as NVRTC itself does not say which of 13.0's releases it is."""
    for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ".".join(map(str, module().nvrtcVersion()[1:]))


@functools.cache
def headers() -> Path:
    """The folder that holds cuda_fp16.h.

    Raises:
        UnavailableError: No package and no toolkit brings it.
    """
    from cuda import pathfinder

    found = pathfinder.find_nvidia_header_directory("cudart")
    if found is None or not (Path(found) / "cuda_fp16.h").is_file():
        raise UnavailableError("no CUDA headers: torch brings nvidia-cuda-runtime on Linux")
    return Path(found)


@functools.cache
def tools() -> Path:
    """The folder of cuobjdump and nvdisasm.

    Raises:
        UnavailableError: Triton is not installed.
    """
    spec = importlib.util.find_spec("triton")  # found, not imported: that takes a second
    folder = Path(spec.origin).parent / "backends/nvidia/bin" if spec and spec.origin else None
    if folder is None or not all((folder / tool).is_file() for tool in ("cuobjdump", "nvdisasm")):
        raise UnavailableError("no cuobjdump and nvdisasm: torch brings triton on Linux")
    return folder


def run(tool: str, *args: str | Path) -> str:
    """What a tool prints."""
    command = [tools() / tool, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
