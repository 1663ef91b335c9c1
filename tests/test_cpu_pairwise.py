"""Pairwise attention and aggregation in C++ are the plain versions in float64, in every shape and type."""

import random

import pytest
import torch

from sancli.ops.cpu import library
from sancli.ops.cpu.aggregation import aggregation, aggregation_backward
from sancli.ops.cpu.pairwise import pairwise_attention, pairwise_attention_backward
from sancli.ops.layout import laid_out
from sancli.ops.reference import aggregation as plain_aggregation
from sancli.ops.reference import pairwise as plain

# Of the largest number of a tensor. Masks of ReLU are the same in every type for these seeds; gradients of 32
# bits are sums over thousands of footprints.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 1e-2}

# Images, height, width, K; R, G, shares: smaller than the footprint, lanes that no image fills, cut rows.
SHAPES = [
    (1, 1, 1, 7, 4, 2, 8),
    (3, 1, 2, 7, 1, 1, 1),
    (2, 2, 3, 3, 3, 2, 3),
    (17, 3, 3, 7, 5, 3, 2),
    (1, 5, 9, 5, 8, 4, 8),
    (3, 5, 9, 7, 9, 2, 11),
    (17, 2, 5, 5, 2, 2, 8),
    (2, 4, 20, 9, 6, 1, 4),
    (8, 7, 7, 3, 19, 7, 4),
    (1, 40, 1, 3, 4, 3, 9),
]


@pytest.fixture(autouse=True, scope="module")
def compiled():
    if library.state().kernels is None:
        pytest.skip(library.state().why)


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_maps(shape, dtype, seed=0):
    """Query, key and value, slices of one tensor; place; and a gradient of the output."""
    n, h, w, _, planes, weights, shares = shape
    generator = torch.Generator().manual_seed(seed + sum(shape))
    values = weights * shares
    merged = draw(generator, n, 2 * planes + values, h, w, dtype=dtype)
    merged = merged.contiguous(memory_format=torch.channels_last)
    grad = draw(generator, n, values, h, w, dtype=dtype)
    place = draw(generator, 1, 2, h, w, dtype=real(dtype))
    return *merged.split([planes, planes, values], 1), place, grad, generator


