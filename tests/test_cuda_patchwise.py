"""Patchwise attention in CUDA, run on the CPU, is the plain one; its fast kernels are its naive ones."""

import formulas
import pytest
import torch
from emulator import KernelError
from test_cpu_patchwise import assert_near, given, run
from test_patchwise import make_inputs, sliced

from sancli.model.san import LAYERS
from sancli.ops import patchwise_attention
from sancli.ops.cuda import loader
from sancli.ops.cuda import patchwise as cuda
from sancli.ops.cuda.attend import apart, fused, small
from sancli.ops.cuda.attend import choice as attend
from sancli.ops.cuda.generation import choice as generation
from sancli.ops.cuda.generation import mma, naive, norm, tiled
from sancli.ops.cuda.generation.relation import Relation, by_offset
from sancli.ops.norm import Affine
from sancli.ops.reference import patchwise as plain

slow = pytest.mark.slow

# Largest difference to the naive kernels in float64, on the same numbers, as a share of the largest value.
SHARE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,  # sums of up to some thousand products
    torch.float16: 4e-3,  # the weights and the output are rounded to 11 bits; sums are in float
    torch.bfloat16: 2e-2,  # to 8 bits
}

# Images, R, G, M, height, width, K.
ANY = [
    (3, 3, 3, 9, 4, 5, 3), (1, 4, 2, 16, 1, 1, 7), (2, 4, 2, 16, 1, 2, 7), (3, 4, 2, 16, 2, 3, 7),
    (2, 5, 1, 2, 3, 3, 7),
]  # fmt: skip
TILES = [(2, 4, 2, 16, 5, 17, 3), (1, 4, 2, 16, 18, 2, 3)]
MORE_TILES = [
    (1, 8, 4, 32, 2, 2, 3),
    (1, 16, 8, 64, 9, 5, 7),
    (1, 8, 4, 8, 4, 4, 7),
    (2, 16, 2, 4, 8, 9, 5),
    (1, 4, 8, 8, 2, 2, 3),
]


@pytest.mark.parametrize("shape", [*ANY, *TILES, *(pytest.param(x, marks=slow) for x in MORE_TILES)])
@pytest.mark.parametrize(
    ("batch1", "batch2"), [(True, True), (False, False), pytest.param(True, False, marks=slow)]
)
def test_every_result_is_that_of_plain_pytorch(emulated, shape, batch1, batch2):
    case = given(shape, batch1, batch2, torch.float64)
    with emulated.rehearsal():
        run(cuda, *case)
    assert_near(run(cuda, *case), run(plain, *case), 1e-9)


@pytest.mark.parametrize(
    "shape", [(2, 32, 16, 128, 9, 5, 3), pytest.param((1, 16, 8, 64, 9, 11, 7), marks=slow)]
)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, *(pytest.param(x, marks=slow) for x in (torch.float16, torch.float32))]
)
@pytest.mark.parametrize("batch", [pytest.param(True, marks=slow), False])
def test_every_type_is_near_to_float64(emulated, shape, dtype, batch):
    """Of a hidden layer above 0: near 0, its rounding decides what relu lets through."""
    inputs, norms, weights, grad, k = given(shape, batch, batch, dtype)
    norms[1][1] += 5
    with emulated.rehearsal():
        run(cuda, inputs, norms, weights, grad, k)
    got, like = (run(way, inputs, norms, weights, grad, k) for way in (cuda, plain))
    norms = [[None if x is None else x.double() for x in norm] for norm in norms]
    wide = [x.double() for x in inputs], norms, [x.double() for x in weights], grad.double(), k
    for i, (a, b, c) in enumerate(zip(got, run(plain, *wide), like, strict=True)):
        assert a.dtype == c.dtype, i
        assert a.shape == c.shape, i
        assert (a.double() - b).norm() <= SHARE[dtype] * b.norm(), i


