"""Trunk and stem in C++ are their plain versions: in every type, at awkward sizes, for any number of threads.

The plain versions themselves are held to torch's layers in test_trunk.py, and so are these.
"""

import random

import formulas
import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_map

from sancli.ops.cpu import build, library
from sancli.ops.cpu import stem as cpu_stem
from sancli.ops.cpu import trunk as cpu
from sancli.ops.norm import Affine
from sancli.ops.reference import stem as plain_stem
from sancli.ops.reference import trunk as plain

SETS = [pytest.param(name, marks=pytest.mark.slow) for name in build.INSTRUCTION_SETS]
pytestmark = [
    pytest.mark.usefixtures("implementation"),
    pytest.mark.parametrize("implementation", ["compiled", *SETS], indirect=True),
]

# N, C, H, W: a vector and more, less than one, several slices of channels; odd sides; one window; many pixels
SHAPES = [
    (2, 6, 3, 4),
    (1, 1, 5, 2),
    (3, 3, 2, 2),
    (2, 17, 7, 9),
    (1, 5, 2, 70),
    (2, 1030, 3, 2),
    (4, 64, 13, 12),
]
# Largest difference to float64, as a share of the largest value: sums of rounded products
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def make(shape, batch, seed=0):
    """A map, an image, norms with one gamma of 0 and one below, and the parameters behind and in front."""
    n, c, h, w = shape
    gamma, beta, mean, var, eps = formulas.norm(c, batch=batch, seed=seed)
    sizes = shape, (n, 3, h, w), (5, c, 1, 1), (c, 3)
    x, image, weight, kernel = (formulas.random(*size, seed=seed, grad=False) for size in sizes)
    return x, image, weight, kernel, (gamma.detach(), beta.detach(), mean, var, eps)


