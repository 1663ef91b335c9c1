"""Blocks of the networks, all of whose operators run as CUDA kernels: forward, backward, mixed types."""

import copy

import pytest
import torch

from sancli.model.san import Bottleneck

pytestmark = pytest.mark.slow  # a minute to compile

RELATIONS = {"patchwise": "concatenation", "pairwise": "subtraction"}
PLANES = {64: 3, 256: 7}  # of the first two stages, and their footprints


def block(attention, planes):
    torch.manual_seed(0)
    made = Bottleneck(attention, RELATIONS[attention], planes, PLANES[planes])
    for parameter in made.parameters():  # norms that do something
        torch.nn.init.normal_(parameter, std=0.2)
    return made.to(memory_format=torch.channels_last)


def run(network, x, seed, dtype=None):
    """The output, and gradients of the input and all parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        y = network(x)
    gradients = torch.autograd.grad((y * seed.to(y)).sum(), [x, *network.parameters()])
    return [y, *gradients, *network.buffers()]


def largest_difference(got, wanted):
    """As a share of the largest value; gradients that are 0 but for rounding are held to the others."""
    floor = max(float(b.double().abs().max()) for b in wanted) * 1e-3
    return max(
        float((a.double() - b.double()).abs().max()) / max(float(b.double().abs().max()), floor)
        for a, b in zip(got, wanted, strict=True)
        if a.is_floating_point()
    )


@pytest.mark.parametrize("attention", RELATIONS)
@pytest.mark.parametrize("planes", PLANES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-4), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_is_what_it_is_in_float64(emulated_operators, attention, planes, dtype, tolerance, training):
    network = block(attention, planes).train(training)
    exact = copy.deepcopy(network).double()
    x, seed = torch.randn(2, planes, 9, 7), torch.randn(2, planes, 9, 7)
    x = x.contiguous(memory_format=torch.channels_last)
    with emulated_operators.rehearsal():
        run(copy.deepcopy(network), x, seed, dtype)
    emulated_operators.launches.clear()
    got = run(network, x, seed, dtype)
    kernels = {kernel.partition("<")[0] for kernel, *_ in emulated_operators.launches}
    assert len(kernels) > 5
    assert largest_difference(got, run_exactly(exact, x, seed)) < tolerance


def run_exactly(network, x, seed):
    """In plain PyTorch: the definition."""
    from sancli.ops import registry

    library = torch.library.Library("san", "IMPL")
    for name in registry.implemented("CUDA"):
        library.impl(name, registry.by_itself(registry.definition(name)), "CPU", allow_override=True)
    try:
        return run(network, x.double(), seed.double())
    finally:
        library._destroy()
