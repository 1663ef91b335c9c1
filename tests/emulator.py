"""Runs the CUDA kernels, unmodified, on the CPU: cuda_cpu/ says what it checks beside their results.

The fixture `emulated` puts it in the place of CuPy: operators of sancli/ops/cuda then work on CPU tensors,
from launch geometry to result. A kernel's instantiation is compiled at its first launch, or ahead of it in a
`rehearsal`, and kept in a folder for temporary files under a hash of all that decides its bytes.
"""

import ctypes
import functools
import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from sancli.ops import registry
from sancli.ops.cuda import loader

HEADERS = Path(__file__).parent / "cuda_cpu"
COMPILER = shutil.which("g++")
FLAGS = (
    *("-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-ffp-contract=off", "-fno-strict-aliasing", "-Wno-unknown-pragmas", "-Wno-attributes"),
)
FOR_THE_CPU = "-DSAN_CPU=1"
SHARED_LIMIT = 64 << 10  # of a T4: the smallest
CODES = {  # as entry.h calls them
    torch.float32: b"F",
    torch.float64: b"D",
    torch.float16: b"H",
    torch.bfloat16: b"B",
    torch.int32: b"I",
    torch.int64: b"L",
    np.int32: b"i",
    np.int64: b"l",
    np.float32: b"f",
    np.float64: b"d",
}


class KernelError(Exception):
    """What the emulator found wrong with a kernel or its launch."""


class CompileError(Exception):
    """A kernel does not compile: no seeded bug counts as found by that."""


class Dim3(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]


class Buffer(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Argument(ctypes.Structure):
    _fields_ = [("type", ctypes.c_char), ("buffer", ctypes.c_int), ("value", ctypes.c_uint64)]


class Launch(ctypes.Structure):
    _fields_ = [
        *(("grid", Dim3), ("block", Dim3), ("shared", ctypes.c_size_t)),
        *(("buffers", ctypes.c_int), ("arguments", ctypes.c_int)),
        *(("buffer", ctypes.POINTER(Buffer)), ("argument", ctypes.POINTER(Argument))),
    ]


@functools.cache
def folder():
    """Where compiled kernels are kept."""
    path = Path(tempfile.gettempdir()) / f"san-emulator-{getpass.getuser()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@functools.cache
def fixed_part():
    """Of the hash: compiler, flags and headers."""
    version = subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout
    headers = b"".join(path.read_bytes() for path in sorted(HEADERS.iterdir()))
    return hashlib.sha256(version + repr(FLAGS).encode() + headers)


@functools.cache
def headers():
    """The folder of cuda_cpu/ with the header of all kernels compiled ahead: a third of a kernel's time."""
    path = folder() / f"headers-{fixed_part().hexdigest()[:24]}"
    if not path.exists():
        partial = Path(tempfile.mkdtemp(dir=folder()))
        for header in HEADERS.glob("*.h"):
            shutil.copy(header, partial)
        source, made = partial / "cuda_cpu.h", partial / "cuda_cpu.h.gch"
        command = [COMPILER, *FLAGS, FOR_THE_CPU, "-x", "c++-header", str(source), "-o", str(made)]
        subprocess.run(command, capture_output=True, check=True)
        try:
            partial.rename(path)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return path


def compiled(text, name, *more):
    """The shared library of a source text."""
    hashed = fixed_part().copy()
    hashed.update(repr(more).encode() + text.encode())
    path = folder() / f"{name}-{hashed.hexdigest()[:24]}.so"
    if not path.exists():
        partial = path.with_name(f"{path.stem}.{os.getpid()}.{threading.get_ident()}.so")
        command = [COMPILER, *FLAGS, *more, f"-I{headers()}", "-x", "c++", "-", "-o", str(partial)]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"{name}:\n{done.stderr[:3000]}")
        partial.replace(path)
    return ctypes.CDLL(str(path))


@functools.cache
def runtime():
    """What runs blocks and threads, and the machine that it does so on."""
    library = compiled((HEADERS / "runtime.cpp").read_text(), "runtime", "-fvisibility=default")
    library.san_machine.restype = ctypes.c_void_p
    library.san_launch.restype = ctypes.c_char_p
    library.san_launch.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(Launch)]
    return library, ctypes.c_void_p(library.san_machine())


def build(text, kernel):
    """The library of one instantiation: its entry, and the types of its arguments."""
    name = kernel.partition("<")[0]
    library = compiled(f"{text}\nSAN_KERNEL({kernel})\n", name, FOR_THE_CPU)
    library.san_codes.restype = ctypes.c_char_p
    library.san_attach(runtime()[1])
    return ctypes.cast(library.san_enter, ctypes.c_void_p), library.san_codes()


