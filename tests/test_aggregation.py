"""san::aggregation is the weighted sum of section 3.1."""

import formulas
import pytest
import torch

from sancli.ops import aggregation

pytestmark = pytest.mark.usefixtures("implementation")


def make_inputs(n, h, w, kernel_size, *, channels=4, groups=2, dtype=torch.float64):
    value = formulas.random(n, channels, h, w, dtype=dtype)
    weight = formulas.random(n, kernel_size**2, groups, h, w, dtype=dtype)
    return value, weight, kernel_size


@pytest.mark.parametrize("shape", formulas.MAPS)
def test_aggregation_is_its_definition(shape):
    args = make_inputs(*shape, channels=2, groups=1 + shape[0] % 2)
    torch.testing.assert_close(aggregation(*args), formulas.aggregate_by_loops(*args))


@pytest.mark.parametrize("shape", formulas.MAPS)
def test_its_gradients_are_those_of_the_unfold_formula(shape):
    formulas.assert_same(aggregation, formulas.aggregate, make_inputs(*shape), {})


@pytest.mark.parametrize(("channels", "groups"), [(3, 3), (6, 1), (2, 2)])
def test_any_sharing_of_weights_works(channels, groups):
    args = make_inputs(1, 3, 4, 3, channels=channels, groups=groups)
    torch.testing.assert_close(aggregation(*args), formulas.aggregate_by_loops(*args))


def test_backward_is_the_derivative():
    assert torch.autograd.gradcheck(aggregation, make_inputs(1, 3, 4, 3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_keeps_the_rules_of_torch(layout):
    value, weight, kernel_size = make_inputs(2, 3, 4, 3, dtype=torch.float32)
    value = value.detach().contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(
        torch.ops.san.aggregation.default, (value, weight, kernel_size), test_utils=formulas.RULES
    )


def test_inputs_need_not_be_contiguous():
    value, weight, kernel_size = make_inputs(2, 4, 3, 3)
    turned = (
        value.transpose(2, 3).contiguous().transpose(2, 3),
        weight[:, :, :, :, ::2].repeat_interleave(2, 4),
    )
    args = turned[0], turned[1][..., :3], kernel_size
    formulas.assert_same(aggregation, formulas.aggregate, args, {})


def test_a_second_derivative_is_refused_in_words():
    value, weight, kernel_size = make_inputs(1, 3, 3, 3)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(aggregation(value, weight, kernel_size).sum(), value, create_graph=True)
