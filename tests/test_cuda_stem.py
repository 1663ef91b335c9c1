"""The stem in CUDA, run on the CPU, is its plain version in float64: in every type, at awkward sizes."""

import functools

import formulas
import pytest
import torch
from emulator import KernelError
from twins import Twins, assert_near, cases, norm_of

from sancli.ops.cuda import channels, stem, trunk
from sancli.ops.reference import stem as plain

# N, C, H, W: one window; odd sides; tiles of channels; several blocks along the pixels, the last not full;
# and channels that make no whole vectors: each number is moved alone
SHAPES = [
    (1, 8, 2, 2),
    (3, 24, 5, 2),
    (1, 40, 7, 9),
    (1, 264, 2, 3),
    (2, 8, 47, 26),
    (2, 6, 3, 4),
    (1, 1, 5, 2),
]
CASES = cases(SHAPES, every_type=SHAPES[2])


def made(shape, batch, dtype, seed=0):
    """An image, the weight, a norm, and a gradient of what is pooled."""
    n, c, h, w = shape
    image = formulas.random(n, 3, h, w, seed=seed, dtype=dtype, grad=False)
    weight = formulas.random(c, 3, seed=seed, dtype=torch.promote_types(dtype, torch.float32), grad=False)
    grad = formulas.random(n, c, h // 2, w // 2, seed=seed, dtype=dtype, grad=False)
    return image.contiguous(memory_format=torch.channels_last), weight, norm_of(c, batch, dtype, seed), grad


def outputs(module, image, weight, norm, grad, *, batch, image_grad=True):
    """All that the operator and its backward give, with names."""
    gamma, beta, *_, eps = norm
    y, *used = module.stem(image, weight, *norm)
    backward = module.stem_backward(grad, image, weight, gamma, beta, *used, eps, batch, image_grad)
    names = ("y", "mean", "var", "image", "weight", "gamma", "beta")
    yield from zip(names, (y, *used, *backward), strict=True)


TWINS = Twins(stem, plain, made, outputs)


@functools.cache
def rehearse(emulator):
    TWINS.rehearse(emulator, CASES)


@pytest.fixture(autouse=True)
def prepared(emulated, monkeypatch):
    """A thread sees several pixels, as on large maps; kernels are compiled ahead."""
    monkeypatch.setattr(channels, "BLOCKS", 1)
    monkeypatch.setattr(channels, "EACH", 4)
    rehearse(emulated)


@pytest.mark.parametrize(("shape", "dtype"), CASES)
@pytest.mark.parametrize("batch", [True, False])
def test_kernels_give_what_plain_pytorch_gives_in_float64(emulated, shape, batch, dtype):
    TWINS.check(emulated, shape, batch, dtype)


@pytest.mark.slow
def test_many_shapes_in_many_parts(emulated, monkeypatch):
    TWINS.check_many(emulated, monkeypatch, 30)


@pytest.mark.parametrize("batch", [True, False])
def test_wide_and_narrow_vectors_are_twins(emulated, monkeypatch, batch):
    assert len(TWINS.check_widths(emulated, monkeypatch, (2, 24, 9, 11), batch)) == 2


def test_many_parts_give_what_one_gives(emulated, monkeypatch):
    parts = TWINS.check_parts(emulated, monkeypatch, (2, 24, 41, 24))
    assert min(parts[kernel] for kernel in ("stem_sums<float, 4>", "image_moments<float>")) > 7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("batch", [True, False])
def test_what_is_not_finite_comes_out_where_plain_pytorch_has_it(bad, batch):
    image, weight, norm, grad = made((2, 8, 7, 5), batch, torch.float32)
    for at in ((0, 2, 3, 1), (1, 0, 6, 4), (0, 1, 0, 0), (0, 1, 1, 1)):  # one in no window; two in one
        image[at] = bad
    got, wanted = (dict(outputs(module, image, weight, norm, grad, batch=batch)) for module in (stem, plain))
    for name in ("y", "mean", "var", "image"):
        assert torch.equal(got[name].isfinite(), wanted[name].isfinite()), name
    assert torch.equal(got["y"].isnan(), wanted["y"].isnan())


def test_of_equal_pixels_the_first_gets_the_gradient():
    """Colours of 0 and 1 and whole weights: all is exact."""
    image = formulas.random(2, 3, 8, 10, dtype=torch.float32, grad=False).round().clamp(0, 1)
    weight = formulas.random(8, 3, dtype=torch.float32, grad=False).round()
    norm = torch.ones(8), torch.zeros(8), torch.zeros(8), torch.ones(8)
    grad = formulas.random(2, 8, 4, 5, seed=1, dtype=torch.float32, grad=False)
    args = grad, image, weight, *norm, 0.0, False, True
    torch.testing.assert_close(stem.stem_backward(*args), plain.stem_backward(*args), rtol=0, atol=1e-5)


@pytest.mark.parametrize("offset", [1e3, -3e4])
def test_a_mean_of_many_standard_deviations_costs_statistics_no_digits(offset):
    image = (offset + formulas.random(4, 3, 16, 16, grad=False)).float()
    weight = formulas.random(8, 3, grad=False).float()
    _, mean, var = stem.stem(image, weight, torch.ones(8), torch.zeros(8), None, None, 1e-5)
    wanted = torch.einsum("nihw,ci->nchw", image.double(), weight.double())
    torch.testing.assert_close(mean.double(), wanted.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), wanted.var((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_parameters_get_the_same_gradients_when_the_image_wants_none():
    case = made((2, 8, 6, 5), True, torch.float32)
    got, wanted = (dict(outputs(stem, *case, batch=True, image_grad=wants)) for wants in (False, True))
    assert all(torch.equal(got[name], wanted[name]) for name in ("weight", "gamma", "beta"))
    assert not got["image"].numel()


def test_parameters_of_another_type_and_slices_of_images_are_taken_as_they_are():
    image, weight, (gamma, beta, _, _, eps), grad = made((2, 8, 6, 5), True, torch.float32)
    half = [t.bfloat16() for t in (weight, gamma, beta)]
    wide = [t.double() for t in half]
    for view in (torch.cat([image, image], 1)[:, 3:], image.contiguous()):
        y, *known = stem.stem(view, *half, None, None, eps)
        assert_near([("y", y)], [("y", plain.stem(image.double(), *wide, None, None, eps)[0])], 1e-5)
        grads = stem.stem_backward(grad, view, *half, *known, eps, True, False)
        assert [t.dtype for t in grads] == [torch.float32, *[torch.bfloat16] * 3]


def test_what_the_kernels_do_not_know_is_left_to_plain_pytorch(emulated, monkeypatch):
    """An image of one colour, an empty batch, too many pixels; an image without a window is torch's error."""
    image, weight, norm, _ = made((2, 8, 4, 4), False, torch.float32)
    assert stem.stem(image[:, :1], weight[:, :1], *norm)[0].shape == (2, 8, 2, 2)
    with pytest.raises(RuntimeError):
        stem.stem(image[:, :, :1], weight, *norm)
    monkeypatch.setattr(trunk, "MOST_PIXELS", 31)
    assert torch.equal(stem.stem(image, weight, *norm)[0], plain.stem(image, weight, *norm)[0])
    assert not emulated.launches


def image_statistics():
    image, *_ = made((1, 8, 40, 30), True, torch.float32)
    got = stem.moments(image)
    mean, covariance = plain.moments(image)
    torch.testing.assert_close(got, torch.cat([mean, covariance.flatten()]))


def backward(shape, batch):
    image, weight, norm, grad = made(shape, False, torch.float32)
    args = grad, image, weight, *norm, batch, True
    got, wanted = (module.stem_backward(*args) for module in (stem, plain))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


BUGS = [
    ("__syncthreads();\n    if (threadIdx.y < rows)", "if (threadIdx.y < rows)", image_statistics),
    ("(threadIdx.x != k || !cell.has(k))", "(threadIdx.x != k)", lambda: backward((1, 8, 3, 5), False)),
    ("sum[product++][0] += distance[i] *", "sum[product++][0] += distance[0] *", image_statistics),
    ("centre[i] = to_accumulator(image[i])", "centre[i] = 0", image_statistics),
    ("+ about[i] * of_shift) * scale", ") * scale", lambda: backward((2, 8, 6, 5), True)),
    ("total[product++] / pixels - total[i]", "total[product++] / pixels + total[i]", image_statistics),
    ("found.which == k ? g *", "found.which >= k ? g *", lambda: backward((2, 8, 6, 5), False)),
]


@pytest.mark.parametrize(("old", "new", "test"), BUGS)
def test_seeded_bugs_are_found(emulated, old, new, test):
    test()
    with emulated.mutated(stem.SOURCE, old, new), pytest.raises((AssertionError, KernelError)):
        test()
