"""Patchwise attention in CUDA, run on the CPU, is the plain one; fast kernels are the naive ones."""

import formulas
import pytest
import torch
from emulator import emulated  # noqa: F401 -- a fixture

from sancli.ops.cuda import patchwise as cuda
from sancli.ops.reference import patchwise as plain
from test_cpu_patchwise import assert_near, given, run

# (images, R, G, M, height, width, K)
NAIVE = [
    (3, 3, 3, 9, 4, 5, 3),
    (1, 4, 2, 16, 1, 1, 7),
    (2, 4, 2, 16, 1, 2, 7),
    (3, 4, 2, 16, 2, 3, 7),
    (2, 5, 1, 2, 3, 3, 7),
]
TILED = [
    (2, 4, 2, 16, 5, 17, 3),
    (1, 16, 8, 64, 9, 5, 7),
    (1, 8, 4, 8, 4, 4, 7),
    (2, 16, 2, 4, 8, 9, 5),
    (1, 4, 8, 8, 2, 2, 3),
]


@pytest.mark.parametrize("shape", NAIVE + TILED)
@pytest.mark.parametrize(("batch1", "batch2"), [(True, True), (False, False)])
def test_every_result_is_that_of_plain_pytorch(emulated, shape, batch1, batch2):
    case = given(shape, batch1, batch2, torch.float64)
    assert_near(run(cuda, *case), run(plain, *case), 1e-9)
