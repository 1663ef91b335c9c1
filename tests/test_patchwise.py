"""san::patchwise_attention is concatenation, mapping and aggregation, as section 3.2 has them."""

import itertools

import formulas
import pytest
import torch
from formulas import norm, random

from sancli.ops import Norm, patchwise_attention
from sancli.ops.reference import windows

pytestmark = pytest.mark.usefixtures("implementation")

R, M, G = 3, 8, 2


def make_inputs(n, h, w, kernel_size, *, batch1=True, batch2=True, dtype=torch.float64):
    """Query, key and value as slices of one merged tensor, and the parameters of the mapping."""
    merged = random(n, 2 * R + M, h, w, dtype=dtype).detach().to(memory_format=torch.channels_last)
    related, offsets = R * (kernel_size**2 + 1), kernel_size**2
    parameters = {
        "norm1": Norm(*norm(related, batch=batch1)),
        "weight1": random(G, related, dtype=dtype),
        "norm2": Norm(*norm(G, batch=batch2, seed=5)),
        "weight2": random(G * offsets, G, dtype=dtype),
        "bias2": random(G * offsets, dtype=dtype),
        "kernel_size": kernel_size,
    }
    return merged.requires_grad_(), parameters


def sliced(function):
    return lambda merged, **parameters: function(*merged.split([R, R, M], 1), **parameters)


@pytest.mark.parametrize("shape", [shape for shape in formulas.MAPS if shape[0] * shape[1] * shape[2] > 1])
@pytest.mark.parametrize(("batch1", "batch2"), [(True, True), (False, False), (True, False)])
def test_output_statistics_and_gradients_are_those_of_the_unfold_formula(shape, batch1, batch2):
    merged, parameters = make_inputs(*shape, batch1=batch1, batch2=batch2)
    formulas.assert_same(
        sliced(patchwise_attention), sliced(formulas.patchwise), (merged,), parameters, rtol=1e-7, atol=1e-8
    )


def test_many_tiles_give_what_one_gives(monkeypatch):
    """Of 5 positions each, so that the last is shorter and lines are cut in the middle."""
    merged, parameters = make_inputs(2, 5, 4, 3)
    widest = R * 10
    monkeypatch.setattr(windows, "TILE", 5 * widest)
    formulas.assert_same(
        sliced(patchwise_attention), sliced(formulas.patchwise), (merged,), parameters, rtol=1e-6, atol=1e-7
    )


def test_the_relation_is_the_one_of_the_paper_number_by_number():
    """One output, from the formula of section 3.2 by hand, with the published order of channels."""
    k, (h, w) = 3, (3, 4)
    merged, p = make_inputs(2, h, w, k, batch1=False, batch2=False)
    query, key, value = merged.detach().split([R, R, M], 1)
    out = patchwise_attention(query, key, value, **p)[0]
    for n, (y, x), channel in itertools.product(range(2), [(0, 0), (2, 3), (1, 2)], range(M)):
        pixels = formulas.footprint(y, x, h, w, k)
        relation = [query[n, r, y, x] for r in range(R)]
        relation += [key[n, r, i, j] for r in range(R) for i, j in pixels]
        hidden = normalised_relu(torch.stack(relation), p["norm1"])
        hidden = normalised_relu(p["weight1"] @ hidden, p["norm2"])
        weights = (p["weight2"] @ hidden + p["bias2"]).view(G, k * k)
        expected = sum(weights[channel % G, o] * value[n, channel, i, j] for o, (i, j) in enumerate(pixels))
        torch.testing.assert_close(out[n, channel, y, x], expected)


def normalised_relu(x, norm):
    return ((x - norm.mean) / (norm.var + norm.eps).sqrt() * norm.gamma + norm.beta).clamp(min=0)


@pytest.mark.parametrize("batch", [True, False])
def test_backward_is_the_derivative(batch):
    merged, parameters = make_inputs(2, 2, 3, 3, batch1=batch, batch2=batch)

    def function(merged, weight1, weight2, bias2):
        given = {**parameters, "weight1": weight1, "weight2": weight2, "bias2": bias2}
        return sliced(patchwise_attention)(merged, **given)[0]

    args = merged, parameters["weight1"], parameters["weight2"], parameters["bias2"]
    assert torch.autograd.gradcheck(function, args, fast_mode=True)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_the_rules_of_torch(batch, dtype):
    merged, p = make_inputs(2, 3, 4, 3, batch1=batch, batch2=batch, dtype=dtype)
    norms = [
        [x.float() if isinstance(x, torch.Tensor) else x for x in p[name]] for name in ("norm1", "norm2")
    ]
    args = *merged.split([R, R, M], 1), *norms[0], p["weight1"], *norms[1], p["weight2"], p["bias2"], 3
    args = [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
    operator, backward = torch.ops.san.patchwise_attention, torch.ops.san.patchwise_attention_backward
    torch.library.opcheck(operator.default, args, test_utils=formulas.RULES)
    out, mean1, var1, mean2, var2, z = operator(*args)
    gamma1, beta1, _, _, eps1, weight1, gamma2, beta2, _, _, eps2, weight2, bias2, k = args[3:]
    first, second = (gamma1, beta1, mean1, var1, eps1, batch), (gamma2, beta2, mean2, var2, eps2, batch)
    args = out, *args[:3], *first, weight1, *second, weight2, bias2, z, k
    torch.library.opcheck(backward.default, args, test_utils=formulas.RULES)


# Largest difference to float64 on inputs of about 1, as a share of the largest value.
TOLERANCE = {
    torch.float32: 2e-5,  # sums of about a hundred products in fp32
    torch.float16: 1e-2,  # the output, z and the inputs are rounded to 11 bits, statistics and sums are fp32
    torch.bfloat16: 6e-2,  # the same with 8 bits
}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_type_is_near_float64(dtype):
    merged, parameters = make_inputs(2, 5, 4, 3, dtype=dtype)
    wide = {name: x.double() if isinstance(x, torch.Tensor) else x for name, x in parameters.items()}
    got = sliced(patchwise_attention)(merged, **parameters)
    wanted = sliced(formulas.patchwise)(merged.double(), **wide)
    assert got[0].dtype == dtype
    assert got[1][0].dtype == torch.float32
    error = (got[0].double() - wanted[0]).abs().max() / wanted[0].abs().max()
    assert error < TOLERANCE[dtype]