def real(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_parameters(shape, generator, *, batch1, batch2, dtype):
    *_, kernel_size, planes, weights, _ = shape

    def norm(channels, batch):
        gamma, beta, mean = (draw(generator, channels, dtype=dtype) for _ in range(3))
        gamma[0] = 0
        var = draw(generator, channels, dtype=dtype).exp()
        return gamma, beta, None if batch else mean, None if batch else var, 1e-5

    weight1 = draw(generator, planes, planes + 2, dtype=dtype)
    weight2, bias2 = draw(generator, weights, planes, dtype=dtype), draw(generator, weights, dtype=dtype)
    return *norm(planes + 2, batch1), weight1, *norm(planes, batch2), weight2, bias2, kernel_size


def wide(args):
    return [x.double() if isinstance(x, torch.Tensor) else x for x in args]


def run(forward, backward, maps, grad, sign, parameters):
    """Outputs and gradients, as autograd would ask for them."""
    out, mean1, var1, mean2, var2, logsumexp = forward(*maps, sign, *parameters)
    gamma1, beta1, given1, _, eps1, weight1, gamma2, beta2, given2, _, eps2, weight2, bias2, k = parameters
    grads = backward(
        grad, *maps, sign, gamma1, beta1, mean1, var1, eps1, given1 is None, weight1,
        gamma2, beta2, mean2, var2, eps2, given2 is None, weight2, bias2, logsumexp, k,
    )  # fmt: skip
    return out, mean1, var1, mean2, var2, logsumexp, *grads


def assert_near(got, wanted, tolerance):
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.shape == b.shape
        error = (a.double() - b).abs().max()
        # a gradient that is 0 in truth (of a weight before a norm) is what rounding leaves of its terms
        assert error <= tolerance * max(1, b.abs().max()), f"result {i}: {error} of {b.abs().max()}"


def assert_as_plain(shape, dtype, *, batch1, batch2, sign, seed=0):
    *maps, grad, generator = make_maps(shape, dtype, seed)
    parameters = make_parameters(shape, generator, batch1=batch1, batch2=batch2, dtype=real(dtype))
    got = run(pairwise_attention, pairwise_attention_backward, maps, grad, sign, parameters)
    reference = plain.pairwise_attention, plain.pairwise_attention_backward
    wanted = run(*reference, wide(maps), grad.double(), sign, wide(parameters))
    assert got[0].dtype == dtype
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    assert_near(got, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_are_those_of_the_plain_version(shape, dtype):
    assert_as_plain(shape, dtype, batch1=True, batch2=True, sign=-1)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("batch1", "batch2"), [(True, False), (False, True), (False, False)])
def test_each_norm_takes_statistics_of_the_batch_or_given_ones(batch1, batch2, sign):
    assert_as_plain((3, 5, 4, 3, 4, 2, 8), torch.float32, batch1=batch1, batch2=batch2, sign=sign)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_footprint_may_be_one_pixel(dtype):
    """With given statistics: the place has a variance of 0 there, and rounding would be all that is seen."""
    assert_as_plain((17, 2, 5, 1, 2, 2, 8), dtype, batch1=False, batch2=False, sign=-1)


@pytest.mark.parametrize("seed", range(12))
def test_any_shape_works(seed):
    draw = random.Random(seed)
    shape = (
        draw.choice([1, 2, 5, 9, 16, 18]),
        draw.randint(1, 12),
        draw.randint(1, 12),
        draw.choice([3, 5, 7]),
        draw.randint(1, 12),
        draw.randint(1, 9),
        draw.randint(1, 10),
    )
    assert_as_plain(shape, torch.float64, batch1=True, batch2=draw.random() < 0.5, sign=1, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", library.build.INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_set_of_instructions_gives_the_same(instructions, dtype, monkeypatch):
    sets = list(library.build.INSTRUCTION_SETS)
    if sets.index(instructions) < sets.index(library.instruction_set()):
        pytest.skip("not in this processor")
    monkeypatch.setattr(library, "instruction_set", lambda: instructions)
    for shape in SHAPES:
        assert_as_plain(shape, dtype, batch1=True, batch2=True, sign=-1)


@pytest.mark.parametrize("shape", [(3, 5, 9, 7, 9, 2, 4), (8, 14, 14, 3, 4, 2, 8)])
def test_the_number_of_threads_changes_no_bit(shape):
    *maps, grad, generator = make_maps(shape, torch.float32)
    parameters = make_parameters(shape, generator, batch1=True, batch2=True, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(run(pairwise_attention, pairwise_attention_backward, maps, grad, -1, parameters))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_precision_is_kept_far_from_zero():
    """Query and key lie around 100, and differ by about 1."""
    shape = (4, 9, 9, 7, 4, 2, 8)
    *maps, grad, generator = make_maps(shape, torch.float32)
    maps = [maps[0] + 100, maps[1] + 100, *maps[2:]]
    parameters = make_parameters(shape, generator, batch1=True, batch2=True, dtype=torch.float32)
    got = run(pairwise_attention, pairwise_attention_backward, maps, grad, -1, parameters)
    reference = plain.pairwise_attention, plain.pairwise_attention_backward
    wanted = run(*reference, wide(maps), grad.double(), -1, wide(parameters))
    assert_near(got, wanted, 2e-4)


@pytest.mark.parametrize("which", range(4))
def test_nan_is_never_turned_into_a_number(which):
    shape = (2, 4, 5, 3, 4, 2, 8)
    *maps, _, generator = make_maps(shape, torch.float32)
    parameters = make_parameters(shape, generator, batch1=False, batch2=False, dtype=torch.float32)
    maps[which] = maps[which].clone()
    maps[which][0, 0, 0, 0] = torch.nan
    got, wanted = (f(*maps, -1, *parameters)[0] for f in (pairwise_attention, plain.pairwise_attention))
    assert wanted.isnan().any()
    assert torch.equal(got.isnan(), wanted.isnan())


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_softmax_of_large_logits_is_that_of_the_plain_version(scale):
    shape = (2, 5, 5, 3, 4, 2, 8)
    *maps, grad, generator = make_maps(shape, torch.float64)
    parameters = list(make_parameters(shape, generator, batch1=True, batch2=True, dtype=torch.float64))
    parameters[11] = parameters[11] * scale
    got = pairwise_attention(*maps, -1, *parameters)
    torch.testing.assert_close(got, plain.pairwise_attention(*maps, -1, *parameters), rtol=1e-6, atol=1e-6)
    assert (
        run(pairwise_attention, pairwise_attention_backward, maps, grad, -1, parameters)[6].isfinite().all()
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [True, False])
def test_aggregation_is_that_of_the_plain_version(shape, dtype, channels_last):
    n, h, w, k, _, groups, _ = shape
    *_, value, _, grad, generator = make_maps(shape, dtype)
    if channels_last:
        weight = draw(generator, n, h, w, k * k, groups, dtype=dtype).permute(0, 3, 4, 1, 2)
    else:
        weight = draw(generator, n, k * k, groups, h, w, dtype=dtype)
    got = aggregation(value, weight, k), *aggregation_backward(grad, value, weight, k)
    given = [x.double() for x in (grad, value, weight)]
    wanted = (
        plain_aggregation.aggregation(*given[1:], k),
        *plain_aggregation.aggregation_backward(*given, k),
    )
    assert got[2].stride() == torch.empty_like(weight).stride()
    assert_near(got, wanted, TOLERANCE[dtype])


def test_slices_of_channels_are_not_copied_and_everything_else_is():
    maps = torch.randn(3, 10, 5, 7).contiguous(memory_format=torch.channels_last)
    for x, stride in [(maps, 10), (maps[:, 2:5], 10), (maps[:1, 2:5, :1, :1], 3), (maps[:, :, :1, :1], 350)]:
        same, pixel = laid_out(x)
        assert same is x
        assert pixel == stride
    one = torch.randn(1, 10, 5, 7)
    for x in [one, maps[:, :, 1:], maps[:, :, :, 1:], maps[::2], maps[:1].expand(4, -1, -1, -1)]:
        copied, pixel = laid_out(x)
        assert copied.data_ptr() != x.data_ptr()
        assert pixel == 10
        assert torch.equal(copied, x)
