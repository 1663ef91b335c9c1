"""How CUDA kernels are found, compiled and launched, with a CuPy and a card that write down what they get."""

import importlib
import os
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import torch

from sancli import ops
from sancli.ops.cpu import build
from sancli.ops.cuda import cache, compiling, loader, sources
from sancli.ops.registry import UnavailableError

KERNEL = "aggregation_forward_naive<float>"
DEVICE = torch.device("cuda", 1)


class CompileException(Exception):  # noqa: N818 -- CuPy's name
    pass


class CUDADriverError(Exception):
    pass


class Function:
    def __init__(self):
        self.calls, self.asked = [], []

    def __call__(self, grid, block, args, **more):
        self.calls.append((grid, block, args, more))

    @property
    def max_dynamic_shared_size_bytes(self):
        return self.asked[-1]

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self.asked.append(size)


class Cupy(SimpleNamespace):
    """What the loader uses of CuPy 14; test_the_real_cupy_has_all_of_it says whether it is all there."""

    def __init__(self):
        super().__init__(__version__="14.2.0", function=Function(), modules=[], failures=[])
        runtime = SimpleNamespace(
            runtimeGetVersion=lambda: 13020,
            cudaDevAttrMaxSharedMemoryPerBlockOptin=97,
            deviceGetAttribute=lambda attribute, index: {97: 99 << 10}[attribute],
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            ExternalStream=lambda pointer, index: ("stream", pointer, index),
            compiler=SimpleNamespace(CompileException=CompileException),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        )

    def RawModule(self, **given):  # noqa: N802 -- CuPy's name
        self.modules.append(given)

        def get_function(name):
            assert given["name_expressions"] == (name,)
            if self.failures:
                raise self.failures.pop(0)
            return self.function

        return SimpleNamespace(get_function=get_function)


class OnGpu:
    """A CPU tensor that says that it lies on a GPU."""

    def __init__(self, tensor, device=DEVICE):
        self.tensor, self.device = tensor, device

    def __getattr__(self, name):
        return getattr(self.tensor, name)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(build, "announce", lines.append)
    return lines


@pytest.fixture
def card(monkeypatch):
    """What torch says of the card; capturing: whether it captures a graph."""
    card = SimpleNamespace(capability=(8, 0), capturing=False, stream=4711, current=[])

    @contextmanager
    def device(wanted):
        card.current.append(wanted)
        yield
        card.current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: card.capturing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=card.stream))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(loader, "Tensor", (torch.Tensor, OnGpu))
    return card


@pytest.fixture
def cupy(monkeypatch, tmp_path, card, said):
    """A fresh loader beside a CuPy that writes down what it gets."""
    fake = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")  # and whatever it becomes is undone
    monkeypatch.delenv("SAN_OPS", raising=False)
    fresh(monkeypatch)
    yield fake
    forget()


def fresh(monkeypatch):
    for name in ("_states", "_functions", "_shared"):
        monkeypatch.setattr(loader, name, {})
    forget()


def forget():
    for cached in (loader._cupy, loader._shared_limit, compiling.say_once, cache.prepare):
        cached.cache_clear()


def launch(*more, kernel=KERNEL, shared=0):
    loader.launch("aggregation.cu", kernel, (5,), (64, 2), tensor(), *more, shared=shared)


def tensor(*shape, dtype=torch.float32):
    return OnGpu(torch.zeros(shape or (1, 2, 3, 3), dtype=dtype))


def test_a_launch_gets_exactly_what_the_kernel_takes(cupy, card):
    x, numbers = tensor(), (np.int32(3), np.int64(2**40), np.float32(0.5))
    loader.launch("aggregation.cu", KERNEL, np.array([5]), [64, 2], x, None, *numbers, shared=1024)
    ((grid, block, args, more),) = cupy.function.calls
    assert (grid, block) == ((5,), (64, 2))
    assert {type(size) for size in grid + block} == {int}
    assert args == (x.data_ptr(), 0, *numbers)
    assert [type(arg) for arg in args] == [int, int, np.int32, np.int64, np.float32]
    assert more == {"shared_mem": 1024, "stream": ("stream", 4711, 1)}
    assert not card.current


def test_the_stream_is_asked_for_at_each_launch(cupy, card):
    launch()
    card.stream = 4712
    launch()
    assert [more["stream"][1] for *_, more in cupy.function.calls] == [4711, 4712]


def test_a_kernel_is_compiled_once_for_each_device(cupy, said):
    launch()
    launch()
    loader.launch("aggregation.cu", KERNEL, (1,), (1,), OnGpu(torch.zeros(1), torch.device("cuda", 0)))
    assert len(cupy.modules) == 2
    assert cupy.modules[0]["options"] == ("-std=c++17",)
    assert '#include "common.cuh"' not in cupy.modules[0]["code"]
    assert "reflect(int i, int size)" in cupy.modules[0]["code"]
    assert said == [
        "Compiling the CUDA kernels for a card with NVRTC 13.0 of CuPy 14.2.0, once; about a second each."
    ]


