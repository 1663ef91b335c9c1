"""An image that grows too far in patchwise attention is asked once more; all others keep their answer."""

import pytest
import torch
from torch import nn

from sancli.model import resnet
from sancli.model.bounded import MOST, Bounded, limited, size
from sancli.model.prepared import prepared
from sancli.model.san import SAN, Bottleneck


def lived(attention):
    """A small network whose BatchNorms know what it sees: noise of unit variance."""
    torch.manual_seed(0)
    relation = {"patchwise": "concatenation", "pairwise": "subtraction"}[attention]
    network = SAN(attention, relation, (1, 1, 1, 1, 1), 5)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the plain average
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, 3, 64, 64))
    return network.eval()


def images(*sizes):
    """One image for each size of its pixels."""
    made = torch.Generator().manual_seed(1)
    return torch.randn(len(sizes), 3, 64, 64, generator=made) * torch.tensor(sizes)[:, None, None, None]


@pytest.fixture(scope="module")
def patchwise():
    return lived("patchwise")


@torch.inference_mode()
def test_usual_images_keep_their_answer_bit_for_bit(patchwise):
    usual, bounded = images(1, 0.5, 1), Bounded(patchwise)
    assert torch.equal(bounded(usual), patchwise(usual))
    assert bounded.again == 0


@torch.inference_mode()
def test_an_image_that_grows_too_far_gets_a_moderate_answer_and_the_others_keep_theirs(patchwise):
    mixed, bounded = images(1, 1e4, 1, 30), Bounded(patchwise)
    own, answers = patchwise(mixed), bounded(mixed)
    assert not own[1].abs().max() < 1e6  # or no number at all
    assert torch.equal(answers[[0, 2]], own[[0, 2]])
    assert answers.isfinite().all()
    assert answers.abs().max() < 50 * own[[0, 2]].abs().max()
    assert bounded.again == 2


@torch.inference_mode()
def test_no_block_sees_more_than_the_bound(patchwise):
    seen = []
    with limited(patchwise):
        watch = [
            block.register_forward_pre_hook(lambda block, inputs: seen.append(size(inputs[0], block.bn1)))
            for block in patchwise.modules()
            if isinstance(block, Bottleneck)
        ]
        patchwise(images(1, 1e4))
        for hook in watch:
            hook.remove()
    sizes = torch.stack(seen)  # [blocks, N]
    assert len(sizes) == 5
    assert sizes.max() <= MOST * (1 + 1e-4)
    assert sizes[:, 1].max() >= MOST * (1 - 1e-4)
    assert sizes[:, 0].max() < 2


def test_size_is_the_root_mean_square_of_what_the_norm_gives(patchwise):
    x, norm = torch.randn(3, 64, 5, 4) * 7, patchwise.layer0[0].bn1
    plain = nn.BatchNorm2d(64, affine=False).eval()
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    torch.testing.assert_close(size(x, norm), plain(x).square().mean((1, 2, 3)).sqrt())


@torch.inference_mode()
def test_the_network_is_left_as_it_was(patchwise):
    bounded = Bounded(patchwise)
    bounded(images(1e4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in patchwise.modules())
    with pytest.raises(ValueError, match="weight is"):
        bounded(torch.zeros(1, 4, 64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in patchwise.modules())


@torch.inference_mode()
def test_the_first_answer_may_come_from_a_swifter_copy(patchwise):
    mixed, bounded = images(1, 1e4), Bounded(patchwise, prepared(patchwise, side=64))
    answers = torch.cat([bounded(one) for one in mixed.split(1)])
    torch.testing.assert_close(answers, Bounded(patchwise)(mixed), rtol=1e-4, atol=1e-4)
    assert bounded.again == 1


@torch.inference_mode()
def test_it_also_answers_in_bf16(patchwise):
    with torch.autocast("cpu", torch.bfloat16):
        answers = Bounded(patchwise)(images(1, 1e4))
    assert answers.isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize("make", [lambda: lived("pairwise"), lambda: resnet.resnet("resnet26", 5).eval()])
def test_networks_that_do_not_grow_so_answer_as_they_are(make):
    network, far = make(), images(1, 1e4)
    bounded = Bounded(network)
    assert torch.equal(bounded(far), network(far))
    assert bounded.again == 0


def test_weights_that_are_no_numbers_still_give_none(patchwise):
    broken = lived("patchwise")
    broken.fc.weight.data.fill_(torch.nan)
    with torch.inference_mode():
        assert Bounded(broken)(images(1)).isnan().all()
