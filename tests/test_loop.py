"""One step of training, against torch's own; memory that runs out; the mirror image; several processes."""

import copy
from types import SimpleNamespace

import pytest
import torch
import training
from torch import nn
from torch.nn import functional as F

from sancli.engine.device import choose
from sancli.engine.distributed import World
from sancli.engine.loop import CLIP, Learner, NotFinite, infer, measure_statistics, train_step
from sancli.engine.optim import lr_factor, make_optimizer, moving_average
from sancli.errors import TrainingError


class Plain(nn.Module):
    """No BatchNorm, so that parts of a batch can be summed exactly."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(x).relu().mean((2, 3)))


def make_learner(network, *, micro_batch=64, world=World(), weight=None):  # noqa: B008 -- frozen
    return Learner(
        network=network,
        optimizer=make_optimizer(network, name="adamw", lr=0.01, weight_decay=0.1),
        average=moving_average(network, steps=10),
        device=choose("cpu", "fp32"),
        criterion=nn.CrossEntropyLoss(reduction="sum", weight=weight),
        lr=0.01,
        steps=10,
        micro_batch=micro_batch,
        world=world,
    )


def batch(count=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 9, 8, generator=generator), torch.arange(count) % 2


def test_a_step_is_that_of_torch():
    torch.manual_seed(0)
    network = Plain()
    twin = copy.deepcopy(network)
    images, labels = batch()
    step = train_step(make_learner(network), images, labels, number=3, of=7)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in twin.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.01 * lr_factor(3, 10),
    )
    logits = twin(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    nn.utils.clip_grad_norm_(twin.parameters(), CLIP)
    optimizer.step()
    assert step.loss / 7 == pytest.approx(loss.item(), rel=1e-5)
    assert step.correct == (logits.argmax(1) == labels).sum()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 6])
def test_parts_of_a_batch_give_the_step_of_the_whole(micro_batch):
    torch.manual_seed(0)
    whole, parts = (make_learner(copy.deepcopy(network)) for network in [Plain()] * 2)
    parts.micro_batch = micro_batch
    for learner in (whole, parts):
        train_step(learner, *batch(), number=0, of=7)
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


class Greedy(Plain):
    """Runs out of memory above so many images."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        self.seen.append(len(x))
        return super().forward(x)


def test_out_of_memory_halves_what_goes_through_at_once_and_not_the_batch(capsys):
    network = Greedy(2)
    learner = make_learner(network)
    step = train_step(learner, *batch(), number=0, of=7)
    assert step.images == sum(network.seen) == 7
    assert learner.micro_batch == 2
    assert "BatchNorm sees the smaller number" in capsys.readouterr().err


def test_no_memory_for_one_image_is_one_clear_error():
    with pytest.raises(TrainingError, match="one image alone") as failed:
        train_step(make_learner(Greedy(0)), *batch(), number=0, of=7)
    assert "--image-size" in failed.value.fix


@pytest.mark.parametrize("poison", ["image", "weight"])
def test_nothing_is_updated_by_a_loss_that_is_not_finite(poison):
    learner = make_learner(Plain())
    images, labels = batch()
    if poison == "image":
        images[3, 0, 0, 0] = float("inf")
    else:
        learner.network.fc.weight.data[0, 0] = float("nan")
    before = copy.deepcopy(learner.network.state_dict())
    with pytest.raises(NotFinite):
        train_step(learner, images, labels, number=0, of=7)
    for name, value in learner.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_the_body_takes_the_step_of_its_own_rate():
    steps = []
    for rate in (1.0, 0.25):
        torch.manual_seed(0)
        learner = make_learner(training.Micro(2).eval())
        learner.optimizer = make_optimizer(
            learner.network, name="sgd", lr=0.1, weight_decay=0, head="fc", body_rate=rate
        )
        start = copy.deepcopy(dict(learner.network.named_parameters()))
        train_step(learner, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]), number=0, of=4)
        steps.append({key: value - start[key] for key, value in learner.network.named_parameters()})
    whole, quarter = steps
    for key, step in whole.items():
        torch.testing.assert_close(quarter[key], step if key.startswith("fc.") else step * 0.25)


