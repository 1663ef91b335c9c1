"""The copy of a network that single images are asked of: its numbers, whatever becomes of the original."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sancli.model import build, relations
from sancli.model.prepared import PreparedBottleneck, prepared
from sancli.model.san import SAN

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import check  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def learnt(attention="patchwise", relation=None):
    """A small SAN in eval mode, whose norms have seen something."""
    torch.manual_seed(0)
    network = SAN(attention, relation or relations.RELATIONS[attention][0], (1, 1, 1, 0, 2), 5)
    with torch.no_grad():
        for _ in range(2):
            network(images(4, 3, 64, 64))
    return network.eval()


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def assert_same(copy, network, x):
    torch.testing.assert_close(copy(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("attention", ["patchwise", "pairwise"])
@pytest.mark.parametrize("side", [32, 63])
def test_it_gives_the_numbers_of_the_network(attention, side):
    network = learnt(attention)
    copy = prepared(network, side=side)
    assert any(isinstance(module, PreparedBottleneck) for module in copy.modules())
    assert_same(copy, network, images(1, 3, side, side))
    assert_same(copy, network, images(1, 3, side, side).to(memory_format=torch.channels_last))


@pytest.mark.parametrize("relation", ["hadamard", "star-product"])
def test_the_other_relations_are_prepared_too(relation):
    attention = "pairwise" if relation in relations.PAIRWISE else "patchwise"
    network = learnt(attention, relation)
    assert_same(prepared(network, side=32), network, images(1, 3, 32, 32))


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (1, 3, 40, 36), (2, 3, 33, 97)])
def test_images_of_another_size_or_number_are_answered_as_well(shape):
    network = learnt()
    assert_same(prepared(network, side=64), network, images(*shape))


@pytest.mark.parametrize("case", ["san15:patchwise:150x150:2:eval", "san15:pairwise:128x160:1:eval"])
def test_its_numbers_are_the_authors(case):
    arch, attention, size, batch, _ = case.split(":")
    network = build(arch, attention=attention, num_classes=1000).eval()
    state = {name: check.fill(name, tuple(x.shape)) for name, x in network.state_dict().items()}
    network.load_state_dict(state)
    height, width = map(int, size.split("x"))
    with np.load(GOLDEN / "san_reference.npz") as file, torch.inference_mode():
        wanted = torch.from_numpy(file[f"{case}/logits"])
        got = prepared(network, side=height)(check.image(int(batch), height, width).float())
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_what_becomes_of_the_network_does_not_reach_the_copy():
    network, x = learnt(), images(1, 3, 32, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy = prepared(network, side=32)
    with torch.inference_mode():
        answer = copy(x)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.load_state_dict({name: torch.zeros_like(value) for name, value in before.items()})
    with torch.inference_mode():
        assert torch.equal(copy(x), answer)
        assert not torch.equal(network(x), answer)


def test_the_image_stays_as_it_was():
    x = images(1, 3, 32, 32).to(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        prepared(learnt(), side=32)(x)
    assert torch.equal(x, before)


def test_a_network_that_gains_nothing_is_given_back_itself():
    double, convolutions = learnt().double(), build("resnet26", num_classes=3)
    assert prepared(double, side=32) is double
    assert prepared(convolutions, side=32) is convolutions
