"""Trunk in CUDA, run on the CPU, is its plain version in float64: in every type, at awkward sizes."""

import functools

import formulas
import pytest
import torch
import torch.nn.functional as F
from emulator import KernelError
from twins import Twins, assert_near, cases, norm_of

from sancli.ops.cuda import channels, trunk
from sancli.ops.reference import trunk as plain

# N, C, H, W: one pixel; a line; odd sides; several blocks, the last not full; several tiles of channels;
# and channels that make no whole vectors: each number is moved alone
SHAPES = [(1, 8, 1, 1), (2, 16, 1, 3), (3, 24, 5, 2), (1, 40, 7, 9), (2, 24, 31, 24), (1, 264, 2, 3)]
SHAPES += [(2, 6, 3, 4), (1, 1, 5, 2), (2, 263, 2, 3)]
LARGE = SHAPES[4]
CASES = cases(SHAPES, every_type=SHAPES[3])


def made(shape, batch, dtype, seed=0):
    """A map, a norm, the weight behind it, and gradients of what is convolved and of what is pooled."""
    n, c, h, w = shape
    sizes = (shape, (5, c, 1, 1), (n, 5, h, w), (n, c, h // 2, w // 2))
    x, weight, *grads = (formulas.random(*size, seed=seed, dtype=dtype, grad=False) for size in sizes)
    return x.contiguous(memory_format=torch.channels_last), norm_of(c, batch, dtype, seed), weight, grads


def outputs(module, x, norm, weight, grads, *, batch):
    """All that the operators and their backwards give, with names."""
    gamma, beta, *_, eps = norm
    y, *used = module.bn_relu_conv1x1(x, *norm, weight, None)
    names = ("y", "mean", "var", "x", "gamma", "beta", "weight", "bias")
    backward = module.bn_relu_conv1x1_backward(grads[0], x, gamma, beta, *used, eps, weight, batch)
    yield from zip(names, (y, *used, *backward), strict=True)
    yield "normalised", module.known_norm_relu(x, gamma, beta, *used, eps)
    if min(x.shape[2:]) > 1:
        y, *used = module.bn_relu_pool(x, *norm)
        backward = module.bn_relu_pool_backward(grads[1], x, gamma, beta, *used, eps, batch)
        names = ("pooled", "pool mean", "pool var", "pool x", "pool gamma", "pool beta")
        yield from zip(names, (y, *used, *backward), strict=True)


TWINS = Twins(trunk, plain, made, outputs)


@functools.cache
def rehearse(emulator):
    TWINS.rehearse(emulator, CASES)


@pytest.fixture(autouse=True)
def prepared(emulated, monkeypatch):
    """A thread sees several pixels, as on large maps; kernels are compiled ahead."""
    monkeypatch.setattr(channels, "BLOCKS", 1)
    rehearse(emulated)


@pytest.mark.parametrize(("shape", "dtype"), CASES)
@pytest.mark.parametrize("batch", [True, False])
def test_kernels_give_what_plain_pytorch_gives_in_float64(emulated, shape, batch, dtype):
    TWINS.check(emulated, shape, batch, dtype)


@pytest.mark.slow
def test_many_shapes_in_many_parts(emulated, monkeypatch):
    TWINS.check_many(emulated, monkeypatch, 60)


@pytest.mark.parametrize("batch", [True, False])
def test_wide_and_narrow_vectors_are_twins(emulated, monkeypatch, batch):
    narrow = TWINS.check_widths(emulated, monkeypatch, (2, 24, 9, 11), batch)
    assert len(narrow) == 7 - (not batch)  # whose statistics are given


def test_many_parts_give_what_one_gives(emulated, monkeypatch):
    assert max(TWINS.check_parts(emulated, monkeypatch, LARGE).values()) > 40


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [True, False])
def test_what_is_not_finite_comes_out_where_plain_pytorch_has_it(bad, batch):
    x, norm, weight, grads = made((2, 8, 7, 5), batch, torch.float32)
    for at in ((0, 2, 3, 1), (1, 0, 6, 4), (0, 1, 0, 0), (0, 1, 1, 1)):  # one in no window; two in one
        x[at] = bad
    got, wanted = (dict(outputs(module, x, norm, weight, grads, batch=batch)) for module in (trunk, plain))
    for name, a in got.items():
        if "gamma" not in name and "beta" not in name and name != "weight":  # may hold 0 times infinity
            assert torch.equal(a.isfinite(), wanted[name].isfinite()), name
        if name in ("y", "normalised", "pooled"):
            assert torch.equal(a.isnan(), wanted[name].isnan()), name


def test_of_equal_pixels_the_first_gets_the_gradient():
    x = formulas.random(2, 8, 8, 8, dtype=torch.float32, grad=False).round().requires_grad_()
    norm = torch.ones(8), torch.zeros(8), torch.zeros(8), torch.ones(8)
    grad = formulas.random(2, 8, 4, 4, seed=1, dtype=torch.float32, grad=False)
    (wanted,) = torch.autograd.grad(F.max_pool2d(x.relu(), 2), x, grad)
    got, *_ = trunk.bn_relu_pool_backward(grad, x.detach(), *norm, 0.0, False)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("offset", [1e3, -3e4])
def test_a_mean_of_many_standard_deviations_costs_statistics_no_digits(offset):
    x = (offset + formulas.random(4, 24, 16, 16, grad=False)).float()
    x[0, :, 0, 0] = offset + 300  # nor does a first pixel that lies far outside
    _, mean, var = trunk.bn_relu_pool(x, torch.ones(24), torch.zeros(24), None, None, 1e-5)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=3e-7, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=2e-6, atol=0)


