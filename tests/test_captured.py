"""Replayed forward passes: what is captured when, and when the network is simply called."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sancli.engine.device import choose
from sancli.engine.loop import infer
from sancli.model import build, captured
from sancli.model.captured import KEPT, CapturedNetwork


class Recorder:
    """Stands in for torch's graphs: it replays by calling the network on the images that were captured."""

    def __init__(self, monkeypatch):
        self.captures, self.replays, self.failure, self.autocast = 0, 0, None, None
        recorder = self

        class Fake:
            def replay(self):
                recorder.replays += 1
                self.run()

        @contextmanager
        def graph(fake, capture_error_mode):
            if recorder.failure:
                raise recorder.failure
            recorder.captures += 1
            recorder.autocast = torch.is_autocast_cache_enabled()
            with recorded(fake):
                yield

        @contextmanager
        def recorded(fake):
            calls = []
            handle = nn.modules.module.register_module_forward_hook(
                lambda module, args, out: (
                    calls.append((module, args, out)) if isinstance(module, Doubled) else None
                )
            )
            yield
            handle.remove()
            ((module, (image,), out),) = calls
            fake.run = lambda: out.copy_(module.compute(image))

        monkeypatch.setattr(torch.cuda, "CUDAGraph", Fake)
        monkeypatch.setattr(torch.cuda, "graph", graph)
        monkeypatch.setattr(captured, "why_not", lambda network, image: "")


class Doubled(nn.Module):
    """Something that can be seen to have run."""

    def __init__(self):
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.tensor(2.0)), 0

    def compute(self, image):
        return self.weight * image.flatten(1).sum(1)

    def forward(self, image):
        self.calls += 1
        return self.compute(image)


class OneLogit(Doubled):
    """Its answers are those of a class."""

    def compute(self, image):
        return super().compute(image)[:, None]


@pytest.fixture
def recorder(monkeypatch):
    return Recorder(monkeypatch)


@pytest.fixture
def network(recorder):
    with torch.inference_mode():
        yield CapturedNetwork(Doubled()).eval()


def images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_first_image_of_a_shape_is_computed_the_second_captured_and_all_others_replayed(
    network, recorder
):
    for seed in range(5):
        image = images(1, 3, 4, 4, seed=seed)
        before = image.clone()
        assert torch.equal(network(image), 2 * image.flatten(1).sum(1))
        assert torch.equal(image, before)
        assert bool(network.reason) == (seed == 0)
    assert (recorder.captures, recorder.replays, network.network.calls) == (1, 4, 2)


def test_an_answer_stays_what_it_was_when_the_next_image_is_asked_of(network):
    answers = [network(images(2, 3, 4, 4, seed=seed)) for seed in range(4)]
    wanted = [2 * images(2, 3, 4, 4, seed=seed).flatten(1).sum(1) for seed in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(answers, wanted, strict=True))


def test_a_parameter_that_changes_in_place_is_seen(network):
    for _ in range(3):
        network(images(1, 3, 4, 4))
    network.network.weight.fill_(-1)
    torch.testing.assert_close(network(images(1, 3, 4, 4)), -images(1, 3, 4, 4).flatten(1).sum(1))


def test_every_shape_layout_and_type_has_a_graph_of_its_own(network, recorder):
    image = images(2, 3, 4, 5)
    for same in (image, image.to(memory_format=torch.channels_last), image.double(), image[:1]):
        for _ in range(2):
            torch.testing.assert_close(network(same), 2 * same.flatten(1).sum(1))
    assert recorder.captures == 4


def test_few_graphs_are_kept_and_the_longest_unused_goes_first(network, recorder):
    for side in range(1, KEPT + 2):
        for _ in range(2):
            network(images(1, 3, side, side))
        network(images(1, 3, 1, 1))
    assert len(network._graphs) == KEPT
    captures = recorder.captures
    network(images(1, 3, 1, 1))
    network(images(1, 3, KEPT + 1, KEPT + 1))
    assert recorder.captures == captures
    network(images(1, 3, 2, 2))
    assert network.reason == "the first image of its shape"


def test_shapes_that_never_come_twice_are_never_captured(network, recorder):
    for side in range(1, 9):
        network(images(1, 3, side, side))
    assert not recorder.captures
    assert len(network._graphs) == KEPT


@pytest.mark.parametrize(("flip", "captures", "replays"), [(False, 1, 1), (True, 2, 4)])
def test_batches_of_one_size_are_replayed(recorder, flip, captures, replays):
    """As san predict and san eval ask. With its mirror image, a smaller batch at the end comes twice too."""
    many = images(10, 3, 4, 4)
    batches = [SimpleNamespace(images=part) for part in many.split(4)]
    given = {"device": choose("cpu", "fp32"), "flip": flip}
    got = [logits for _, logits in infer(CapturedNetwork(OneLogit()), batches, **given)]
    wanted = [logits for _, logits in infer(OneLogit(), batches, **given)]
    torch.testing.assert_close(got, wanted)
    assert (recorder.captures, recorder.replays) == (captures, replays)


def test_where_capturing_fails_the_network_is_called_and_the_reason_is_said_once(network, recorder, capsys):
    recorder.failure = RuntimeError("operation not permitted when stream is capturing\nand more")
    for _ in range(4):
        torch.testing.assert_close(network(images(1, 3, 4, 4)), 2 * images(1, 3, 4, 4).flatten(1).sum(1))
    assert network.reason == "CUDA graphs do not work here: operation not permitted when stream is capturing"
    assert capsys.readouterr().err.count("Going on without them") == 1


def test_a_mistake_in_the_network_is_not_taken_for_a_failure_of_capturing(network, recorder):
    recorder.failure = KeyError("a bug")
    network(images(1, 3, 4, 4))
    with pytest.raises(KeyError):
        network(images(1, 3, 4, 4))


def test_autocast_is_captured_without_its_cache(network, recorder):
    """Cached weights are freed behind the context that made them."""
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(images(1, 3, 4, 4))
    assert recorder.autocast is False
    with torch.autocast("cpu", dtype=torch.float16):
        network(images(1, 3, 4, 4))
    network(images(1, 3, 4, 4))
    assert recorder.captures == 1


def test_a_call_that_cannot_be_replayed_says_why():
    network, image = CapturedNetwork(Doubled()).eval(), images(1, 3, 4, 4)
    network(image)
    assert network.reason == "the image is on cpu"

    class OnGpu:
        is_cuda = True

    assert "gradients" in captured.why_not(network, OnGpu())
    assert "training" in captured.why_not(network.train(), OnGpu())


def test_only_a_network_on_a_gpu_is_captured():
    network = Doubled()
    assert captured.captured(network, torch.device("cpu")) is network
    assert captured.captured(network, torch.device("cuda")).network is network


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("attention", ["patchwise", "pairwise"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_replay_gives_the_bits_of_the_network(attention, dtype):
    network = build("san10", attention=attention, num_classes=5).cuda().eval()
    replayed = CapturedNetwork(network)
    for _ in range(2):
        for shape in ((1, 3, 64, 64), (2, 3, 96, 64)):
            for seed in range(4):
                image = images(*shape, seed=seed).cuda()
                with torch.inference_mode(), torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                    assert torch.equal(replayed(image), network(image))
                assert not replayed._failure
    assert not replayed.reason
    assert all(graph is not None for graph in replayed._graphs.values())
