"""Pairwise attention in CUDA, run on the CPU, is the plain one in float64: naive kernels and tiles."""

import functools

import pytest
import torch
from emulator import KernelError, the_emulator
from test_cpu_pairwise import assert_near, make_maps, make_parameters, real, wide

from sancli.model import san
from sancli.ops.cuda import loader
from sancli.ops.cuda.pairs.sizes import GROUPS, Tiles, choose
from sancli.ops.cuda.pairwise import pairwise_attention, pairwise_attention_backward
from sancli.ops.reference import pairwise as plain

HALVES = [torch.float16, torch.bfloat16]

# Images, height, width, K; R, G, channels that share a weight. An even R would be more kernels to compile.
NAIVE = [
    (1, 1, 1, 7, 3, 3, 8),
    (3, 1, 2, 7, 1, 1, 1),
    (2, 2, 3, 7, 3, 2, 3),
    (1, 3, 3, 7, 5, 3, 2),
    (1, 9, 8, 5, 5, 2, 3),
    (2, 6, 1, 5, 9, 2, 11),
]
# For the tiles: several blocks, of which the last is not full and holds pixels of two images; less than one.
MAPS = [(3, 5, 6, 3), (1, 3, 3, 7), (2, 1, 2, 7)]
MORE_MAPS = [(2, 1, 1, 5), (1, 9, 8, 7)]
LAYERS = {planes: (planes, groups, 8) for planes, groups in GROUPS.items()}
PASSES = {"pair_attend", "pair_moments", "pair_query_backward", "pair_key_backward"}

# Largest difference to float64, as a share of a result's largest number; 16 bits: where only gradients round.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# Length of the difference, as a share of the result's, where rounding also decides what a ReLU lets through.
LENGTH = {torch.float16: 5e-2, torch.bfloat16: 0.25}


@pytest.fixture(autouse=True)
def compiled_ahead(emulated):
    rehearse()


@functools.cache
def rehearse():
    """Compiles what the tests will run: all cores, once."""
    with the_emulator().rehearsal():
        coarse((*MAPS[0], *LAYERS[16]), torch.bfloat16)
        normal((*MAPS[0], *LAYERS[16]), torch.bfloat16)
        normal((*MAPS[0], *LAYERS[4]), torch.float32)
        normal(NAIVE[0], torch.float64)


def both(maps, grad, sign, parameters, **batch):
    """Our results and those of plain PyTorch in float64."""
    ours = results((pairwise_attention, pairwise_attention_backward), maps, grad, sign, parameters, **batch)
    reference = plain.pairwise_attention, plain.pairwise_attention_backward
    return ours, results(reference, wide(maps), grad.double(), sign, wide(parameters), **batch)


def results(implementation, maps, grad, sign, parameters, *, batch1, batch2):
    """`batch`: whether the gradients go through the statistics, wherever those are from."""
    forward, backward = implementation
    out, mean1, var1, mean2, var2, logsumexp = forward(*maps, sign, *parameters)
    gamma1, beta1, _, _, eps1, weight1, gamma2, beta2, _, _, eps2, weight2, bias2, k = parameters
    grads = backward(
        grad, *maps, sign, gamma1, beta1, mean1, var1, eps1, batch1, weight1,
        gamma2, beta2, mean2, var2, eps2, batch2, weight2, bias2, logsumexp, k,
    )  # fmt: skip
    return out, mean1, var1, mean2, var2, logsumexp, *grads


def normal(shape, dtype, *, batch1=True, batch2=True, sign=-1):
    *maps, grad, generator = make_maps(shape, dtype)
    parameters = make_parameters(shape, generator, batch1=batch1, batch2=batch2, dtype=real(dtype))
    return both(maps, grad, sign, parameters, batch1=batch1, batch2=batch2)