@pytest.mark.parametrize("batch", [True, False])
def test_autograd_gives_the_gradients_of_the_unfold_formula(emulated_operators, batch):
    merged, parameters = make_inputs(2, 4, 5, 3, batch1=batch, batch2=batch)
    tolerance = {"rtol": 1e-7, "atol": 1e-8}
    args = (merged,), parameters
    formulas.assert_same(sliced(patchwise_attention), sliced(formulas.patchwise), *args, **tolerance)
    assert any("relation_fold" in kernel for kernel, *_ in emulated_operators.launches)


def test_it_keeps_the_rules_of_torch(emulated_operators):
    inputs, (norm1, norm2), (weight1, *last), grad, k = given(
        (1, 32, 16, 128, 3, 4, 3), True, True, torch.bfloat16
    )
    args = *inputs, *norm1, 1e-5, weight1, *norm2, 1e-5, *last, k
    operator, backward = torch.ops.san.patchwise_attention, torch.ops.san.patchwise_attention_backward
    torch.library.opcheck(operator.default, args, test_utils=formulas.RULES)
    _, mean1, var1, mean2, var2, z = operator(*args)
    first, second = (*norm1[:2], mean1, var1, 1e-5, True), (*norm2[:2], mean2, var2, 1e-5, True)
    args = grad, *inputs, *first, weight1, *second, *last, z, k
    torch.library.opcheck(backward.default, args, test_utils=formulas.RULES)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=slow)])
def test_statistics_lose_nothing_to_a_large_mean(emulated, dtype):
    (query, key, _), _, _, _, k = given((3, 4, 2, 16, 6, 5, 3), True, True, dtype)
    query, key = query + 256, key - 256
    mean, var, moments = norm.statistics(query, key, None, None, k)
    norm.fold(Affine(torch.ones(40), torch.zeros(40), mean, var, 1e-5), key, moments, k)
    assert_near([mean, var], plain.relation_statistics(query.double(), key.double(), None, None, k), 5e-6)


def generation_case(shape, dtype, computed_in=None):
    """A relation, a gradient of z, and what a map's gradient is to be added to; maps are slices."""
    (query, key, _), (norm, _), (weight, *_), _, k = given(shape, False, False, dtype)
    n, r, g, _, h, w, _ = shape
    made = torch.Generator().manual_seed(1)
    grad = torch.randn(n, g, h, w, generator=made, dtype=torch.float64).to(dtype)
    fields = torch.randn(2, h, w, r, generator=made, dtype=torch.float64)
    if computed_in:
        query, key, grad, *norm = (x.to(computed_in) for x in (query, key, grad, *norm))
    folded = by_offset(torch.stack(Affine(*norm, 1e-5).fold()), r).contiguous()  # [O, R, 2]
    relation = Relation(query, key, folded, weight.to(folded.dtype), k)
    return relation, grad, fields.to(folded.dtype)


def generated(way, *case):
    """z; the gradients of key and of query, and the sums."""
    relation, grad, fields = generation_case(*case)
    key, query = relation.parts()
    return (
        way.generate(relation),
        way.map_gradient(key, grad, None, None),
        way.map_gradient(query, grad, *fields),
        *(way.sums(seen, grad).sum(0) for seen in (key, query)),
    )


@pytest.mark.parametrize(
    ("way", "shape", "dtype"),
    [
        (tiled, (1, 4, 2, 0, 5, 17, 3), torch.bfloat16),
        (mma, (2, 32, 16, 0, 5, 17, 3), torch.bfloat16),
        *(
            pytest.param(*case, marks=slow)
            for case in (
                (naive, (2, 3, 5, 0, 4, 5, 5), torch.float16),
                (naive, (2, 3, 5, 0, 4, 5, 5), torch.float32),
                (tiled, (1, 4, 2, 0, 20, 17, 3), torch.float16),
                (tiled, (2, 32, 16, 0, 9, 11, 7), torch.float32),
                (tiled, (1, 16, 8, 0, 4, 4, 7), torch.float64),
                (mma, (1, 16, 8, 0, 9, 5, 7), torch.bfloat16),
                (mma, (1, 32, 16, 0, 4, 11, 7), torch.float16),
                (mma, (1, 64, 32, 0, 14, 7, 7), torch.bfloat16),
                (mma, (1, 128, 64, 0, 7, 7, 7), torch.float16),
                (mma, (1, 48, 24, 0, 3, 9, 5), torch.bfloat16),
            )
        ),
    ],
)
def test_weights_are_generated_as_naively(emulated, way, shape, dtype):
    with emulated.rehearsal():
        generated(way, shape, dtype)
    assert_near(generated(way, shape, dtype), generated(naive, shape, dtype, torch.float64), SHARE[dtype])


