"""The CUDA kernels as NVRTC compiles them, without a GPU: they compile, spill nothing, fit, keep to a budget.

With -m build of one card and type, and of each kernel its smallest sizes; with -m slow all sizes, every
card that benchmarks/cubins.py names, and every type.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

NEEDED = ("cuda.bindings", "triton")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name.partition(".")[0]) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: torch brings them on Linux")

REGISTERS = 65536  # of a multiprocessor: a block cannot have more
SHARED_KIB = {"sm_75": 64, "sm_80": 163, "sm_90": 227, "sm_120": 99}  # of a block, by the CUDA C++ guide
TYPES = ("float32", "float16", "bfloat16", "float64")
# The only card and type with every kind of kernel: on tensor cores, on ordinary units, naive.
QUICK = "sm_80", "bfloat16", "quick"
CASES = [
    (arch, dtype, "whole") for arch in SHARED_KIB for dtype in TYPES if (arch, dtype) != ("sm_75", "bfloat16")
]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(QUICK, marks=pytest.mark.build),
        *(pytest.param(case, marks=pytest.mark.slow) for case in CASES),
    ],
    ids="-".join,
)
def rows(request):
    import cubins

    arch, dtype, extent = request.param
    found = cubins.kernels((arch,), (dtype,), quick=extent == "quick")
    assert found
    return found


def test_every_kernel_compiles(rows):
    wrong = {row["kernel"]: row["error"] for row in rows if "error" in row}
    assert not wrong, "\n".join(f"{kernel}:\n{error}" for kernel, error in wrong.items())


def test_no_kernel_spills_registers(rows):
    assert not {row["kernel"]: row["stack"] for row in rows if row["stack"]}


def test_every_block_fits_on_its_card(rows):
    for row in rows:
        assert row["shared"] <= SHARED_KIB[row["arch"]] << 10, row["kernel"]
        assert row["registers"] * row["threads"] <= REGISTERS, row["kernel"]


def test_kernels_keep_to_their_budget(rows, request):
    """Another compiler gives other numbers: they are compared where it is the one that made the budget."""
    import cubins
    import nvrtc

    if not cubins.BUDGET.is_file():
        pytest.skip("no budget yet: python benchmarks/cubins.py --write-budget")
    budget = json.loads(cubins.BUDGET.read_text(encoding="utf-8"))
    if budget["nvrtc"] != nvrtc.version():
        pytest.skip(f"the budget is of NVRTC {budget['nvrtc']}, and this is {nvrtc.version()}")
    ((arch, by_type),) = cubins.budget(rows).items()
    ((dtype, kernels),) = by_type.items()
    held = budget["kernels"].get(arch, {}).get(dtype, {})
    if "quick" in request.node.callspec.id:
        held = {name: {key: held[name][key] for key in figures} for name, figures in kernels.items()}
    assert kernels == held, f"python benchmarks/cubins.py --write-budget --arch {arch} --types {dtype}"


PRODUCT = """
#include "common.cuh"
template <typename T>
__global__ void product(const unsigned* a, float* d) {
  %s
  mma_%s(sums, %s, T());
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = sums[i];
}
"""
WIDE = "const unsigned b[2] = {a[4], a[5]};", "m16n8k16", "a, b"
NARROW = "const unsigned b = a[4];", "m16n8k8", "a, b"


@pytest.mark.parametrize(
    ("arch", "which", "ctype", "compiles"),
    [
        ("sm_75", WIDE, "__half", False),
        ("sm_75", WIDE, "__nv_bfloat16", False),
        ("sm_75", NARROW, "__half", True),
        pytest.param("sm_80", WIDE, "__half", True, marks=pytest.mark.slow),
        ("sm_80", WIDE, "__nv_bfloat16", True),
    ],
)
def test_what_a_card_cannot_do_does_not_compile_for_it(arch, which, ctype, compiles, monkeypatch):
    """Not an empty body, whose results would be whatever was there before."""
    import cubins
    import nvrtc

    from sancli.ops.cuda import sources

    declared, name, operands = which
    text = PRODUCT % (f"float sums[4] = {{}}; {declared}", name, operands)
    header = (sources.folder() / "common.cuh").read_text(encoding="utf-8").replace("#pragma once", "")
    text = text.replace('#include "common.cuh"', header)
    job = nvrtc.Program("product.cu", text, (f"product<{ctype}>",), arch, cubins.options())
    if compiles:
        (row,) = nvrtc.figures(job)
        assert row["instructions"]["HMMA"]
    else:
        with pytest.raises(nvrtc.CompileError, match="needs sm_80"):
            nvrtc.compiled(job)


def test_bfloat16_is_left_to_plain_pytorch_on_a_card_without_it():
    import torch
    from launches import CARDS, of_network

    small = torch.bfloat16, "patchwise", 64  # px: plain PyTorch computes what it is left
    assert not of_network(CARDS["sm_75"], *small).launches
    assert of_network(CARDS["sm_80"], *small).launches


@pytest.mark.parametrize("attention", ["patchwise", "pairwise"])
@pytest.mark.parametrize(
    ("arch", "dtype"), [("sm_75", "float16"), ("sm_80", "bfloat16"), ("sm_120", "float32")]
)
def test_a_network_runs_in_fast_kernels_alone(arch, dtype, attention):
    """No operator of it falls back to plain PyTorch, and none to the naive kernels."""
    import torch
    from launches import CARDS, of_network

    notes = of_network(CARDS[arch], getattr(torch, dtype), attention, 128)  # px: the smallest with such maps
    assert notes.launches
    assert not notes.plain
    assert not [one.kernel for one in notes.launches if "naive" in one.kernel]
