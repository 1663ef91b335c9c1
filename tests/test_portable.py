"""The network in layers that other programs know, held to the one in operators of ours."""

import pytest
import torch
from torch import nn

from sancli.model.portable import portable
from sancli.model.relations import RELATIONS
from sancli.model.resnet import resnet
from sancli.model.san import SAN

EVERY = [(attention, relation) for attention, known in RELATIONS.items() for relation in known]


def lived(network):
    """The network in eval mode, with statistics as a training leaves them."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # further from zero, most of what ReLU sees would be dead
            module.running_var.uniform_(0.2, 1)
    return network.eval()


@pytest.mark.parametrize(("attention", "relation"), EVERY)
@pytest.mark.parametrize("size", [(32, 32), (34, 77)])  # maps of one pixel; not square
def test_it_answers_as_the_network_does(attention, relation, size):
    layers = (1, 1, 0, 0, 1) if relation != "clique-product" else (0, 0, 0, 0, 1)  # the others take minutes
    network = lived(SAN(attention, relation, layers, 5).double())
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(portable(network)(images), network(images))


def test_it_learns_and_changes_with_the_network_and_a_resnet_is_portable_as_it_is():
    network = SAN("pairwise", "summation", (1, 0, 0, 0, 0), 5)
    theirs = {id(parameter) for parameter in network.parameters()}
    assert {id(parameter) for parameter in portable(network).parameters()} == theirs
    plain = resnet("resnet26", 3)
    assert portable(plain) is plain