def attended_case(shape, dtype, computed_in=None):
    """hidden, value, weight, bias and K; and a gradient of the output. Maps are slices."""
    n, g, h, w, k = shape
    made = torch.Generator().manual_seed(2)

    def normal(*size):
        return torch.randn(*size, generator=made, dtype=torch.float64)

    merged = normal(n, 24 * g, h, w).to(dtype).to(computed_in or dtype)
    merged = merged.contiguous(memory_format=torch.channels_last)
    value, hidden, grad = merged[:, : 8 * g], merged[:, 8 * g : 9 * g], merged[:, 16 * g :]
    weight, bias = normal(g * k * k, g) / g**0.5, 0.3 * normal(g * k * k)
    return (hidden, value, weight, bias, k), grad


def attended(way, *case):
    """Output, and gradients of hidden, value, weight and bias."""
    given, grad = attended_case(*case)
    return way.attend(*given), *way.attend_backward(grad, *given)


@pytest.mark.parametrize(
    ("way", "shape", "dtype"),
    [
        (fused, (2, 16, 9, 6, 3), torch.bfloat16),
        (small, (2, 2, 18, 5, 3), torch.bfloat16),
        *(
            pytest.param(*case, marks=slow)
            for case in (
                (fused, (2, 8, 9, 5, 7), torch.bfloat16),
                (fused, (1, 16, 4, 12, 7), torch.float16),
                (fused, (1, 32, 14, 14, 7), torch.bfloat16),
                (fused, (2, 64, 7, 7, 7), torch.float16),
                (fused, (1, 8, 3, 17, 5), torch.float16),
                (small, (1, 2, 2, 17, 3), torch.float64),
                (small, (1, 2, 17, 2, 3), torch.float32),
                (small, (3, 1, 5, 6, 5), torch.float16),
            )
        ),
    ],
)
def test_weights_never_in_memory_are_those_in_memory(emulated, way, shape, dtype):
    with emulated.rehearsal():
        attended(way, shape, dtype)
    assert_near(attended(way, shape, dtype), attended(apart, shape, dtype, torch.float64), SHARE[dtype])


@slow
def test_the_products_of_older_cards_are_the_same(emulated):
    """Of sm_75, which has only half of a product's depth at a time."""
    case = (1, 16, 8, 0, 5, 6, 3), torch.float16
    wanted = mma.generate(generation_case(*case)[0])
    with emulated.mutated("generate_mma.cu", "#if __CUDA_ARCH__ < 800\ntemplate", "#if true\ntemplate"):
        assert_near([mma.generate(generation_case(*case)[0])], [wanted], SHARE[torch.float16])


