"""The optimizer's groups, the learning rate of each step, and the moving average."""

import math

import pytest
import torch
import training

from sancli.engine.optim import lr_factor, make_optimizer, moving_average


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_and_norms_do_not_decay(name):
    network = training.Micro(3)
    optimizer = make_optimizer(network, name=name, lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {key: decay[id(parameter)] for key, parameter in network.named_parameters()}
    assert by_name.pop("body.0.weight") == by_name.pop("body.4.weight") == by_name.pop("fc.weight") == 0.5
    assert set(by_name.values()) == {0.0}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_body_has_its_share_of_the_rate_and_the_head_all_of_it(name):
    network = training.Micro(3)
    optimizer = make_optimizer(network, name=name, lr=0.1, weight_decay=0.5, head="fc", body_rate=0.25)
    share = {id(p): group["share"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {key: share[id(parameter)] for key, parameter in network.named_parameters()}
    assert {key for key, value in by_name.items() if value == 1.0} == {"fc.weight", "fc.bias"}
    assert set(by_name.values()) == {0.25, 1.0}


def test_the_rate_rises_for_a_tenth_and_falls_by_a_cosine():
    factors = [lr_factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert max(factors) == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_a_rate_too(steps):
    assert all(0 < lr_factor(step, steps) <= 1 for step in range(steps))


def test_the_average_of_weights_and_statistics_is_the_formula():
    network = training.Micro(2)
    average = moving_average(network, steps=1000)
    expected = None
    for step in range(30):
        with torch.no_grad():
            for value in (*network.parameters(), network.body[1].running_mean):
                value.add_(torch.randn_like(value))
            network.body[1].num_batches_tracked.add_(1)
        average.update_parameters(network)
        now = [network.fc.weight.detach().double(), network.body[1].running_mean.double()]
        decay = min(1 - 1 / 20, (1 + step) / (10 + step))
        expected = (
            now
            if expected is None
            else [decay * old + (1 - decay) * new for old, new in zip(expected, now, strict=True)]
        )
        expected = [value.clone() for value in expected]
    kept = average.module
    torch.testing.assert_close(kept.fc.weight.double(), expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept.body[1].running_mean.double(), expected[1], atol=1e-5, rtol=1e-5)
    assert kept.body[1].num_batches_tracked == 30
