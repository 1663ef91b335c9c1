"""Aggregation in CUDA, run on the CPU, is its definition: tiled and naive, in every type and awkward size."""

import functools

import formulas
import pytest
import torch
from emulator import KernelError

from sancli.ops.cuda import aggregation as cuda
from sancli.ops.cuda import window

# Largest difference to float64, as a share of the largest value: rounding of results, and of sums in float.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
TILED = [  # N, H, W, K; G. Several blocks of pixels and chunks of channels, the last ones not full
    *(((*shape, 3), 4) for shape in [(2, 4, 5), (1, 9, 35), (1, 1, 1), (2, 1, 2)]),
    *(((*shape, 7), 8) for shape in [(1, 9, 11), (2, 7, 7), (1, 3, 3), (1, 2, 3), (1, 1, 1)]),
]
QUICK = torch.float32, torch.bfloat16  # the others differ in the types of C++ alone


def given(shape, dtype, *, groups=2, share=2, merged=8):
    """Value and gradient as slices of wider maps, and weights channels last."""
    n, h, w, k = shape
    channels = groups * share
    wide = formulas.random(n, channels + merged, h, w, dtype=dtype, grad=False)
    value = wide.contiguous(memory_format=torch.channels_last)[:, merged:]
    grad = formulas.random(n, channels, h, w, seed=1, dtype=dtype, grad=False)
    weight = formulas.random(n, k * k * groups, h, w, seed=2, dtype=dtype, grad=False)
    weight = weight.contiguous(memory_format=torch.channels_last).unflatten(1, (-1, groups))
    return value, weight, grad.contiguous(memory_format=torch.channels_last), k


def run(value, weight, grad, k):
    return cuda.aggregation(value, weight, k), *cuda.aggregation_backward(grad, value, weight, k)


def forward(value, weight, grad, k):
    return (cuda.aggregation(value, weight, k),)


def backward(value, weight, grad, k):
    """The gradient of value alone."""
    out = torch.empty_like(grad)
    cuda.backward_value(grad, weight.flatten(1, 2), out, k)
    return (out,)


def wanted(value, weight, grad, kernel_size):
    value, weight = (x.double().requires_grad_() for x in (value, weight))
    out = formulas.aggregate(value, weight, kernel_size)
    return out, *torch.autograd.grad(out, (value, weight), grad.double())


def assert_near(got, wanted, share):
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.shape == b.shape
        assert (a.double() - b.double()).abs().max() <= share * b.double().abs().max() + 1e-300, i


def of_types(quick):
    """All of them, of which all but the quick ones are slow."""
    return [pytest.param(dtype, marks=() if dtype in quick else pytest.mark.slow) for dtype in TOLERANCE]


def tiled_cases():
    """Footprints of 7 take longest to compile."""
    return [
        pytest.param(
            shape, groups, dtype,
            marks=() if dtype in (QUICK if shape[-1] == 3 else QUICK[1:]) else pytest.mark.slow,
            id=f"{'x'.join(map(str, shape))}-{groups}-{str(dtype)[6:]}",
        )
        for shape, groups in TILED
        for dtype in TOLERANCE
    ]  # fmt: skip


@functools.cache
def rehearse(emulator):
    with emulator.rehearsal():
        for dtype in QUICK:
            run(*given((1, 3, 3, 7), dtype))
            run(*given((1, 3, 3, 3), dtype, groups=4, share=8))
        run(*given((1, 3, 3, 7), QUICK[1], groups=8, share=8))


@pytest.fixture(autouse=True)
def compiled(emulated):
    rehearse(emulated)


def kernels(emulator):
    return [kernel for kernel, *_ in emulator.launches]


@pytest.mark.parametrize("shape", formulas.MAPS)
@pytest.mark.parametrize("dtype", of_types(QUICK))
def test_naive_kernels_take_any_footprint_map_and_sharing(emulated, shape, dtype):
    case = given(shape, dtype)
    assert_near(run(*case), wanted(*case), TOLERANCE[dtype])
    assert all("naive" in kernel for kernel in kernels(emulated))
    assert len(emulated.launches) == 3


@pytest.mark.parametrize(("shape", "groups", "dtype"), tiled_cases())
def test_tiled_kernels(emulated, monkeypatch, shape, groups, dtype):
    """Held to the formula, and to their naive twins, which add in another order."""
    case = given(shape, dtype, groups=groups, share=8)
    got = run(*case)
    assert all("Window" in kernel for kernel in kernels(emulated))
    assert_near(got, wanted(*case), TOLERANCE[dtype])
    monkeypatch.setattr(cuda, "window", lambda *_: None)
    assert_near(run(*case), [x.double() for x in got], TOLERANCE[dtype])
    assert "naive" in kernels(emulated)[-1]


@pytest.mark.parametrize("merged", [1, 2, 3])
def test_maps_that_are_not_aligned_are_moved_in_smaller_vectors(emulated, merged):
    case = given((1, 4, 5, 3), torch.bfloat16, groups=4, share=8, merged=merged)
    assert_near(run(*case), wanted(*case), TOLERANCE[torch.bfloat16])


