"""Statistics of footprints that are never made."""

import formulas
import pytest
import torch
from formulas import random

from sancli.ops.statistics import (
    sum_statistics,
    sum_statistics_backward,
    window_statistics,
    window_statistics_backward,
)


@pytest.mark.parametrize(("n", "h", "w", "kernel_size"), formulas.MAPS)
def test_statistics_of_shifted_copies_are_those_of_unfold(n, h, w, kernel_size):
    x = 3 + random(n, 2, h, w)
    wide = formulas.unfold(x, kernel_size)  # [N, C, K * K, H, W]
    wanted = wide.mean((0, 3, 4)), wide.var((0, 3, 4), correction=0)
    got = window_statistics(x.detach(), kernel_size)
    torch.testing.assert_close(got, wanted)
    grads = random(2, kernel_size**2, grad=False), random(2, kernel_size**2, seed=1, grad=False)
    (expected,) = torch.autograd.grad(wanted, x, grads)
    torch.testing.assert_close(window_statistics_backward(x.detach(), got[0], *grads), expected)


@pytest.mark.parametrize(("n", "h", "w", "kernel_size"), formulas.MAPS)
def test_statistics_of_sums_are_those_of_unfold(n, h, w, kernel_size):
    a, b = random(n, 2, h, w) - 2, 3 + random(n, 2, h, w, seed=1)
    wide = a[:, :, None] + formulas.unfold(b, kernel_size)
    wanted = wide.mean((0, 2, 3, 4)), wide.var((0, 2, 3, 4), correction=0)
    torch.testing.assert_close(sum_statistics(a.detach(), b.detach(), kernel_size), wanted)
    grads = random(2, grad=False), random(2, seed=1, grad=False)
    expected = torch.autograd.grad(wanted, (a, b), grads)
    torch.testing.assert_close(sum_statistics_backward(a.detach(), b.detach(), kernel_size, *grads), expected)


@pytest.mark.parametrize("offset", [0, 100])
def test_single_precision_loses_little_far_from_zero(offset):
    x = offset + random(4, 3, 12, 10, grad=False)
    wide = formulas.unfold(x, 7)
    mean, var = window_statistics(x.float(), 7)
    torch.testing.assert_close(mean.double(), wide.mean((0, 3, 4)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), wide.var((0, 3, 4), correction=0), rtol=3e-5, atol=0)
