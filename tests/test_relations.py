"""The paper's relation functions, each held to loops over single numbers (section 3)."""

import itertools

import formulas
import pytest
import torch
from torch import nn

from sancli.model.relations import RELATIONS
from sancli.model.san import ATTENTIONS, coordinates

C, R, M, K = 6, 2, 8, 3
PAIRWISE = {
    "subtraction": lambda q, k: [a - b for a, b in zip(q, k, strict=True)],
    "summation": lambda q, k: [a + b for a, b in zip(q, k, strict=True)],
    "concatenation": lambda q, k: [*q, *k],
    "hadamard": lambda q, k: [a * b for a, b in zip(q, k, strict=True)],
    "dot-product": lambda q, k: [sum(a * b for a, b in zip(q, k, strict=True))],
}
PATCHWISE = {
    "concatenation": lambda q, ks, _: [*q, *(k[r] for r in range(len(q)) for k in ks)],
    "star-product": lambda q, ks, _: [dot(q, k) for k in ks],
    "clique-product": lambda _, ks, qs: [dot(q, k) for q in qs for k in ks],
}


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def make_layer(attention, relation):
    torch.manual_seed(0)
    layer = ATTENTIONS[attention](C, R, M, 4, K, relation).double()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return layer


def by_loops(layer, attention, relation, x):
    """The layer, with the relation of each pixel made one number at a time."""
    query, key, value = layer.conv1(x), layer.conv2(x), layer.conv3(x)
    (n, _, h, w), place = x.shape, None
    if attention == "pairwise":
        place = layer.conv_p(coordinates(x, x.dtype))[0]
    related = []
    for b, y, x_ in itertools.product(range(n), range(h), range(w)):
        pixels = formulas.footprint(y, x_, h, w, K)
        q, ks = query[b, :, y, x_], [key[b, :, i, j] for i, j in pixels]
        if place is None:
            qs = [query[b, :, i, j] for i, j in pixels]
            related.append(torch.stack(PATCHWISE[relation](q, ks, qs)))
        else:
            there = [place[:, y, x_] - place[:, i, j] for i, j in pixels]
            rows = [torch.stack([*PAIRWISE[relation](q, k), *t]) for k, t in zip(ks, there, strict=True)]
            related.append(torch.stack(rows, 1))
    maps = torch.stack(related).view(n, h * w, len(related[0]), -1)  # [N, H * W, D, K * K or 1]
    weights = layer.conv_w(maps.permute(0, 2, 3, 1))  # [N, G or G * K * K, K * K or 1, H * W]
    weights = weights.softmax(2) if attention == "pairwise" else weights.view(n, -1, K * K, h * w)
    return formulas.aggregate(value, weights.transpose(1, 2).unflatten(3, (h, w)), K)


@pytest.mark.parametrize(("attention", "relation"), [(a, r) for a in RELATIONS for r in RELATIONS[a]])
def test_every_relation_is_its_formula(attention, relation):
    """In training: output, every gradient, running statistics; then the output in evaluation."""
    ours, theirs = make_layer(attention, relation), make_layer(attention, relation)
    x = formulas.random(2, C, 3, 4)
    seed = formulas.random(2, M, 3, 4, seed=7, grad=False)
    outs = ours(x), by_loops(theirs, attention, relation, x)
    torch.testing.assert_close(*outs)
    for out in outs:
        out.backward(seed)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name, rtol=1e-6, atol=1e-7)
    for (name, p), q in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    torch.testing.assert_close(ours.eval()(x), by_loops(theirs.eval(), attention, relation, x))


@pytest.mark.parametrize(("attention", "relation"), [("pairwise", "hadamard"), ("patchwise", "star-product")])
def test_maps_smaller_than_the_footprint_work(attention, relation):
    layer = ATTENTIONS[attention](C, R, M, 4, 7, relation)
    assert layer(torch.randn(2, C, 1, 2)).shape == (2, M, 1, 2)