def test_other_layouts_and_types_of_parameters_are_taken_as_they_are():
    """Slices, maps that are not channels last or start in between, and parameters in bfloat16."""
    x, (gamma, beta, _, _, eps), *_ = made((2, 8, 6, 5), True, torch.float32)
    wide = torch.stack([x, -x], 1).flatten(0, 1)
    shifted = torch.cat([torch.zeros(1), x.permute(0, 2, 3, 1).flatten()])[1:].view(2, 6, 5, 8)
    half = gamma.bfloat16(), beta.bfloat16()
    gamma, beta = (t.double() for t in half)
    for view in (wide[::2], x.contiguous(), x, shifted.permute(0, 3, 1, 2)):
        y, *known = trunk.bn_relu_pool(view, *half, None, None, eps)
        wanted = plain.bn_relu_pool(x.double(), gamma, beta, None, None, eps)
        assert_near([("y", y)], [("y", wanted[0])], 1e-5)
        grads = trunk.bn_relu_pool_backward(y, view, *half, *known, eps, True)
        assert [t.dtype for t in grads] == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_what_the_kernels_do_not_know_is_left_to_plain_pytorch(emulated, monkeypatch):
    """An empty batch, a gradient of another type, too many pixels; a map without a window is an error."""
    x, norm, _, (_, grad) = made((2, 8, 4, 4), False, torch.float32)
    assert trunk.bn_relu_pool(x[:0], *norm)[0].shape == (0, 8, 2, 2)
    with pytest.raises(RuntimeError):  # torch's own
        trunk.bn_relu_pool_backward(grad.double(), x, *norm, True)
    with pytest.raises(RuntimeError, match="too small"):
        trunk.bn_relu_pool(x[:, :, :1], *norm)
    monkeypatch.setattr(trunk, "MOST_PIXELS", 31)
    assert torch.equal(trunk.known_norm_relu(x, *norm), plain.known_norm_relu(x, *norm))
    assert not emulated.launches


def statistics(shape):
    """Held to float64."""
    x = made(shape, True, torch.float32)[0]
    mean, var = x.new_empty(2, shape[1])
    trunk.write_statistics(x, mean, var)
    wanted = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), correction=0)
    assert_near(zip("mv", (mean, var), strict=True), zip("mv", wanted, strict=True), 1e-6)


def known(shape, bad):
    """norm_relu and the pool with one value that is not finite."""
    x, norm, *_ = made(shape, False, torch.float32)
    x[0, 1, 1, 0] = bad
    got, wanted = ((m.known_norm_relu(x, *norm), *m.bn_relu_pool(x, *norm)) for m in (trunk, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


def pool_gradient(shape, batch, bad=0.0):
    """Of the map alone, with one value that may not be finite."""
    x, norm, _, (_, grad) = made(shape, False, torch.float32)
    x[0, 1, 0, 0] = bad
    got, wanted = (module.bn_relu_pool_backward(grad, x, *norm, batch)[0] for module in (trunk, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


BUGS = [
    (
        "__syncthreads();\n    if (threadIdx.y < rows / 2)",
        "if (threadIdx.y < rows / 2)",
        lambda: statistics(LARGE),
    ),
    ("next > value || next != next", "next > value", lambda: known((1, 8, 2, 4), float("nan"))),
    (
        "batch ? mean[i] + distance[i] * away : R(0)",
        "mean[i] * batch + distance[i] * batch * away",
        lambda: pool_gradient((1, 8, 3, 4), False, float("inf")),
    ),
    (
        "__syncthreads();\n    if (threadIdx.y < rows)",
        "if (threadIdx.y < rows)",
        lambda: pool_gradient(LARGE, True),
    ),
    ("idle(channel >= channels)", "idle(false)", lambda: known((1, 24, 3, 4), 0.0)),
    ("first < share ? pixels :", "first < share ? pixels + 1 :", lambda: statistics(LARGE)),
    ("y < R(0) ? R(0) : y;", "y > R(0) ? y : R(0);", lambda: known((1, 8, 2, 4), float("nan"))),
    ("next > value ||", "next >= value ||", test_of_equal_pixels_the_first_gets_the_gradient),
    ("other_squares + apart * apart * count * share", "other_squares", lambda: statistics((1, 8, 5, 5))),
    ("- origin[i] - mean : R(0)", "- origin[i] - mean : mean", lambda: statistics((1, 8, 5, 5))),
    ("(k % 2 == 0 || right) &&", "", lambda: pool_gradient((1, 8, 3, 5), True)),
    ("-scale * invstd * invstd *", "-scale * invstd *", lambda: pool_gradient((1, 8, 3, 5), True)),
]


@pytest.mark.parametrize(("old", "new", "test"), BUGS)
def test_seeded_bugs_are_found(emulated, old, new, test):
    test()
    with emulated.mutated(trunk.SOURCE, old, new), pytest.raises((AssertionError, KernelError)):
        test()