def test_slices_that_are_not_aligned_are_copied(emulated):
    relation, grad, _ = generation_case((2, 32, 16, 1, 5, 6, 3), torch.bfloat16)
    assert relation.key.stride(3) % 8
    key, _ = relation.parts()
    got = mma.generate(relation), mma.map_gradient(key, grad, None, None), mma.sums(key, grad).sum(0)
    relation, grad, _ = generation_case((2, 32, 16, 1, 5, 6, 3), torch.bfloat16, torch.float64)
    key, _ = relation.parts()
    wanted = naive.generate(relation), naive.map_gradient(key, grad, None, None), naive.sums(key, grad).sum(0)
    assert_near(got, wanted, SHARE[torch.bfloat16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_layers_of_the_networks_take_fast_kernels(emulated, dtype):
    stages = [(64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7)]
    assert len(LAYERS["san15"]) == len(stages)
    for stage, (planes, side) in enumerate(stages):
        kernel_size, groups = 7 if stage else 3, planes // 32
        key = torch.empty(1, planes // 16, side, side, dtype=dtype)
        hidden, value = key.new_empty(1, groups, side, side), key.new_empty(1, planes // 4, side, side)
        on_tensor_cores = stage and dtype != torch.float32
        assert generation.choose(key, groups, kernel_size) is (mma if on_tensor_cores else tiled)
        expected = (fused if on_tensor_cores else apart) if stage else small
        assert attend.choose(hidden, value, kernel_size) is expected


def test_cards_without_bfloat16_products_take_the_ordinary_units(emulated, monkeypatch):
    monkeypatch.setattr(loader, "capability", lambda device: (7, 5))
    assert generation.choose(torch.empty(1, 16, 9, 9, dtype=torch.bfloat16), 8, 7) is tiled
    assert generation.choose(torch.empty(1, 16, 9, 9, dtype=torch.float16), 8, 7) is mma


def test_footprints_that_the_fast_kernels_do_not_know_are_left_to_the_others(emulated, monkeypatch):
    monkeypatch.setattr(loader, "shared_limit", lambda device: 227 << 10)
    key, hidden, value = (torch.empty(1, planes, 40, 40, dtype=torch.bfloat16) for planes in (16, 8, 64))
    assert generation.choose(key, 8, 31) is mma
    assert generation.choose(key, 8, 33) is not mma  # a warp for each of its columns is more than a block has
    assert attend.choose(hidden, value, 5) is fused
    assert (
        attend.choose(hidden, value, 4) is apart
    )  # offsets are taken in pairs, of an even number and one more


def generate_only():
    return generated_part(lambda way, relation, grad, fields: way.generate(relation))


def map_only():
    return generated_part(
        lambda way, relation, grad, fields: way.map_gradient(relation.parts()[0], grad, *fields)
    )


def generated_part(part):
    shape = (1, 32, 16, 0, 9, 6, 3)
    got = part(mma, *generation_case(shape, torch.bfloat16))
    return got, part(naive, *generation_case(shape, torch.bfloat16, torch.float64))


ATTENDED = (1, 16, 9, 6, 3), torch.bfloat16


def attended_forward():
    given, wide = attended_case(*ATTENDED)[0], attended_case(*ATTENDED, torch.float64)[0]
    return fused.attend(*given), apart.attend(*wide)


def attended_part(index):
    return attended(fused, *ATTENDED)[index], attended(apart, *ATTENDED, torch.float64)[index]


@pytest.mark.parametrize(
    ("source", "old", "new", "compared"),
    [
        ("generate_mma.cu", "__syncthreads();\n    for (int o = part;", "for (int o = part;", generate_only),
        ("generate_mma.cu", "x = reflect(x, width);", "x = x < 0 ? 0 : width - 1;", generate_only),
        ("generate_mma.cu", "2 * (size - 1) - i) - o + REACH", "2 * size - 1 - i) - o + REACH", map_only),
        ("attend_hidden.cu", "__syncthreads();  // the other warp", "// the other", lambda: attended_part(1)),
        ("attend_hidden.cu", "s < static_cast<int>(gridDim.x)", "true", lambda: attended_part(3)),
        ("attend.cu", "if (y >= height || x >= width) continue;", "", attended_forward),
        ("generate_mma.cu", "o <= K * K; o +=", "o < K * K; o +=", generate_only),
        ("generate_mma.cu", "there ? tile +", "true ? tile +", map_only),
        ("attend.cu", "<= width - 2 :", "<= width - 1 :", lambda: attended_part(2)),
    ],
)  # fmt: skip
def test_a_bug_is_seen(emulated, monkeypatch, source, old, new, compared):
    monkeypatch.setattr(fused, "BLOCKS", 1)  # of two squares
    got, wanted = compared()
    assert_near([got], [wanted], SHARE[torch.bfloat16])
    with emulated.mutated(source, old, new):
        try:
            got, _ = compared()
        except KernelError:
            return  # a race, or a write outside of a tensor
    assert not (got.double() - wanted).abs().max() <= SHARE[torch.bfloat16] * wanted.abs().max()