@functools.cache
def text_of(source):
    """Read once: each launch asks for it."""
    return loader.text(source)


class Emulator:
    """Stands in for sancli.ops.cuda.loader."""

    def __init__(self):
        self.sources = {}  # texts that stand in for those of kernels/
        self.libraries: dict[tuple[str, str], Future] = {}
        self.compilers = ThreadPoolExecutor(os.cpu_count())
        runtime()  # before the threads of the compilers want it
        self.lock = threading.Lock()  # one machine for all: backward passes have threads of their own
        self.launches = []
        self.rehearsing = False

    def library(self, source, kernel):
        """The instantiation's, compiled in the background where it is not."""
        text = self.sources.get(source) or text_of(source)
        key = text, kernel
        if key not in self.libraries:
            self.libraries[key] = self.compilers.submit(build, text, kernel)
        return self.libraries[key]

    @contextmanager
    def rehearsal(self):
        """Within it, launches only start to compile: put before the first test, it fills all cores."""
        self.rehearsing = True
        try:
            yield
        finally:
            self.rehearsing = False

    def launch(self, source, kernel, grid, block, *args, shared=0):
        """loader.launch, under three schedules.

        Raises:
            KernelError: The kernel or its launch is wrong.
        """
        if shared > SHARED_LIMIT:
            raise KernelError(f"{kernel}: {shared} bytes of shared memory")
        grid, block = ((*map(int, size), 1, 1)[:3] for size in (grid, block))
        if not 1 <= np.prod(block) <= 1024 or min(grid) < 1 or max(grid[1:]) > 65535 or grid[0] >= 2**31:
            raise KernelError(f"{kernel}: no such grid or block: {grid}, {block}")
        library = self.library(source, kernel)
        if self.rehearsing:
            return
        entry, codes = library.result()
        arguments, buffers = described(args, kernel)
        with self.lock:
            self.launches.append((kernel, grid, block, shared))
            sizes = Dim3(*grid), Dim3(*block), shared, len(buffers), len(arguments)
            failure = runtime()[0].san_launch(entry, codes, Launch(*sizes, buffers, arguments))
        if failure:
            raise KernelError(f"{kernel}: {failure.decode()}")

    def usable(self, *tensors):
        """loader.usable, for CPU tensors."""
        return loader.fits(*tensors)

    def shared_limit(self, device):
        """loader.shared_limit."""
        return SHARED_LIMIT

    def capability(self, device):
        """loader.capability."""
        return 9, 0

    @contextmanager
    def mutated(self, source, old, new):
        """Within it, kernels of `source` and its headers have `new` in the place of `old`: a seeded bug."""
        text = self.sources.get(source) or text_of(source)
        assert old in text, f"{source} has no such text: {old}"
        before, self.sources = self.sources, {**self.sources, source: text.replace(old, new)}
        try:
            yield
        finally:
            self.sources = before


def described(args, kernel):
    """Arguments and buffers of a launch: a tensor is an offset into the buffer that is its storage."""
    storages, arguments = {}, []
    for arg in args:
        if arg is None:
            arguments.append(Argument(b"0", -1, 0))
        elif isinstance(arg, torch.Tensor):
            storage = arg.untyped_storage()
            start = storage.data_ptr()
            index, _ = storages.setdefault(start, (len(storages), storage.nbytes()))
            arguments.append(Argument(CODES.get(arg.dtype, b"?"), index, arg.data_ptr() - start))
        elif type(arg) in CODES:
            bits = int.from_bytes(arg.tobytes(), "little")
            arguments.append(Argument(CODES[type(arg)], -1, bits))
        else:
            raise KernelError(f"{kernel}: an argument of type {type(arg).__name__}")
    buffers = [Buffer(start, size) for start, (_, size) in storages.items()]
    return (Argument * len(arguments))(*arguments), (Buffer * len(buffers))(*buffers)


@functools.cache
def the_emulator():
    """One for the whole session: libraries are loaded once."""
    return Emulator()


@pytest.fixture
def emulated(monkeypatch):
    """The emulator, in the place of the loader; empty tensors are full of NaN."""
    if COMPILER is None:
        pytest.skip("no g++")
    emulator = the_emulator()
    for name in ("launch", "usable", "shared_limit", "capability"):
        monkeypatch.setattr(loader, name, getattr(emulator, name))
    emulator.launches.clear()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # makes torch fill what is empty
    yield emulator
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def emulated_operators(emulated):
    """torch.ops.san.* themselves run in the emulator, on CPU tensors: below autograd and whole networks."""
    library = torch.library.Library("san", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was another one
        for name, function in registry.implemented("CUDA").items():
            library.impl(name, registry.by_itself(function), "CPU", allow_override=True)
    yield emulated
    library._destroy()