def test_what_an_earlier_process_compiled_is_not_announced(cupy, said, monkeypatch):
    launch()
    said.clear()
    fresh(monkeypatch)
    launch()
    assert len(cupy.modules) == 2
    assert not said


def test_a_cupy_that_keeps_no_templates_says_so_at_each_start(cupy, said, monkeypatch):
    cupy.__version__ = "14.0.1"
    launch()
    fresh(monkeypatch)
    launch()
    assert len(said) == 2
    assert "at each start, because CuPy 14.0.1 does not keep them" in said[0]


def test_more_shared_memory_than_usual_is_asked_for_once(cupy):
    for shared in (48 << 10, 50 << 10, 50 << 10, 64 << 10, 50 << 10):
        launch(shared=shared)
    assert cupy.function.asked == [50 << 10, 64 << 10]


def test_more_shared_memory_than_there_is_leaves_the_operator_to_plain_pytorch(cupy, said):
    with pytest.raises(UnavailableError, match="the card has 101376"):
        launch(shared=100 << 10)
    assert "Plain PyTorch runs in the place of a CUDA kernel" in said[-1]
    assert loader.usable(tensor())


def test_nothing_is_compiled_while_a_graph_is_captured(cupy, card):
    card.capturing = True
    with pytest.raises(RuntimeError, match="run the same work once before the capture"):
        launch()
    card.capturing = False
    launch()
    card.capturing = True
    launch()
    assert len(cupy.function.calls) == 2


@pytest.mark.parametrize("error", [CompileException("\nerror: no"), CUDADriverError("error: no")])
def test_a_kernel_that_does_not_compile_is_plain_pytorch_from_then_on(cupy, said, error):
    assert loader.usable(tensor())
    cupy.failures.append(error)
    with pytest.raises(UnavailableError):
        launch()
    assert not loader.usable(tensor())
    assert said[-1] == (
        f"{PLAIN}aggregation.cu does not compile with NVRTC 13.0 of CuPy 14.2.0 ({KERNEL}: error: no)."
    )


def test_an_operator_whose_kernel_fails_is_done_by_plain_pytorch(monkeypatch):
    """The operator itself: what registry.implement puts around it."""
    value, weight = torch.randn(1, 2, 4, 4), torch.randn(1, 9, 2, 4, 4)
    wanted = ops.aggregation(value, weight, 3)
    registry = importlib.import_module("sancli.ops.registry")
    made = []
    monkeypatch.setattr(registry.library, "impl", lambda name, function, key: made.append(function))
    monkeypatch.setattr(registry, "_implemented", {})

    def failing(*_):
        raise UnavailableError("no")

    registry.implement("aggregation", failing, "CUDA")
    torch.testing.assert_close(made[0](value, weight, 3), wanted)


def test_a_disk_that_is_full_costs_no_kernel(cupy):
    cupy.failures.append(OSError(28, "No space left on device"))
    launch()
    assert len(cupy.modules) == 2
    assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"


