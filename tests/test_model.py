"""The networks as users of torch expect them: sizes, names, modes, types, compile, export, memory."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sancli import config
from sancli.model import build, resnet, san
from sancli.model.relations import RELATIONS
from sancli.model.san import ATTENTIONS, SAN, Bottleneck
from sancli.model.zoo import BASELINES, PUBLISHED

KINDS = tuple(RELATIONS)


def tiny(attention, num_classes=5):
    """A SAN with one block in each of its first stages, where footprints are of 3 and of 7 pixels."""
    torch.manual_seed(0)
    return SAN(attention, RELATIONS[attention][0], (1, 1, 1, 0, 0), num_classes)


def images(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def step(net, x):
    """One training step's loss, with every gradient in place."""
    loss = F.cross_entropy(net(x), torch.arange(len(x)) % 5)
    loss.backward()
    return loss


def test_the_command_line_offers_what_there_is():
    assert (*san.LAYERS, *resnet.LAYERS) == config.ARCHS
    assert set(config.ATTENTIONS) == set(RELATIONS)
    assert config.RELATIONS == RELATIONS


def test_the_zoo_is_read_without_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from sancli.model import zoo"],
        capture_output=True,
        text=True,
    )
    assert "sancli.model.zoo" in done.stderr
    assert " torch" not in done.stderr


@pytest.mark.parametrize("network", [*PUBLISHED.values(), *BASELINES.values()])
def test_parameters_are_as_many_as_published(network):
    with torch.device("meta"):
        net = build(network.arch, attention=network.attention or "patchwise", num_classes=1000)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == network.parameters_m


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("san11",), "san15"),
        (("san10", "sideways"), "patchwise"),
        (("san10", "pairwise", "star-product"), "subtraction"),
    ],
)
def test_a_name_that_is_not_known_is_refused(arguments, message):
    arch, attention, relation = (*arguments, "patchwise", None)[:3] if len(arguments) < 3 else arguments
    with pytest.raises(ValueError, match=message):
        build(arch, attention=attention, relation=relation, num_classes=2)


@pytest.mark.parametrize("attention", KINDS)
def test_blocks_that_start_at_zero_are_the_identity_and_learn(attention):
    net = build("san10", attention=attention, num_classes=3, zero_init_residual=True)
    block = net.layer0[0]
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert block.conv.weight.grad.abs().max() > 0
    assert not torch.equal(build("san10", attention=attention, num_classes=3).layer0[0](x), x)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (64, 47), (96, 32), (127, 65)])