def test_frozen_means_that_the_head_alone_changes():
    learner = make_learner(training.Micro(2))
    learner.set_training(frozen=True, head="fc")
    before = copy.deepcopy(learner.network.state_dict())
    train_step(learner, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]), number=0, of=4)
    after = learner.network.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"fc.weight", "fc.bias"}
    learner.set_training(frozen=False, head="fc")
    train_step(learner, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]), number=1, of=4)
    assert not torch.equal(learner.network.body[0].weight, before["body.0.weight"])


def test_flip_is_the_mean_of_both_probabilities():
    network, (images, _) = Plain(), batch()
    with torch.no_grad():
        expected = (network(images).softmax(1) + network(images.flip(3)).softmax(1)) / 2
    ((_, logits),) = infer(network, [SimpleNamespace(images=images)], device=choose("cpu", "fp32"), flip=True)
    torch.testing.assert_close(logits.softmax(1), expected)


def test_a_batch_without_images_has_no_logits():
    batches = [SimpleNamespace(images=torch.empty(0, 3, 1, 1)), SimpleNamespace(images=batch()[0])]
    logits = [logits for _, logits in infer(Plain(), batches, device=choose("cpu", "fp32"))]
    assert torch.cat(logits).shape == (7, 2)


def two_processes(rank, port, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # different, until the leader's is taken
    network, world = Plain(), World(rank, 2)
    world.copy_from_leader(network)
    learner = make_learner(network, world=world)
    images, labels = batch()
    step = train_step(learner, images[rank::2], labels[rank::2], number=0, of=7, stop=rank == 1)
    results.put((rank, step, {name: value.numpy() for name, value in network.state_dict().items()}))
    torch.distributed.destroy_process_group()


def test_two_processes_take_the_step_of_one(free_port):
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=two_processes, args=(rank, free_port, results)) for rank in (0, 1)]
    for child in children:
        child.start()
    found = {rank: (step, state) for rank, step, state in (results.get(), results.get())}
    for child in children:
        child.join()
    torch.manual_seed(0)
    alone = make_learner(Plain())
    step = train_step(alone, *batch(), number=0, of=7)
    for rank in (0, 1):
        assert found[rank][0].loss == pytest.approx(step.loss, rel=1e-5)
        assert found[rank][0].stop  # both stop when one is asked to
        for name, value in alone.network.state_dict().items():
            torch.testing.assert_close(torch.from_numpy(found[rank][1][name]), value)


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Overflowing(nn.Module):
    """Squares its input six times: what eval mode can do to an outlier in patchwise attention."""

    def forward(self, x):
        return (x.mean((2, 3)) ** 64)[:, :2] * torch.tensor([1.0, -1.0])


@pytest.mark.parametrize("flip", [False, True])
def test_an_image_on_which_the_network_diverges_gets_no_answer_aloud(capsys, flip):
    images = torch.stack([torch.full((3, 4, 4), value) for value in (1.0, 5.0, float("nan"), 1.01)])
    ((_, logits),) = infer(
        Overflowing(), [SimpleNamespace(images=images)], device=choose("cpu", "fp32"), flip=flip
    )
    assert logits.isfinite().all()
    assert (logits[:, 0] > logits[:, 1]).tolist() == [True, False, False, True]
    assert not logits[1:3].any()
    assert "no answer for 2 of 4 images" in capsys.readouterr().err


def test_statistics_are_measured_as_the_plain_average_over_the_batches_and_nothing_else_changes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    network[1].running_mean.fill_(7)  # what came before is forgotten
    before = copy.deepcopy(network.state_dict())
    batches = [SimpleNamespace(images=batch(count)[0]) for count in (2, 5)]
    measure_statistics(network, batches, device=choose("cpu", "fp32"))
    values = [network[0](of.images).transpose(0, 1).flatten(1) for of in batches]  # [C, N * H * W]
    torch.testing.assert_close(network[1].running_mean, sum(v.mean(1) for v in values) / 2)
    torch.testing.assert_close(network[1].running_var, sum(v.var(1) for v in values) / 2)
    assert (network.training, network[1].momentum) == (False, 0.1)
    after = network.state_dict()
    assert all(
        torch.equal(after[name], before[name])
        for name in before
        if "running" not in name and "num" not in name
    )
