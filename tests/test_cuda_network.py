"""Blocks of the networks, all of whose operators run as CUDA kernels: as near to float64 as plain PyTorch."""

import copy
import warnings
from contextlib import contextmanager

import pytest
import torch

from sancli.model.san import Bottleneck
from sancli.ops import registry

pytestmark = pytest.mark.slow  # a minute to compile

RELATIONS = {"patchwise": "concatenation", "pairwise": "subtraction"}
PLANES = {64: 3, 256: 7}  # of the first two stages, and their footprints
# What a difference may be beside three times that of plain PyTorch in the same types: another order of sums.
ROUNDING = {None: 1e-5, torch.bfloat16: 2e-2}


def block(attention, planes):
    torch.manual_seed(0)
    made = Bottleneck(attention, RELATIONS[attention], planes, PLANES[planes])
    for parameter in made.parameters():  # norms that do something
        torch.nn.init.normal_(parameter, std=0.2)
    return made.to(memory_format=torch.channels_last)


@contextmanager
def plain_pytorch():
    """In the place of whatever runs the operators."""
    library = torch.library.Library("san", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was another one
        for name in registry.implemented("CUDA"):
            library.impl(name, registry.by_itself(registry.definition(name)), "CPU")
    yield
    library._destroy()


def run(network, x, seed, dtype=None):
    """The output, gradients of the input and all parameters, and running statistics."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        y = network(x)
    gradients = torch.autograd.grad((y * seed.to(y)).sum(), [x, *network.parameters()])
    buffers = {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    names = "y", "x", *(name for name, _ in network.named_parameters())
    return dict(zip(names, (y.detach(), *gradients), strict=True)) | buffers


def differences(got, exact):
    """Of each tensor, as a share of its largest value; those that are 0 but for rounding, of the others'.

    A bias of the place is one: it goes out of differences, and what is left of its gradient is what sums of
    thousands of numbers have lost.
    """
    floor = max(float(b.abs().max()) for b in exact.values()) * 1e-2
    return {
        name: float((got[name].double() - b).abs().max()) / max(float(b.abs().max()), floor)
        for name, b in exact.items()
    }


@pytest.mark.parametrize("attention", RELATIONS)
@pytest.mark.parametrize("planes", PLANES)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("training", [True, False])
def test_a_block_in_cuda_is_as_near_to_float64_as_plain_pytorch(
    emulated_operators, attention, planes, dtype, training
):
    network = block(attention, planes).train(training)
    x, seed = torch.randn(2, planes, 9, 7), torch.randn(2, planes, 9, 7)
    x = x.contiguous(memory_format=torch.channels_last)
    with plain_pytorch():
        exact = run(copy.deepcopy(network).double(), x.double(), seed.double())
        plain = differences(run(copy.deepcopy(network), x, seed, dtype), exact)
    with emulated_operators.rehearsal():
        run(copy.deepcopy(network), x, seed, dtype)
    emulated_operators.launches.clear()
    for name, difference in differences(run(network, x, seed, dtype), exact).items():
        assert difference <= 3 * plain[name] + ROUNDING[dtype], name
    assert len({kernel for kernel, *_ in emulated_operators.launches}) >= 10