def coarse(shape, dtype, *, sign=-1):
    """Of so few numbers that 16 bits hold u and the hidden layer as they are: no ReLU decides otherwise.

    Statistics are given; gradients go through norm2's all the same, as they are linear in them.
    """
    generator = torch.Generator().manual_seed(sum(shape))
    n, h, w, k, planes, weights, shares = shape

    def draw(*size, largest=1, step=1.0, dtype=dtype):
        return (torch.randint(-largest, largest + 1, size, generator=generator) * step).to(dtype)

    def number(*size, **how):
        return draw(*size, **how, dtype=real(dtype))

    def norm(channels):
        ones = torch.ones(channels, dtype=real(dtype))
        return (
            number(channels, largest=2, step=0.5),
            number(channels, step=0.5),
            number(channels),
            0.5 * ones,
            0.5,
        )

    merged = draw(n, 2 * planes + weights * shares, h, w, largest=2)
    maps = merged.contiguous(memory_format=torch.channels_last).split([planes, planes, weights * shares], 1)
    place, grad = number(1, 2, h, w), draw(n, weights * shares, h, w, largest=2)
    weight1, weight2 = number(planes, planes + 2, step=0.25), number(weights, planes, step=0.125)
    parameters = *norm(planes + 2), weight1, *norm(planes), weight2, number(weights), k
    return both((*maps, place), grad, sign, parameters, batch1=False, batch2=True)


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", NAIVE)
def test_naive_kernels(emulated, shape, dtype):
    assert_near(*normal(shape, dtype), TOLERANCE[dtype])
    assert {"pair_attend_naive", "pair_key_backward_naive"} <= launched(emulated)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_naive_kernels_of_16_bits(emulated, dtype):
    for shape in [*NAIVE[2:4], (1, 3, 4, 5, 2, 2, 3)]:
        assert_near(*coarse(shape, dtype), TOLERANCE[dtype])


of_maps = pytest.mark.parametrize(
    "maps", [*MAPS, *(pytest.param(x, marks=pytest.mark.slow) for x in MORE_MAPS)]
)


def launched(emulated):
    return {kernel.partition("<")[0] for kernel, *_ in emulated.launches}


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("batch1", "batch2"), [(True, False), (False, True), (False, False)])
def test_each_norm_takes_statistics_of_the_batch_or_given_ones(emulated, batch1, batch2, sign):
    for shape, dtype in [(NAIVE[2], torch.float64), ((2, 4, 5, 3, *LAYERS[4]), torch.float32)]:
        case = normal(shape, dtype, batch1=batch1, batch2=batch2, sign=sign)
        assert_near(*case, TOLERANCE[dtype])


@of_maps
def test_tiles_of_float(emulated, maps):
    assert_near(*normal((*maps, *LAYERS[4]), torch.float32), TOLERANCE[torch.float32])
    assert launched(emulated) >= PASSES


@of_maps
def test_tiles_on_the_tensor_cores(emulated, maps):
    shape, dtype = (*maps, *LAYERS[16]), torch.bfloat16
    for sign in (1,) if maps[3] == 7 else (-1, 1):
        assert_near(*coarse(shape, dtype, sign=sign), TOLERANCE[dtype])
    assert launched(emulated) >= PASSES


def test_any_numbers_on_the_tensor_cores(emulated):
    dtype = torch.bfloat16
    got, wanted = normal((3, 5, 6, 3, *LAYERS[16]), dtype)
    assert_near(got[1:5], wanted[1:5], TOLERANCE[dtype])
    assert_near_in_length(got[:-1], wanted[:-1], LENGTH[dtype])


def assert_near_in_length(got, wanted, share):
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert (a.double() - b).norm() <= share * b.norm(), i


