"""Asking a network, and teaching it one step. Knows nothing about SAN or folders.

Letters: N images, C classes, H x W pixels.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from sancli.console import warn
from sancli.engine.device import Device
from sancli.engine.distributed import World
from sancli.engine.optim import lr_factor
from sancli.errors import TrainingError

CLIP = 2.0
"""Longest gradient of a step. Source: the prototype's training on the Intel scenes (86.1 %)."""

MOST_LOGIT = 1e3
"""Beyond it an answer is an accident, as where weights are not finite, or in patchwise attention that nobody
bounds. Measured, SAN10 after 90 steps on 266 drawn scenes: 5.4 at most for 262 of them, from 1e4 to overflow
for four."""


class Labelled(Protocol):
    """A batch: images [N, 3, H, W], and whatever else its maker put there."""

    @property
    def images(self) -> Tensor:
        """[N, 3, H, W]; N may be 0."""


B = TypeVar("B", bound=Labelled)


class NotFinite(ArithmeticError):  # noqa: N818 -- said of the loss
    """The loss or the gradient of a step is NaN or infinite; nothing was updated."""


def infer(
    network: nn.Module, batches: Iterable[B], *, device: Device, flip: bool = False
) -> Iterator[tuple[B, Tensor]]:
    """Each batch with its logits: [N, C], float32, on the CPU; of a batch without images, an empty [0].

    With `flip`, the softmax of the result is the mean of those of the image and its mirror image.
    An image on which the network diverges gets a row of zeros, no answer, and is counted aloud.
    The network, which is on the device, is put into eval mode and left there.
    """
    network.eval()
    lost = asked = 0
    for batch in batches:
        if not len(batch.images):
            yield batch, torch.empty(0)
            continue
        with torch.inference_mode(), device.autocast():
            images = device.send(batch.images)
            views = [images, images.flip(-1)] if flip else [images]
            logits = torch.stack([network(view).float() for view in views]).cpu()  # [views, N, C]
        diverged = ~(logits.abs().amax((0, 2)) < MOST_LOGIT)  # so written, NaN counts too
        lost, asked = lost + int(diverged.sum()), asked + len(diverged)
        mean = logits[0] if len(logits) == 1 else logits.log_softmax(2).logsumexp(0) - math.log(len(logits))
        yield batch, mean.masked_fill(diverged[:, None], 0)
    if lost:
        warn(f"no answer for {lost} of {asked} images: the network diverges on them.")


def measure_statistics(network: nn.Module, batches: Iterable[Labelled], *, device: Device) -> None:
    """Replaces the statistics of each BatchNorm by those of these images, the plain average over the batches.

    Source: Wu, Johnson, "Rethinking Batch in BatchNorm" (2021), PreciseBN.
    """
    with torch.no_grad(), device.autocast():
        update_bn((device.send(batch.images) for batch in batches), network)


@dataclass(frozen=True)
class Step:
    """What one update tells: sums over the images of all processes."""

    loss: float
    correct: float
    images: int
    stop: bool
    """Whether a process was asked to stop."""


@dataclass
class Learner:
    """A network, and everything that changes while it learns."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    device: Device
    criterion: nn.CrossEntropyLoss
    """Its reduction is "sum"."""
    lr: float
    """The highest."""
    steps: int
    """Of the whole run."""
    micro_batch: int
    """Images that go through the network at once; a batch is a sum over such parts."""
    world: World

    def __post_init__(self) -> None:
        """Makes the scaler that half precision needs; for the others it does nothing."""
        kind = self.device.torch_device.type
        self.scaler = torch.amp.GradScaler(kind, enabled=self.device.precision == "fp16")

    @property
    def best_network(self) -> nn.Module:
        """The network that is measured and kept: the average where there is one."""
        network: nn.Module = self.network if self.average is None else self.average.module
        return network

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def set_training(self, *, frozen: bool, head: str) -> None:
        """Training mode for all; with `frozen` for the head alone, the body is left as it is."""
        self.network.train()
        for name, child in self.network.named_children():
            if name != head:
                child.train(not frozen)
                child.requires_grad_(not frozen)
        for parameter in self.network.parameters(recurse=False):
            parameter.requires_grad_(not frozen)


def train_step(
    learner: Learner, images: Tensor, targets: Tensor, *, number: int, of: int, stop: bool = False
) -> Step:
    """Updates the network by one batch.

    Args:
        learner: Changed in place.
        images: [N, 3, H, W], this process's share of the batch.
        targets: [N] labels, or [N, C] shares of each class.
        number: Of the step in the run; it decides the learning rate.
        of: Images in the whole batch, of all processes.
        stop: Whether this process was asked to stop; all of them learn it.

    Raises:
        NotFinite: The loss or the gradient is NaN or infinite; nothing was updated.
        TrainingError: Not even one image fits into memory.
    """
    figures = _gradients_within_memory(learner, images, targets, of)
    gradients = [p.grad for p in learner.network.parameters() if p.grad is not None]
    figures = torch.cat([figures, figures.new_tensor([float(stop)])])
    learner.world.add(figures, *gradients)
    for group in learner.optimizer.param_groups:
        group["lr"] = learner.lr * lr_factor(number, learner.steps) * group.get("share", 1.0)
    learner.scaler.unscale_(learner.optimizer)
    norm = nn.utils.clip_grad_norm_(learner.network.parameters(), CLIP)
    loss, correct, stops, length = torch.cat([figures, norm.reshape(1)]).tolist()  # the one wait of a step
    too_large_for_fp16 = not math.isfinite(length) and learner.scaler.get_scale() > 1  # it will be halved
    if not math.isfinite(loss) or not (math.isfinite(length) or too_large_for_fp16):
        raise NotFinite(f"the loss is {loss / of:g}, the length of the gradient {length:g}")
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average is not None:
        learner.average.update_parameters(learner.network)
    return Step(loss, correct, of, stops > 0)


def _gradients_within_memory(learner: Learner, images: Tensor, targets: Tensor, of: int) -> Tensor:
    while True:
        try:
            return _gradients(learner, images, targets, of)
        except torch.OutOfMemoryError:
            size = min(learner.micro_batch, len(images))
            if size <= 1:
                raise TrainingError(
                    "one image alone does not fit into the memory of the GPU.",
                    why=f"its side is {images.shape[-1]} px.",
                    fix="use a smaller --image-size, a smaller --arch, or --device cpu.",
                ) from None
        learner.micro_batch = (size + 1) // 2  # outside the except: its traceback holds the tensors
        if learner.device.torch_device.type == "cuda":
            torch.cuda.empty_cache()
        warn(
            f"out of GPU memory: going on with {learner.micro_batch} images at a time; a step is still {of} "
            "images, but BatchNorm sees the smaller number."
        )


def _gradients(learner: Learner, images: Tensor, targets: Tensor, of: int) -> Tensor:
    """Fills the gradients of the mean loss; gives the sums of loss and of right answers, [2]."""
    learner.optimizer.zero_grad(set_to_none=True)
    device = learner.device
    sums = torch.zeros(2, device=device.torch_device)
    parts = max(1, math.ceil(len(images) / learner.micro_batch))  # nearly equal: no part of a single image
    for part, target in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
        target = target.to(device.torch_device, non_blocking=True)
        with device.autocast():
            logits = learner.network(device.send(part))  # [N, C]
        loss = learner.criterion(logits.float(), target)
        learner.scaler.scale(loss / of).backward()
        labels = target if target.ndim == 1 else target.argmax(1)
        sums += torch.stack([loss.detach(), (logits.argmax(1) == labels).sum()])
    return sums
