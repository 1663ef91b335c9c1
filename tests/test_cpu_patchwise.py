"""Patchwise attention in C++ is the plain one: at every size, with any number of threads."""

import random as dice

import pytest
import torch

from sancli.ops.cpu import library
from sancli.ops.cpu import patchwise as compiled
from sancli.ops.reference import patchwise as plain

pytestmark = pytest.mark.skipif(not library.state().kernels, reason=str(library.state()))

STATISTICS = [(True, True), (False, False), (True, False), (False, True)]
# (images, R, G, M, height, width, K): more images than lanes, a last group that is not full, rows that are no
# whole vectors, several tiles and parts of a map, maps smaller than the reach, channels of all remainders.
SHAPES = [
    (1, 4, 2, 16, 1, 1, 7), (2, 4, 2, 16, 1, 2, 7), (3, 4, 2, 16, 2, 3, 7), (17, 4, 2, 16, 3, 3, 7),
    (33, 2, 1, 8, 2, 2, 3), (21, 3, 3, 9, 6, 7, 5), (1, 5, 2, 6, 20, 40, 1), (8, 16, 8, 64, 14, 13, 7),
    (2, 50, 17, 17, 9, 5, 3), (1, 4, 2, 16, 70, 3, 3), (5, 1, 1, 1, 40, 41, 9),
]  # fmt: skip


def given(shape, batch1, batch2, dtype):
    """Inputs as slices of one merged tensor, the parameters, and a gradient of the output."""
    n, r, g, m, h, w, k = shape
    made, related = torch.Generator().manual_seed(0), r * (k * k + 1)

    def normal(*size):
        return torch.randn(*size, generator=made, dtype=torch.float64)

    merged = (1 + 2 * normal(n, 2 * r + m, h, w)).to(dtype).contiguous(memory_format=torch.channels_last)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    norms = [
        [
            1 + 0.2 * normal(c),
            0.3 * normal(c),
            *((normal(c), 0.5 + normal(c) ** 2) if not batch else (None, None)),
        ]
        for c, batch in ((related, batch1), (g, batch2))
    ]
    weights = [normal(g, related) / related**0.5, normal(k * k * g, g) / g**0.5, 0.1 * normal(k * k * g)]
    grad = normal(n, m, h, w).to(dtype)
    typed = [[None if x is None else x.to(real) for x in norm] for norm in norms]
    return merged.split([r, r, m], 1), typed, [x.to(real) for x in weights], grad, k


def run(module, inputs, norms, weights, grad, k):
    """Output, statistics and z, and all gradients."""
    (gamma1, beta1, *given1), (gamma2, beta2, *given2) = norms
    weight1, *last = weights
    batch1, batch2 = given1[0] is None, given2[0] is None
    out, mean1, var1, mean2, var2, z = module.patchwise_attention(
        *inputs, gamma1, beta1, *given1, 1e-5, weight1, gamma2, beta2, *given2, 1e-5, *last, k
    )
    grads = module.patchwise_attention_backward(
        grad, *inputs, gamma1, beta1, mean1, var1, 1e-5, batch1, weight1,
        gamma2, beta2, mean2, var2, 1e-5, batch2, *last, z, k,
    )  # fmt: skip
    return out, mean1, var1, mean2, var2, z, *grads


def assert_near(got, wanted, share):
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        scale = b.double().abs().max().clamp(min=1e-2)
        assert (a.double() - b.double()).abs().max() <= share * scale, i


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("batch1", "batch2"), STATISTICS)
def test_every_result_is_that_of_plain_pytorch(shape, batch1, batch2):
    case = given(shape, batch1, batch2, torch.float64)
    assert_near(run(compiled, *case), run(plain, *case), 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_maps_are_read_and_written_as_they_are(shape):
    """Held to the same bfloat16 inputs in float32: only z, out and the gradients of maps are rounded."""
    inputs, norms, weights, grad, k = given(shape, False, False, torch.bfloat16)
    got = run(compiled, inputs, norms, weights, grad, k)
    wanted = run(plain, [x.float() for x in inputs], norms, weights, grad.float(), k)
    assert {x.dtype for x in (got[0], *got[5:9])} == {torch.bfloat16}
    assert_near([got[0], got[5]], [wanted[0], wanted[5]], 2e-2)


@pytest.mark.parametrize(
    "shape", [(8, 4, 2, 16, 20, 21, 3), (17, 8, 4, 32, 14, 14, 7), (3, 32, 16, 128, 7, 7, 7)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(shape, dtype):
    case, before = given(shape, True, True, dtype), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run(compiled, *case)
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            many = run(compiled, *case)
            assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True)), threads
    finally:
        torch.set_num_threads(before)


def fuzz(cases, seed):
    pick = dice.Random(seed)
    for _ in range(cases):
        g, k = pick.randint(1, 20), pick.choice([1, 3, 5, 7, 9, 11])
        shape = (
            pick.randint(1, 40),
            pick.randint(1, 40),
            g,
            g * pick.randint(1, 12),
            pick.randint(1, 24),
            pick.randint(1, 24),
            k,
        )
        if shape[0] * shape[4] * shape[5] * shape[1] * k * k > 2e6 or shape[0] * shape[4] * shape[5] == 1:
            continue
        case = given(shape, pick.random() < 0.5, pick.random() < 0.5, torch.float64)
        assert_near(run(compiled, *case), run(plain, *case), 1e-7)


def test_random_shapes():
    fuzz(20, seed=0)


@pytest.mark.slow
def test_many_random_shapes():
    fuzz(2000, seed=1)


def test_what_is_not_a_number_stays_so():
    """A ReLU that swallowed NaN would hide a broken network."""
    inputs, norms, weights, grad, k = given((2, 4, 2, 16, 5, 6, 3), False, False, torch.float32)
    inputs[1][0, 1, 2, 2] = float("nan")
    out = run(compiled, inputs, norms, weights, grad, k)[0]
    assert out[0, :, 1:4, 1:4].isnan().all()
    assert not out[1].isnan().any()


def test_maps_of_different_types_are_left_to_plain_pytorch():
    """One word says how all maps are stored: taken at it, a float32 key would be read as bfloat16."""
    (query, key, value), *others = given((2, 4, 2, 16, 5, 6, 3), False, False, torch.float32)
    mixed = (query.bfloat16(), key, value), *others
    assert_near(run(compiled, *mixed), run(plain, *mixed), 0)