@pytest.mark.slow
@pytest.mark.parametrize("planes", GROUPS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_every_layer_of_the_network(emulated, planes, dtype):
    for maps in [(2, 3, 5, 7), (1, 7, 7, 3)]:
        if dtype == torch.float32:
            assert_near(*normal((*maps, *LAYERS[planes]), dtype), 2 * TOLERANCE[dtype])
        else:
            assert_near(*coarse((*maps, *LAYERS[planes]), dtype), 2 * TOLERANCE[dtype])
            got, wanted = normal((*maps, *LAYERS[planes]), dtype)
            assert_near_in_length(got[:-1], wanted[:-1], LENGTH[dtype])
    assert launched(emulated) >= PASSES


def test_the_layers_are_those_of_the_network():
    pairwise = san.SAN("pairwise", "subtraction", (1, 1, 1, 1, 1), 10)
    layers = [m.planes[::2] for m in pairwise.modules() if isinstance(m, san.PairwiseAttention)]
    assert [(planes, values // 8) for planes, values in layers] == list(GROUPS.items())


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("planes", GROUPS)
@pytest.mark.parametrize("limit", [64 << 10, 99 << 10, 227 << 10])
def test_every_layer_has_fast_kernels_on_every_card(monkeypatch, planes, dtype, limit):
    monkeypatch.setattr(loader, "shared_limit", lambda device: limit)
    monkeypatch.setattr(loader, "capability", lambda device: (8, 0))
    merged = torch.empty(1, 6 * planes, 4, 4, dtype=dtype).contiguous(memory_format=torch.channels_last)
    tiles, reason = choose(merged.split([planes, planes, 4 * planes], 1), GROUPS[planes])
    assert isinstance(tiles, Tiles), reason
    assert tiles.most_shared <= limit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float64}, "float64"),
        ({"planes": 5}, "R = 5"),
        ({"offset": 1}, "16 bytes"),
        ({"dtype": torch.bfloat16, "capability": (7, 5)}, "bfloat16"),
        ({"limit": 16 << 10, "planes": 128}, "shared memory"),
    ],
)
def test_what_has_no_fast_kernels_says_why(monkeypatch, change, reason):
    case = {
        "dtype": torch.float32,
        "planes": 16,
        "offset": 0,
        "capability": (9, 0),
        "limit": 64 << 10,
    } | change
    monkeypatch.setattr(loader, "shared_limit", lambda device: case["limit"])
    monkeypatch.setattr(loader, "capability", lambda device: case["capability"])
    planes, offset = case["planes"], case["offset"]
    merged = torch.empty(1, 6 * planes + offset, 4, 4, dtype=case["dtype"])
    merged = merged.contiguous(memory_format=torch.channels_last)[:, offset:]
    tiles, why = choose(merged.split([planes, planes, 4 * planes], 1), planes // 2)
    assert tiles is None
    assert reason in why


def test_precision_is_kept_far_from_zero(emulated):
    """Query and key lie around 100, and differ by about 1."""
    shape = (2, 5, 4, 3, *LAYERS[4])
    *maps, grad, generator = make_maps(shape, torch.float32)
    maps = [maps[0] + 100, maps[1] + 100, *maps[2:]]
    parameters = make_parameters(shape, generator, batch1=True, batch2=True, dtype=torch.float32)
    assert_near(*both(maps, grad, -1, parameters, batch1=True, batch2=True), 2e-4)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(("layer", "dtype"), [(LAYERS[4], torch.float32), ((3, 2, 2), torch.float64)])
def test_nan_is_never_turned_into_a_number(emulated, which, layer, dtype):
    shape = (2, 4, 5, 3, *layer)
    *maps, _, generator = make_maps(shape, dtype)
    parameters = make_parameters(shape, generator, batch1=False, batch2=False, dtype=dtype)
    maps[which] = maps[which].clone()
    maps[which][0, 0, 0, 0] = torch.nan
    got, wanted = (f(*maps, -1, *parameters)[0] for f in (pairwise_attention, plain.pairwise_attention))
    assert wanted.isnan().any()
    assert torch.equal(got.isnan(), wanted.isnan())


def test_large_logits_do_not_overflow_the_softmax(emulated):
    shape = (2, 4, 5, 3, *LAYERS[4])
    *maps, grad, generator = make_maps(shape, torch.float32)
    parameters = list(make_parameters(shape, generator, batch1=True, batch2=True, dtype=torch.float32))
    parameters[11] = parameters[11] * 1e4
    got, _ = both(maps, grad, -1, parameters, batch1=True, batch2=True)
    assert all(x.isfinite().all() for x in got)


BUGS = {
    "a barrier is missing before u is read": (
        "pairwise_forward.cu",
        "relate<L, false>(of, sides, norm, owners, o, pairs, u);\n    __syncthreads();",
        "relate<L, false>(of, sides, norm, owners, o, pairs, u);",
    ),
    "a mirrored pixel is not seen": (
        "pairwise_backward.cu", "(to >= 1 && from + to <= reach) +", "",
    ),
    "partners are overwritten while they are read": (
        "pairwise_forward.cu", "partners + o / L::OFFSETS % 2 * ROWS", "partners",
    ),
    "what was summed before keeps its old scale": ("pairwise_forward.cu", "if (o) sums.scale(carry);", ""),
    "a pair that is two counts once": (
        "pairwise_backward.cu", "times * exponential<T>", "exponential<T>",
    ),
    "a dead owner counts": (
        "pairwise_backward.cu", "owners.live(p) && offset < sides.offsets()", "offset < sides.offsets()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bugs_are_found(emulated, bug):
    with emulated.mutated(*BUGS[bug]), pytest.raises((KernelError, AssertionError)):
        assert_near(*coarse((3, 5, 6, 3, *LAYERS[16]), torch.bfloat16), TOLERANCE[torch.bfloat16])
