"""The operators between the attentions are torch's own layers, one after the other."""

import formulas
import pytest
import torch
import torch.nn.functional as F
from formulas import norm, random

from sancli.ops import Norm, bn_relu_conv1x1, bn_relu_pool, norm_relu, stem

pytestmark = pytest.mark.usefixtures("implementation")


def normalised(x, norm):
    y, *statistics = formulas.batch_norm(x, norm)
    return y.relu(), *statistics


def layers_conv(x, norm, weight, bias):
    y, *statistics = normalised(x, norm)
    return F.conv2d(y, weight, bias), *statistics


def layers_pool(x, norm):
    y, *statistics = normalised(x, norm)
    return F.max_pool2d(y, 2), *statistics


def layers_stem(image, weight, norm):
    y, *statistics = normalised(F.conv2d(image, weight[:, :, None, None]), norm)
    return F.max_pool2d(y, 2), *statistics


SIZES = [(2, 3, 4), (1, 5, 2), (3, 2, 2)]


@pytest.mark.parametrize("shape", [*SIZES, (2, 1, 1), (1, 1, 2)])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_bn_relu_conv1x1_is_its_layers(shape, batch, bias):
    n, h, w = shape
    args = random(n, 6, h, w), Norm(*norm(6, batch=batch)), random(5, 6, 1, 1), random(5) if bias else None
    formulas.assert_same(bn_relu_conv1x1, layers_conv, args, {})


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("batch", [True, False])
def test_bn_relu_pool_is_its_layers(shape, batch):
    n, h, w = shape
    formulas.assert_same(bn_relu_pool, layers_pool, (random(n, 6, h, w), Norm(*norm(6, batch=batch))), {})


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("batch", [True, False])
def test_stem_is_its_layers(shape, batch):
    n, h, w = shape
    args = random(n, 3, h, w), random(6, 3), Norm(*norm(6, batch=batch))
    formulas.assert_same(stem, layers_stem, args, {}, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [*SIZES, (2, 1, 1), (1, 1, 2)])
def test_norm_relu_is_its_layers(shape):
    images, height, width = shape
    x, bn = random(images, 3, height, width, grad=False), Norm(*norm(3, batch=False))
    torch.testing.assert_close(norm_relu(x, bn), normalised(x, bn)[0])


def test_the_stem_gives_parameters_the_same_gradients_when_the_image_wants_none():
    image, weight, bn = random(2, 3, 4, 4), random(6, 3), Norm(*norm(6, batch=True))
    wanted = torch.autograd.grad(stem(image, weight, bn)[0].sum(), [weight, bn.gamma, bn.beta])
    got = torch.autograd.grad(stem(image.detach(), weight, bn)[0].sum(), [weight, bn.gamma, bn.beta])
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_statistics_of_a_bright_image_stay_exact_in_single_precision():
    """A mean of a thousand standard deviations: fp32 moments would lose everything."""
    image = 1000 + random(2, 3, 16, 16, grad=False)
    weight = random(6, 3, grad=False)
    *_, var = stem(image.float(), weight.float(), Norm(torch.ones(6), torch.zeros(6), None, None, 1e-5))
    wanted = F.conv2d(image.float().double(), weight.float().double()[:, :, None, None])
    torch.testing.assert_close(var.double(), wanted.var((0, 2, 3), correction=0), rtol=1e-6, atol=0)


def test_backwards_are_derivatives():
    bn = Norm(*norm(3, batch=True))
    x, weight, bias = random(2, 3, 2, 4), random(2, 3, 1, 1), random(2)
    assert torch.autograd.gradcheck(lambda x, w, b: bn_relu_conv1x1(x, bn, w, b)[0], (x, weight, bias))
    assert torch.autograd.gradcheck(lambda x: bn_relu_pool(x, bn)[0], (x,))
    assert torch.autograd.gradcheck(lambda x, w: stem(x, w, bn)[0], (x, random(3, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [True, False])
def test_they_keep_the_rules_of_torch(dtype, batch):
    gamma, beta, mean, var, eps = (
        x.detach().float() if isinstance(x, torch.Tensor) else x for x in norm(3, batch=batch)
    )
    x, weight, bias = (t.detach().to(dtype) for t in (random(2, 3, 4, 6), random(2, 3, 1, 1), random(2)))
    used = torch.zeros(3), torch.ones(3)
    given, san = (gamma, beta, mean, var, eps), torch.ops.san
    for operator, args in (
        (san.bn_relu_conv1x1, (x, *given, weight, bias)),
        (san.bn_relu_conv1x1, (x, *given, weight, None)),
        (san.bn_relu_conv1x1_backward, (x[:, :2], x, gamma, beta, *used, eps, weight, batch)),
        (san.bn_relu_pool, (x, *given)),
        (san.bn_relu_pool_backward, (x[..., ::2, ::2], x, gamma, beta, *used, eps, batch)),
        *([] if batch else [(san.norm_relu, (x, *given))]),
        (san.stem, (x, torch.eye(3), *given)),
        (san.stem_backward, (x[..., ::2, ::2], x, torch.eye(3), gamma, beta, *used, eps, batch, True)),
        (san.stem_backward, (x[..., ::2, ::2], x, torch.eye(3), gamma, beta, *used, eps, batch, False)),
    ):
        torch.library.opcheck(operator.default, args, test_utils=formulas.RULES)
