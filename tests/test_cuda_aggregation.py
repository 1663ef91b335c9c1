"""Aggregation in CUDA, run on the CPU, is its definition."""

import formulas
import pytest
import torch

from sancli.ops.cuda import aggregation as cuda

# Largest difference to float64, as a share of the largest value.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def given(shape, dtype, *, groups=2, share=2, merged=3):
    """Value and gradient as slices of wider maps, weights channels last."""
    n, h, w, k = shape
    channels = groups * share
    wide = formulas.random(n, channels + merged, h, w, dtype=dtype, grad=False)
    value = wide.contiguous(memory_format=torch.channels_last)[:, merged:]
    grad = formulas.random(n, channels, h, w, seed=1, dtype=dtype, grad=False)
    weight = formulas.random(n, k * k, groups, h, w, seed=2, dtype=dtype, grad=False)
    return value, weight, grad, k


def wanted(value, weight, grad, kernel_size):
    value, weight = (x.double().requires_grad_() for x in (value, weight))
    out = formulas.aggregate(value, weight, kernel_size)
    return out, *torch.autograd.grad(out, (value, weight), grad.double())


def assert_near(got, wanted, share):
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.shape == b.shape
        assert (a.double() - b.double()).abs().max() <= share * b.double().abs().max(), i


@pytest.mark.parametrize("shape", formulas.MAPS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_aggregation_and_its_gradients(emulated, shape, dtype):
    value, weight, grad, k = case = given(shape, dtype)
    got = cuda.aggregation(value, weight, k), *cuda.aggregation_backward(grad, value, weight, k)
    assert emulated.launches
    assert_near(got, wanted(*case), TOLERANCE[dtype])
