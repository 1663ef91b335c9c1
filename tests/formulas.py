"""The paper's formulas, written twice for the tests: as loops over single numbers, and with unfold.

Nothing here is taken from the package. Shapes as in sancli/ops.
"""

import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F


@functools.cache
def reflect(i, size):
    """numpy's own reflection of one index."""
    return int(np.pad(np.arange(size), (16, 16), mode="reflect")[i + 16])


def footprint(y, x, height, width, kernel_size):
    """The pixels of a footprint, row by row."""
    reach = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return [(reflect(y + dy, height), reflect(x + dx, width)) for dy, dx in itertools.product(reach, reach)]


def aggregate_by_loops(value, weight, kernel_size):
    n, c, h, w = value.shape
    value, weight = value.detach().numpy(), weight.detach().numpy()
    out = np.zeros(value.shape)
    for b, ch, y, x in itertools.product(range(n), range(c), range(h), range(w)):
        for o, (i, j) in enumerate(footprint(y, x, h, w, kernel_size)):
            out[b, ch, y, x] += weight[b, o, ch % weight.shape[2], y, x] * value[b, ch, i, j]
    return torch.from_numpy(out)


def unfold(x, kernel_size):
    """[N, C, K * K, H, W]: every pixel's footprint."""
    h, w = x.shape[2:]
    reach = kernel_size // 2
    rows = [reflect(i, h) for i in range(-reach, h + reach)]
    columns = [reflect(i, w) for i in range(-reach, w + reach)]
    wide = F.unfold(x[:, :, rows][..., columns], kernel_size)
    return wide.view(len(x), x.shape[1], kernel_size**2, h, w)


def aggregate(value, weight, kernel_size):
    """`weight` [N, K * K, G, H, W]."""
    n, c, h, w = value.shape
    groups = weight.shape[2]
    wide = unfold(value, kernel_size).view(n, c // groups, groups, kernel_size**2, h, w)
    return (wide * weight.transpose(1, 2)[:, None]).sum(3).view(n, c, h, w)


def batch_norm(x, norm):
    """Of [N, C, ...], by the batch where `norm` holds no statistics; divides by the number of values."""
    gamma, beta, mean, var, eps = norm
    if mean is None:
        dims = [d for d in range(x.dim()) if d != 1]
        mean, var = x.mean(dims), x.var(dims, correction=0)
    shape = (1, -1) + (1,) * (x.dim() - 2)
    y = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt() * gamma.view(shape) + beta.view(shape)
    return y, mean, var


def mapping(relation, norm1, weight1, norm2, weight2, bias2):
    """BatchNorm, ReLU, linear, BatchNorm, ReLU, linear over the channels of [N, C, ...]."""
    y, *statistics1 = batch_norm(relation, norm1)
    z = torch.einsum("nc...,oc->no...", y.relu(), weight1)
    h, *statistics2 = batch_norm(z, norm2)
    bias = bias2.view((1, -1) + (1,) * (z.dim() - 2))
    return torch.einsum("nc...,oc->no...", h.relu(), weight2) + bias, statistics1, statistics2


def patchwise(query, key, value, *, norm1, weight1, norm2, weight2, bias2, kernel_size):
    relation = torch.cat([query, unfold(key, kernel_size).flatten(1, 2)], 1)
    weight, *statistics = mapping(relation, norm1, weight1, norm2, weight2, bias2)
    weight = weight.unflatten(1, (-1, kernel_size**2)).transpose(1, 2)
    return aggregate(value, weight, kernel_size), *statistics


def pairwise(query, key, value, place, *, sign, norm1, weight1, norm2, weight2, bias2, kernel_size):
    compared = query[:, :, None] + sign * unfold(key, kernel_size)
    position = (place[:, :, None] - unfold(place, kernel_size)).expand(len(query), -1, -1, -1, -1)
    logits, *statistics = mapping(torch.cat([compared, position], 1), norm1, weight1, norm2, weight2, bias2)
    return aggregate(value, logits.softmax(2).transpose(1, 2), kernel_size), *statistics


# N, H, W, kernel size: not square; wider than the map; bouncing more than once; one pixel; no image to itself
MAPS = [(2, 4, 5, 3), (1, 3, 3, 7), (2, 2, 3, 7), (3, 1, 2, 7), (2, 1, 1, 7), (1, 9, 8, 7), (2, 6, 1, 5)]


# Of opcheck's tests, those of schema and shapes: autograd stands outside the operators.
RULES = ("test_schema", "test_faketensor")


def random(*shape, seed=0, dtype=torch.float64, grad=True):
    rand = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=rand, dtype=torch.float64).to(dtype).requires_grad_(grad)


def norm(channels, *, batch, seed=0, dtype=torch.float64):
    """A BatchNorm with one gamma of 0, and a negative one."""
    gamma, beta, mean = (random(channels, seed=seed + i, grad=False) for i in range(3))
    gamma[0], gamma[-1] = 0, -1.5
    var = random(channels, seed=seed + 3, grad=False).exp()
    gamma, beta = (x.to(dtype).requires_grad_() for x in (gamma, beta))
    return gamma, beta, None if batch else mean, None if batch else var, 1e-5


def tensors(*args):
    """Those that want a gradient, from nested tuples and dicts."""
    for arg in args:
        if isinstance(arg, torch.Tensor) and arg.requires_grad:
            yield arg
        elif isinstance(arg, (tuple, list)):
            yield from tensors(*arg)
        elif isinstance(arg, dict):
            yield from tensors(*arg.values())


def gradients(function, *args, **kwargs):
    """Outputs, and gradients of a fixed random sum of the first of them."""
    outputs = function(*args, **kwargs)
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    seed = random(*first.shape, seed=9, grad=False).to(first)
    return outputs, torch.autograd.grad(first, list(tensors(args, kwargs)), seed, allow_unused=True)


def assert_same(ours, theirs, args, kwargs, **tolerance):
    """Outputs, statistics and every gradient of two implementations agree."""
    got, got_gradients = gradients(ours, *args, **kwargs)
    wanted, wanted_gradients = gradients(theirs, *args, **kwargs)
    flat_got, flat_wanted = (torch.utils._pytree.tree_leaves(x) for x in (got, wanted))
    for a, b in zip(flat_got, flat_wanted, strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    for a, b in zip(got_gradients, wanted_gradients, strict=True):
        zero = torch.zeros(()) if b is None else torch.zeros_like(b)
        torch.testing.assert_close(a, zero if b is None else b, **tolerance)
