"""Wrong shapes are refused by the public operators: a kernel would read beside the tensors."""

import pytest
import torch

from sancli import ops
from sancli.ops.norm import Norm

N, R, M, G, K, H, W = 2, 4, 16, 2, 3, 5, 6
A = K * K
PATCH, PAIR = R * (A + 1), R + 2


def norm(channels):
    zeros, ones = torch.zeros(channels), torch.ones(channels)
    return Norm(gamma=ones, beta=zeros, mean=zeros, var=ones, eps=1e-5)


def inputs():
    """Of each operator, what goes together."""
    q, k, v = torch.randn(N, R, H, W), torch.randn(N, R, H, W), torch.randn(N, M, H, W)
    patch = {"norm1": norm(PATCH), "weight1": torch.randn(G, PATCH), "norm2": norm(G)}
    patch |= {"weight2": torch.randn(G * A, G), "bias2": torch.randn(G * A), "kernel_size": K}
    pair = {"place": torch.randn(1, 2, H, W), "sign": 1, "norm1": norm(PAIR), "weight1": torch.randn(R, PAIR)}
    pair |= {"norm2": norm(R), "weight2": torch.randn(G, R), "bias2": torch.randn(G), "kernel_size": K}
    conv = {"weight": torch.randn(3, M, 1, 1), "bias": torch.randn(3)}
    return {
        "aggregation": {"value": v, "weight": torch.randn(N, A, G, H, W), "kernel_size": K},
        "patchwise_attention": {"query": q, "key": k, "value": v, **patch},
        "pairwise_attention": {"query": q, "key": k, "value": v, **pair},
        "bn_relu_conv1x1": {"x": v, "norm": norm(M), **conv},
        "bn_relu_pool": {"x": v, "norm": norm(M)},
        "norm_relu": {"x": v, "norm": norm(M)},
        "stem": {"image": torch.randn(N, 3, H, W), "weight": torch.randn(M, 3), "norm": norm(M)},
    }


TENSORS = [
    (operator, name)
    for operator, given in inputs().items()
    for name, value in given.items()
    if isinstance(value, torch.Tensor)
]
NORMS = [
    (operator, name)
    for operator, given in inputs().items()
    for name, value in given.items()
    if isinstance(value, Norm)
]


@pytest.mark.parametrize("operator", inputs())
def test_shapes_that_go_together_are_taken(operator):
    getattr(ops, operator)(**inputs()[operator])


@pytest.mark.parametrize(("operator", "name"), TENSORS)
def test_a_tensor_that_is_one_longer_or_lacks_a_dimension_is_refused(operator, name):
    for dimension in range(inputs()[operator][name].ndim):
        given = inputs()[operator]
        if free(operator, name, dimension):
            continue
        given[name] = torch.cat([given[name], given[name].narrow(dimension, 0, 1)], dimension)
        with pytest.raises(ValueError, match="must"):
            getattr(ops, operator)(**given)
    given = inputs()[operator]
    given[name] = given[name][..., 0]
    with pytest.raises(ValueError, match="must"):
        getattr(ops, operator)(**given)


def free(operator, name, dimension):
    """Whether one more is another valid call: a lone map may be of any size but for its channels."""
    return dimension != 1 and (operator, name) in {
        ("bn_relu_conv1x1", "x"), ("bn_relu_pool", "x"), ("norm_relu", "x"), ("stem", "image"),
    }  # fmt: skip


@pytest.mark.parametrize(("operator", "name"), NORMS)
@pytest.mark.parametrize("field", ["gamma", "beta", "mean", "var"])
def test_a_norm_of_other_channels_is_refused(operator, name, field):
    given = inputs()[operator]
    given[name] = given[name]._replace(**{field: torch.ones(len(given[name].gamma) + 1)})
    with pytest.raises(ValueError, match=rf"{name}\.{field} is"):
        getattr(ops, operator)(**given)


def test_the_error_names_the_tensor_what_it_is_and_what_it_must_be():
    given = inputs()["aggregation"] | {"weight": torch.randn(N, A, G, H, W + 1)}
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- the whole text is held
        ops.aggregation(**given)
    said = "weight is [2, 9, 2, 5, 7], and must be [N, K * K, G, H, W]: [2, 9, 2, 5, 6]."
    assert str(error.value) == said
