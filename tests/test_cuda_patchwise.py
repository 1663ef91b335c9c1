"""Patchwise attention in CUDA, run on the CPU, is the plain one; fast kernels are the naive ones."""

import pytest
import torch
from test_cpu_patchwise import assert_near, given, run

from sancli.ops.cuda import patchwise as cuda
from sancli.ops.cuda.generation import choice, mma, naive, tiled
from sancli.ops.cuda.generation.relation import Relation
from sancli.ops.norm import Affine
from sancli.ops.reference import patchwise as plain

# (images, R, G, M, height, width, K)
NAIVE = [
    (3, 3, 3, 9, 4, 5, 3), (1, 4, 2, 16, 1, 1, 7), (2, 4, 2, 16, 1, 2, 7), (3, 4, 2, 16, 2, 3, 7),
    (2, 5, 1, 2, 3, 3, 7),
]  # fmt: skip
TILED = [
    (2, 4, 2, 16, 5, 17, 3), (1, 16, 8, 64, 9, 5, 7), (1, 8, 4, 8, 4, 4, 7), (2, 16, 2, 4, 8, 9, 5),
    (1, 4, 8, 8, 2, 2, 3),
]  # fmt: skip
MMA = [(1, 16, 8, 64, 9, 5, 7), (2, 32, 16, 16, 4, 11, 7), (1, 64, 64, 64, 3, 9, 5), (1, 16, 24, 24, 2, 2, 3)]


@pytest.mark.parametrize("shape", NAIVE + TILED)
@pytest.mark.parametrize(("batch1", "batch2"), [(True, True), (False, False)])
def test_every_result_is_that_of_plain_pytorch(emulated, shape, batch1, batch2):
    case = given(shape, batch1, batch2, torch.float64)
    assert_near(run(cuda, *case), run(plain, *case), 1e-9)


def stages(way, shape, dtype, computed_in=None):
    """z, gradient of key and of query with and without what comes through the statistics, and sums."""
    (query, key, _), (norm1, _), (weight1, *_), _, k = given(shape, False, False, dtype)
    n, r, g, _, h, w, _ = shape
    made = torch.Generator().manual_seed(1)
    grad = torch.randn(n, g, h, w, generator=made, dtype=torch.float64).to(dtype)
    fields = torch.randn(2, h, w, r, generator=made, dtype=torch.float64)
    to = computed_in or dtype
    query, key, grad = (x.to(to).contiguous(memory_format=torch.channels_last) if computed_in else x for x in (query, key, grad))
    norm1 = [x.double() if to == torch.float64 else x for x in norm1]
    relation = Relation.of(query, key, Affine(*norm1, 1e-5), weight1, k)
    out = [way.generate(relation)]
    for seen in relation.parts():
        out += [
            way.map_gradient(seen, grad, None, None),
            way.map_gradient(seen, grad, *fields.to(relation.norm.dtype)),
            way.sums(seen, grad).sum(0),
        ]
    return out


SHARE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("shape", MMA)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensor_cores(emulated, shape, dtype):
    got = stages(mma, shape, dtype)
    assert_near(got, stages(naive, shape, dtype, torch.float64), SHARE[dtype])