def outputs(trunk, stem, x, image, weight, kernel, norm, *, batch):
    """All that the operators and their backwards give, of two modules with the same functions."""
    *affine, mean, var, eps = norm
    given = (*affine, mean, var, eps)
    y, mean_used, var_used = trunk.bn_relu_conv1x1(x, *given, weight, None)
    known = (*affine, mean_used, var_used, eps)
    yield from (y, mean_used, var_used)
    yield from trunk.bn_relu_conv1x1_backward(seed_like(y), x, *known, weight, batch)
    yield from trunk.bn_relu_pool(x, *given)
    pooled = x[..., : x.shape[2] // 2, : x.shape[3] // 2]
    yield from trunk.bn_relu_pool_backward(seed_like(pooled), x, *known, batch)
    y, mean_used, var_used = stem.stem(image, kernel, *given)
    yield from (y, mean_used, var_used)
    yield from stem.stem_backward(seed_like(y), image, kernel, *affine, mean_used, var_used, eps, batch, True)


NORMALISED = ("y", "mean", "var", "x", "gamma", "beta")
NAMES = (*NORMALISED, "weight", "bias", *NORMALISED, "y", "mean", "var", "image", "weight", "gamma", "beta")


def seed_like(x):
    return formulas.random(*x.shape, seed=5, grad=False).to(x.dtype)


def typed(made, dtype):
    """Maps of this type, parameters of the type that is computed in."""
    x, image, weight, kernel, norm = made
    real = torch.promote_types(dtype, torch.float32)
    parameters = tree_map(lambda t: t.to(real) if isinstance(t, torch.Tensor) else t, (kernel, norm))
    return x.to(dtype), image.to(dtype), weight.to(dtype), *parameters


def assert_near(got, wanted, tolerance):
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert (a.double() - b).abs().max() <= tolerance * (1 + b.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_give_what_plain_pytorch_gives_in_float64(shape, batch, dtype):
    made = typed(make(shape, batch), dtype)
    got = outputs(cpu, cpu_stem, *made, batch=batch)
    wanted = outputs(plain, plain_stem, *typed(made, torch.float64), batch=batch)
    assert_near(got, wanted, TOLERANCE[dtype])


def test_many_shapes_and_seeds_in_float64():
    pick = random.Random(0)
    for seed in range(40):
        shape = pick.choice([1, 2, 3]), pick.randint(1, 40), pick.randint(2, 12), pick.randint(2, 12)
        made, batch = make(shape, seed % 2 == 0, seed), seed % 2 == 0
        got, wanted = (outputs(*pair, *made, batch=batch) for pair in ((cpu, cpu_stem), (plain, plain_stem)))
        assert_near(got, wanted, TOLERANCE[torch.float64])


@pytest.fixture
def threads():
    """Sets how many threads torch uses, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def norm_relu(x, gamma, beta, mean, var, eps, weight, bias):
    """In the place of `bn_relu_conv1x1`."""
    norm = Affine(gamma, beta, torch.empty_like(gamma), torch.empty_like(gamma), eps)
    return cpu.norm_relu(library.kernels(x), plain.channels_last(x), norm, batch=True), norm.mean, norm.var


def norm_relu_backward(grad, x, gamma, beta, mean, var, eps, weight, batch):
    norm, (x, grad) = Affine(gamma, beta, mean, var, eps), map(plain.channels_last, (x, grad))
    return cpu.norm_relu_backward(library.kernels(x), grad, x, norm, batch=batch)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(4, 64, 13, 12), (2, 1030, 9, 2), (3, 5, 40, 31)])
def test_any_number_of_threads_gives_the_same_bits(shape, dtype, threads, monkeypatch):
    """Of the kernels alone: torch's convolution between them promises nothing."""
    monkeypatch.setattr(cpu, "bn_relu_conv1x1", norm_relu)
    monkeypatch.setattr(cpu, "bn_relu_conv1x1_backward", norm_relu_backward)
    made, runs = typed(make(shape, True), dtype), []
    for count in (1, 2, 4):
        threads(count)
        runs.append(list(outputs(cpu, cpu_stem, *made, batch=True)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [True, False])
def test_what_is_not_finite_comes_out_where_plain_pytorch_has_it(bad, batch):
    made = make((2, 6, 7, 5), batch)
    for at in ((0, 2, 3, 1), (1, 0, 6, 4), (0, 1, 0, 0), (0, 1, 1, 1)):  # one that no window has; two in one
        made[0][at] = made[1][at] = bad
    got, wanted = (outputs(*pair, *made, batch=batch) for pair in ((cpu, cpu_stem), (plain, plain_stem)))
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        if name not in ("weight", "gamma", "beta"):  # sums that may or may not hold 0 times infinity
            assert torch.equal(a.isfinite(), b.isfinite()), name
        if name == "y":
            assert torch.equal(a.isnan(), b.isnan())


def test_of_equal_pixels_the_first_gets_the_gradient():
    x = formulas.random(2, 6, 8, 8, grad=False).round().requires_grad_()
    norm = torch.ones(6), torch.zeros(6), torch.zeros(6), torch.ones(6)
    grad = formulas.random(2, 6, 4, 4, seed=1, grad=False)
    (wanted,) = torch.autograd.grad(F.max_pool2d(x.relu(), 2), x, grad)
    got, *_ = cpu.bn_relu_pool_backward(grad, x.detach(), *(t.double() for t in norm), 0.0, False)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("offset", [1e3, -3e4])
def test_a_mean_of_many_standard_deviations_costs_statistics_no_digits(offset):
    x = (offset + formulas.random(4, 20, 16, 16, grad=False)).float()
    x[0, :, 0, 0] = offset + 300  # nor does a first pixel that lies far outside
    _, mean, var = cpu.bn_relu_pool(x, torch.ones(20), torch.zeros(20), None, None, 1e-5)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_other_layouts_and_types_of_parameters_are_taken_as_they_are():
    """Slices, maps that are not channels last, and parameters in bfloat16."""
    x, image, _, kernel, (gamma, beta, _, _, eps) = make((2, 6, 8, 6), True)
    wide = torch.stack([x, -x], 1).flatten(0, 1).float()
    half = [t.bfloat16() for t in (gamma, beta, kernel)]
    gamma, beta, kernel = (t.double() for t in half)
    for view in (wide[::2], x.float().contiguous(), x.float().to(memory_format=torch.channels_last)):
        _, *known = got = cpu.bn_relu_pool(view, *half[:2], None, None, eps)
        assert_near(got, plain.bn_relu_pool(x, gamma, beta, None, None, eps), 1e-5)
        grads = cpu.bn_relu_pool_backward(got[0], view, *half[:2], *known, eps, True)
        assert [t.dtype for t in grads] == [torch.float32, torch.bfloat16, torch.bfloat16]
    y, *known = got = cpu_stem.stem(image.float(), half[2], *half[:2], None, None, eps)
    assert_near(got, plain_stem.stem(image, kernel, gamma, beta, None, None, eps), 1e-5)
    grads = cpu_stem.stem_backward(y, image.float(), half[2], *half[:2], *known, eps, True, False)
    assert [t.dtype for t in grads] == [torch.float32, *[torch.bfloat16] * 3]


def test_what_the_kernels_do_not_know_is_left_to_plain_pytorch():
    """An image of one colour, half precision, an empty batch; a map without a window is torch's own error."""
    norm = torch.ones(4), torch.zeros(4), torch.zeros(4), torch.ones(4), 1e-5
    for dtype, image in ((torch.float32, torch.ones(1, 1, 4, 4)), (torch.float16, torch.ones(1, 3, 4, 4))):
        y, *_ = cpu_stem.stem(image.to(dtype), torch.ones(4, image.shape[1]), *norm)
        torch.testing.assert_close(
            y, torch.full((1, 4, 2, 2), image.shape[1], dtype=dtype), rtol=1e-3, atol=0
        )
    assert cpu.bn_relu_pool(torch.ones(0, 4, 2, 2), *norm)[0].shape == (0, 4, 1, 1)
    with pytest.raises(RuntimeError, match="too small"):
        cpu.bn_relu_pool(torch.ones(1, 4, 1, 2), *norm)
