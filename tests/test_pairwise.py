"""san::pairwise_attention is comparison, mapping, softmax and aggregation, as section 3.1 has them."""

import itertools

import formulas
import pytest
import torch
from formulas import norm, random

from sancli.ops import Norm, pairwise_attention
from sancli.ops.reference import windows

pytestmark = pytest.mark.usefixtures("implementation")

R, M, G = 4, 8, 2


def make_inputs(n, h, w, kernel_size, *, sign=-1, batch1=True, batch2=True, dtype=torch.float64):
    merged = random(n, 2 * R + M, h, w, dtype=dtype).detach().to(memory_format=torch.channels_last)
    place = random(1, 2, h, w, dtype=dtype)
    parameters = {
        "sign": sign,
        "norm1": Norm(*norm(R + 2, batch=batch1)),
        "weight1": random(R, R + 2, dtype=dtype),
        "norm2": Norm(*norm(R, batch=batch2, seed=5)),
        "weight2": random(G, R, dtype=dtype),
        "bias2": random(G, dtype=dtype),
        "kernel_size": kernel_size,
    }
    return (merged.requires_grad_(), place), parameters


def sliced(function):
    return lambda merged, place, **rest: function(*merged.split([R, R, M], 1), place, **rest)


@pytest.mark.parametrize("shape", formulas.MAPS)
@pytest.mark.parametrize(("batch1", "batch2"), [(True, True), (False, False), (False, True)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_output_statistics_and_gradients_are_those_of_the_unfold_formula(shape, batch1, batch2, sign):
    args, parameters = make_inputs(*shape, sign=sign, batch1=batch1, batch2=batch2)
    formulas.assert_same(
        sliced(pairwise_attention), sliced(formulas.pairwise), args, parameters, rtol=1e-6, atol=1e-7
    )


def test_many_tiles_give_what_one_gives(monkeypatch):
    """Of 5 positions each, so that the last is shorter and lines are cut in the middle."""
    args, parameters = make_inputs(2, 5, 4, 3)
    widest = (R + 2) * 9
    monkeypatch.setattr(windows, "TILE", 5 * widest)
    formulas.assert_same(
        sliced(pairwise_attention), sliced(formulas.pairwise), args, parameters, rtol=1e-6, atol=1e-7
    )


def test_the_relation_is_the_one_of_the_paper_number_by_number():
    k, (h, w) = 3, (3, 4)
    (merged, place), p = make_inputs(2, h, w, k, batch1=False, batch2=False)
    query, key, value = merged.detach().split([R, R, M], 1)
    out = pairwise_attention(query, key, value, place, **p)[0]
    for n, (y, x), channel in itertools.product(range(2), [(0, 0), (2, 3), (1, 2)], range(M)):
        logits = []
        for i, j in formulas.footprint(y, x, h, w, k):
            relation = [query[n, r, y, x] - key[n, r, i, j] for r in range(R)]
            relation += [place[0, d, y, x] - place[0, d, i, j] for d in range(2)]
            hidden = normalised_relu(torch.stack(relation), p["norm1"])
            hidden = normalised_relu(p["weight1"] @ hidden, p["norm2"])
            logits.append((p["weight2"] @ hidden + p["bias2"])[channel % G])
        weights = torch.stack(logits).softmax(0)
        pixels = formulas.footprint(y, x, h, w, k)
        expected = sum(weights[o] * value[n, channel, i, j] for o, (i, j) in enumerate(pixels))
        torch.testing.assert_close(out[n, channel, y, x], expected)


def normalised_relu(x, norm):
    return ((x - norm.mean) / (norm.var + norm.eps).sqrt() * norm.gamma + norm.beta).clamp(min=0)


@pytest.mark.parametrize("batch", [True, False])
def test_backward_is_the_derivative(batch):
    args, parameters = make_inputs(2, 2, 3, 3, batch1=batch, batch2=batch)

    def function(merged, place, weight1, weight2):
        given = {**parameters, "weight1": weight1, "weight2": weight2}
        return sliced(pairwise_attention)(merged, place, **given)[0]

    args = *args, parameters["weight1"], parameters["weight2"]
    assert torch.autograd.gradcheck(function, args, fast_mode=True)


def test_large_logits_do_not_overflow_the_softmax():
    args, parameters = make_inputs(1, 4, 4, 3, dtype=torch.float32)
    parameters["weight2"] = parameters["weight2"].detach() * 1e4
    out = sliced(pairwise_attention)(*args, **parameters)[0]
    assert out.isfinite().all()


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_the_rules_of_torch(batch, dtype):
    (merged, place), p = make_inputs(2, 3, 4, 3, batch1=batch, batch2=batch, dtype=dtype)
    norms = [
        [x.float() if isinstance(x, torch.Tensor) else x for x in p[name]] for name in ("norm1", "norm2")
    ]
    inputs = *merged.split([R, R, M], 1), place, -1
    args = *inputs, *norms[0], p["weight1"], *norms[1], p["weight2"], p["bias2"], 3
    args = [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
    operator, backward = torch.ops.san.pairwise_attention, torch.ops.san.pairwise_attention_backward
    torch.library.opcheck(operator.default, args, test_utils=formulas.RULES)
    out, mean1, var1, mean2, var2, logsumexp = operator(*args)
    gamma1, beta1, _, _, eps1, weight1, gamma2, beta2, _, _, eps2, weight2, bias2, k = args[5:]
    first, second = (gamma1, beta1, mean1, var1, eps1, batch), (gamma2, beta2, mean2, var2, eps2, batch)
    args = out, *args[:5], *first, weight1, *second, weight2, bias2, logsumexp, k
    torch.library.opcheck(backward.default, args, test_utils=formulas.RULES)


# As in test_patchwise.py; the softmax bounds the weights, so 16 bits lose less.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_type_is_near_float64(dtype):
    args, parameters = make_inputs(2, 5, 4, 3, dtype=dtype)
    wide = {name: x.double() if isinstance(x, torch.Tensor) else x for name, x in parameters.items()}
    got = sliced(pairwise_attention)(*args, **parameters)
    wanted = sliced(formulas.pairwise)(*(x.double() for x in args), **wide)
    assert got[0].dtype == dtype
    error = (got[0].double() - wanted[0]).abs().max() / wanted[0].abs().max()
    assert error < TOLERANCE[dtype]