def test_layouts_that_are_not_the_kernels_are_copied(emulated):
    value, weight, grad, k = given((2, 4, 5, 3), torch.float32, groups=4, share=8)
    turned = value.contiguous(), weight.contiguous(), grad.transpose(2, 3).contiguous().transpose(2, 3)
    got = run(*turned, k)
    assert_near(got, wanted(value, weight, grad, k), TOLERANCE[torch.float32])
    assert got[2].stride() == turned[1].stride()


def test_what_is_not_a_number_stays_so(emulated):
    value, weight, grad, k = given((2, 5, 6, 3), torch.float32, groups=4, share=8)
    value[0, 3, 2, 2] = float("nan")
    out = run(value, weight, grad, k)[0]
    assert out[0, 3, 1:4, 1:4].isnan().all()
    assert int(out.isnan().sum()) == 9


def test_weights_of_another_type_take_that_of_the_value(emulated):
    """A softmax under autocast gives float beside 16-bit maps; their gradient is float again."""
    value, weight, grad, k = given((2, 5, 6, 3), torch.bfloat16)
    got = run(value, weight.float(), grad.float(), k)
    assert len(emulated.launches) == 3
    assert [x.dtype for x in got] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(got, wanted(value, weight, grad, k), TOLERANCE[torch.bfloat16])


# What each of these mistakes must not get through: a test for the tests. Of backward the gradient of value.
FORWARD = {
    "missing barrier": ("  __syncthreads();\n", ""),
    "divergent barrier": ("  __syncthreads();\n", "  if (threadIdx.x < 32) __syncthreads();\n"),
    "reflection off by one": ("i = 2 * (size - 1) - i;\n  if", "i = 2 * size - 1 - i;\n  if"),
    "no guard at the end of a row": (
        "if (at.x + p < width)\n#pragma unroll\n        for (int h",
        "for (int h",
    ),
    "no guard at the last row": ("if (at.y >= height || at.x >= width) return;", ""),
    "channels in the order of another sharing": ("stride + h * G + part)", "stride + part * SHARE + h)"),
    "a cell of shared memory forgotten": ("SHARE * PARTS; i += ", "SHARE * PARTS - 1; i += "),
    "weights of the neighbour": ("(at.x + p < width ? p : 0) * weight", "p / 2 * 2 * weight"),
    "chunk of channels forgotten": ("stride + at.first_plane;", "stride;"),
    "image base forgotten": ("map += at.image", "map += 0"),
}
BACKWARD = {
    "far place that shows a pixel forgotten": ("(step ? step : period)", "(step ? step : period) + 99"),
    "own place counted twice": ("int turned = shift == 0;", "int turned = 0;"),
    "an edge taken for its mirror image": ("turned && (own == 0 || own == width - 1)", "false"),
    "the right border forgotten": ("return at.x <= REACH ||", "return at.x <= REACH &&"),
}
BUGS = {name: (bug, forward, 0) for name, bug in FORWARD.items()}
BUGS |= {name: (bug, backward, 1) for name, bug in BACKWARD.items()}


@pytest.mark.parametrize("bug", BUGS)
def test_a_seeded_bug_is_caught(emulated, bug):
    change, part, which = BUGS[bug]
    case = given((2, 9, 35, 3), torch.float32, groups=4, share=8)
    right = wanted(*case)[which : which + 1]
    assert_near(part(*case), right, TOLERANCE[torch.float32])
    with emulated.mutated("aggregation.cu", *change), pytest.raises((KernelError, AssertionError)):
        assert_near(part(*case), right, TOLERANCE[torch.float32])


def test_too_little_shared_memory_is_caught(emulated, monkeypatch):
    whole = window.Window.shared
    monkeypatch.setattr(window.Window, "shared", property(lambda self: whole.func(self) - 64))
    with pytest.raises(KernelError, match="shared memory"):
        run(*given((1, 9, 35, 3), torch.float32, groups=4, share=8))


def test_no_guard_at_the_end_of_a_naive_grid_is_caught(emulated):
    with (
        emulated.mutated("aggregation.cu", "if (i >= total) return;", ""),
        pytest.raises(KernelError, match="outside of a buffer"),
    ):
        run(*given((1, 3, 5, 3), torch.float32))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kernel_size", "groups"), [(3, 2), (7, 8), (7, 16), (7, 32), (7, 64)])
def test_tiles_of_the_networks_fit_a_t4_and_meet_in_no_bank(emulated, dtype, kernel_size, groups):
    value = torch.empty(1, 8 * groups, 8, 8, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for kernel in ("aggregation_forward", "aggregation_backward_value", "aggregation_backward_weight"):
        tile = window.window(kernel, kernel_size, groups, value)
        assert tile is not None, kernel
        assert tile.shared <= 64 << 10
        assert 32 <= tile.threads <= 1024
        pixel_step, row_step = tile.steps
        size, across = tile.vector * dtype.itemsize, tile.columns // tile.pixels
        met = window.conflicts(tile.lanes, across, tile.pixels * pixel_step, row_step, size)
        assert met <= 1 + (kernel_size == 3), kernel  # two weight channels are too few to fill 32 banks


def test_a_bank_met_twice_is_noticed():
    assert window.conflicts(8, 4, 32, 128, 4) == 4
    assert window.conflicts(8, 4, 8, 128, 4) == 1
    assert window.conflicts(1, 8, 2, 16, 8) == 2