def test_any_size_from_32_pixels_trains(attention, size):
    net = tiny(attention)
    step(net, images(2, 3, *size))
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("attention", KINDS)
def test_a_batch_of_one_pixel_cannot_be_normalised_by_itself(attention):
    net = tiny(attention)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(images(1, 3, 32, 32))
    assert net.eval()(images(1, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("attention", KINDS)
def test_images_do_not_see_each_other_in_evaluation(attention):
    net, x = tiny(attention).eval().double(), images(3, 3, 40, 56, dtype=torch.float64)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("attention", KINDS)
def test_frozen_norms_stay_as_they_are_and_normalise_by_what_they_hold(attention):
    net = tiny(attention).double()
    step(net, images(2, 3, 64, 64, dtype=torch.float64))  # statistics other than 0 and 1
    frozen = copy.deepcopy(net).train()
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    held = [x.clone() for x in frozen.buffers()]
    x = images(2, 3, 64, 64, seed=1, dtype=torch.float64)
    torch.testing.assert_close(frozen(x), net.eval()(x))
    step(frozen, x)
    torch.testing.assert_close(list(frozen.buffers()), held, rtol=0, atol=0)


@pytest.mark.parametrize("attention", KINDS)
def test_a_plain_average_of_statistics_is_kept_without_momentum(attention):
    """As torch's update_bn asks for: momentum None."""
    net = tiny(attention).double()
    first, second = (images(2, 3, 64, 64, seed=i, dtype=torch.float64) for i in range(2))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    net(first)
    after_first = net.bn_in.running_mean.clone()
    net(second)
    mean = net.conv_in(second).mean((0, 2, 3))
    torch.testing.assert_close(net.bn_in.running_mean, (after_first + mean) / 2)
    assert net.layer1[0].sam.conv_w[0].num_batches_tracked == 2


@pytest.mark.parametrize("attention", KINDS)
def test_two_runs_from_one_seed_are_equal_bit_by_bit(attention):
    def run():
        net = tiny(attention)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        for i in range(3):
            optimizer.zero_grad()
            step(net, images(2, 3, 48, 48, seed=i))
            optimizer.step()
        return net.state_dict()

    first, second = run(), run()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("attention", KINDS)
def test_autocast_trains_in_bf16_with_statistics_in_fp32(attention):
    net, x = tiny(attention), images(4, 3, 96, 96)
    wanted = copy.deepcopy(net)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(x)
        F.cross_entropy(logits.float(), torch.arange(4)).backward()
    assert logits.dtype == torch.bfloat16
    # 8 bits through ten layers, the last with statistics of 36 values, which enlarge what is lost
    assert (logits.float() - wanted).norm() < 0.15 * wanted.norm()
    assert all(p.grad.dtype == torch.float32 for p in net.parameters())
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("attention", KINDS)
def test_memory_format_of_the_image_does_not_matter(attention):
    net, x = tiny(attention).eval(), images(2, 3, 64, 48)
    torch.testing.assert_close(net(x), net(x.to(memory_format=torch.channels_last)), rtol=0, atol=0)


@pytest.mark.parametrize("attention", KINDS)
def test_the_network_trains_as_the_naive_one_of_the_benchmark(attention):
    """Which makes every footprint by unfold, in torch's own layers."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from published import Published

    net, x = tiny(attention).double(), images(2, 3, 128, 128, dtype=torch.float64)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh, pixels of one column stand on the kink of the ReLU
            nn.init.normal_(module.bias, 0, 0.1)
    naive = Published(copy.deepcopy(net))
    torch.testing.assert_close(step(net, x), step(naive, x))
    for (name, p), q in zip(net.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(dict(net.named_buffers()), dict(naive.net.named_buffers()))


@pytest.mark.parametrize("attention", ["patchwise", pytest.param("pairwise", marks=pytest.mark.slow)])
def test_torch_export_takes_the_network(attention):
    net, x = tiny(attention).eval(), images(2, 3, 64, 64)
    exported = torch.export.export(net, (x,))
    assert any("san." in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), net(x))


@pytest.mark.parametrize("attention", KINDS)
def test_torch_compile_takes_a_block_and_its_backward_in_one_graph(attention):
    """With an eager backend: what is tested is the capture; inductor's compiler takes half a minute."""
    torch.manual_seed(0)
    block, x = Bottleneck(attention, RELATIONS[attention][0], 64, 3).double(), images(2, 64, 4, 5).double()
    other = copy.deepcopy(block)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    outs = compiled(x), block(x)
    torch.testing.assert_close(*outs)
    for out in outs:
        out.square().sum().backward()
    for (name, a), b in zip(block.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=name)
    torch.testing.assert_close(dict(other.named_buffers()), dict(block.named_buffers()))


def saved_mib(net, x):
    """What autograd keeps between forward and backward, each storage once, parameters apart, in MiB."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    storages = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = net(x)
    size = sum(storages.values()) / 2**20
    del out
    return size


@pytest.mark.parametrize("attention", KINDS)
def test_san15_keeps_at_most_62_mib_an_image_for_backward(attention):
    """At 224 px in a batch of 8, from two small sizes: what is kept grows with the pixels.

    What does not are the merged weights, once a step. Measured at 224 px: 54 MiB an image, 23 a step.
    """
    net = build("san15", attention=attention, num_classes=6)
    small, large = saved_mib(net, images(1, 3, 32, 64)), saved_mib(net, images(1, 3, 96, 96))
    a_pixel = (large - small) / (96 * 96 - 32 * 64)
    a_step = small - a_pixel * 32 * 64
    assert a_pixel * 224 * 224 + a_step / 8 < 62


def test_every_attention_layer_also_stands_alone():
    for attention, layer in ATTENTIONS.items():
        out = layer(16, 4, 8, 4, 3)(images(2, 16, 5, 6))
        assert out.shape == (2, 8, 5, 6), attention