def test_a_folder_that_cannot_be_written_is_not_used(cupy, said, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    launch()
    assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"
    assert "for this run alone, because" in said[0]
    assert "cannot be written (Not a directory)" in said[0]


def test_another_process_that_compiles_is_waited_for(cupy, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    folder = tmp_path / "kernels"
    folder.mkdir()
    with filelock.FileLock(folder / ".lock"):
        launch()  # for so long, and then without it
    assert cupy.function.calls
    held = []
    monkeypatch.setattr(Cupy, "RawModule", lambda self, **_: held.append(locked(folder)) or made(self))
    launch(kernel="aggregation_forward_naive<double>")
    assert held == [True]
    assert not locked(folder)


def locked(folder):
    try:
        filelock.FileLock(folder / ".lock").acquire(timeout=0).lock.release()
    except filelock.Timeout:
        return True
    return False


def made(cupy):
    return SimpleNamespace(get_function=lambda name: cupy.function)


def no_nvrtc():
    raise RuntimeError("CuPy failed to load libnvrtc.so.13: OSError")


PLAIN = "No CUDA kernels, plain PyTorch runs in their place, slower: "
INSTALL = "pip install 'sancli[cuda13]'"
WHY = {
    "no CuPy": f"CuPy is not installed: {INSTALL}.",
    "a broken CuPy": "CuPy cannot be imported (no driver).",
    "a CuPy of another CUDA": (
        f"CuPy is built for CUDA 12, torch for CUDA 13.0: pip uninstall cupy-cuda12x, then {INSTALL}."
    ),
    "no NVRTC": f"CuPy finds no NVRTC (CuPy failed to load libnvrtc.so.13: OSError): {INSTALL}.",
    "an old card": "a card (compute capability 7.0) is older than what NVRTC compiles for, 7.5.",
    "ROCm": "torch is not built for CUDA.",
}


@pytest.mark.parametrize("case", WHY)
def test_where_the_kernels_cannot_run_one_line_says_why(cupy, card, said, monkeypatch, case):
    if case == "no CuPy":
        monkeypatch.setitem(sys.modules, "cupy", None)
        monkeypatch.setattr(loader, "_cupy", raising(ModuleNotFoundError("no", name="cupy")))
    elif case == "a broken CuPy":
        monkeypatch.setattr(loader, "_cupy", raising(ImportError("\n=====\nno driver\nmore")))
    elif case == "a CuPy of another CUDA":
        cupy.cuda.runtime.runtimeGetVersion = lambda: 12090
    elif case == "no NVRTC":
        cupy.cuda.nvrtc.getVersion = no_nvrtc
    elif case == "an old card":
        card.capability = (7, 0)
    else:
        monkeypatch.setattr(torch.version, "cuda", None)
    for _ in range(3):
        assert not loader.usable(tensor(), None)
    assert said == [PLAIN + WHY[case]]


def raising(error):
    def function():
        raise error

    function.cache_clear = lambda: None
    return function


def test_plain_pytorch_can_be_asked_for(cupy, said, monkeypatch):
    monkeypatch.setenv("SAN_OPS", "reference")
    assert not loader.usable(tensor())
    assert str(loader.state(DEVICE)) == "plain PyTorch (SAN_OPS=reference)"
    assert not said


def test_kernels_are_usable_where_all_is_well(cupy):
    assert loader.usable(tensor(), None, tensor(4, dtype=torch.bfloat16))
    assert str(loader.state(DEVICE)) == "CUDA kernels (NVRTC 13.0 of CuPy 14.2.0)"


@pytest.mark.parametrize(
    "other",
    [
        tensor(0, 2, 3, 3),
        tensor(1, dtype=torch.int64),
        OnGpu(torch.zeros(1), torch.device("cuda", 0)),
        OnGpu(torch.zeros(1), torch.device("cpu")),
    ],
)
def test_tensors_that_kernels_cannot_take_are_left_to_plain_pytorch(cupy, other):
    assert not loader.usable(tensor(), other)
    assert not loader.usable(other, tensor())


def test_a_type_that_the_card_lacks_is_left_to_plain_pytorch(cupy, card):
    card.capability = (7, 5)
    assert loader.usable(tensor(dtype=torch.float16))
    assert not loader.usable(tensor(), tensor(dtype=torch.bfloat16))


def test_offsets_are_32_bits_wide_inside_an_image_and_64_between_images():
    wide = torch.empty(40000, 64, 256, 256, dtype=torch.float16, device="meta")
    assert wide.numel() > 2**37
    assert sources.fits(wide, wide[:, :32])
    assert sources.fits(torch.empty(1, 2, 32768, 32768, device="meta"))
    assert not sources.fits(torch.empty(1, 2, 32768, 32769, device="meta"))
    merged = torch.empty(1, 32768, 32768, 3, device="meta").permute(0, 3, 1, 2)
    assert not sources.fits(merged[:, :1])  # a slice reaches as far as what it is cut from
    assert not sources.fits(torch.empty(2**31 + 1, device="meta"))
    one_colour = torch.empty(1, 1, 32768, 32768, device="meta").expand(-1, 3, -1, -1)
    assert not sources.fits(one_colour)  # the kernels are given a copy of it, with all that it stands for


def test_a_header_is_put_in_once_and_nothing_is_left_to_be_found():
    text = sources.text("aggregation.cu")
    assert ".cuh" not in "\n".join(line for line in text.splitlines() if line.startswith("#include"))
    assert text.count("struct Accumulator {") == 1
    assert "#pragma once" not in text


def test_every_cuda_source_can_be_read():
    for path in sources.folder().glob("*.cu"):
        assert "__global__" in sources.text(path.name)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="no CuPy")
def test_the_real_cupy_has_all_of_it():
    cupy = importlib.import_module("cupy")
    fake = Cupy()
    for name, part in vars(fake.cuda).items():
        for attribute in vars(part) if isinstance(part, SimpleNamespace) else ():
            assert hasattr(getattr(cupy.cuda, name), attribute), f"cupy.cuda.{name}.{attribute}"
    assert {"RawModule", "__version__"} <= set(dir(cupy))


def test_every_operator_has_cuda_kernels():
    """Or else a family is not imported by sancli/ops/cuda/__init__.py."""
    registry = importlib.import_module("sancli.ops.registry")
    assert set(registry.implemented("CUDA")) == set(registry._plain)
