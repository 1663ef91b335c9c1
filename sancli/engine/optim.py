"""The optimizer, the learning rate of each step, and the moving average of the weights."""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""
MOMENTUM = 0.9
AVERAGED_SHARE = 0.02
"""Share of the steps that the moving average reaches back: one epoch of 45."""
SHORTEST_AVERAGE, LONGEST_AVERAGE = 10, 5000
"""In steps; the longest is timm's usual decay of 0.9998."""


def make_optimizer(
    network: nn.Module, *, name: str, lr: float, weight_decay: float, head: str = "", body_rate: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW or SGD with Nesterov's momentum; biases and norms, all that is a vector, do not decay.

    Args:
        network: Its parameters are put into groups, each with its `share` of the learning rate.
        name: adamw or sgd.
        lr: Of the head, and of all where `body_rate` is 1.
        weight_decay: Of matrices and filters.
        head: The child that learns at the full rate.
        body_rate: Learning rate of everything else, as a share of it.
    """
    named = list(network.named_parameters())
    parts = [(1.0, [p for _, p in named])]
    if body_rate != 1.0:
        of_head = [name.startswith(f"{head}.") for name, _ in named]
        parts = [
            (share, [p for (_, p), inside in zip(named, of_head, strict=True) if inside == wanted])
            for share, wanted in ((body_rate, False), (1.0, True))
        ]
    groups = [
        {"params": chosen, "weight_decay": decay, "share": share}
        for share, parameters in parts
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        )
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)


def lr_factor(step: int, steps: int) -> float:
    """The learning rate of a step as a share of the highest: a linear rise, then half a cosine down.

    A function of the step alone, so that a run that goes on, or gets more epochs, needs no state for it.
    """
    rise = max(1, round(WARMUP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def moving_average(network: nn.Module, *, steps: int) -> AveragedModel:
    """The exponential moving average of weights and BatchNorm statistics, for a run of `steps`.

    It reaches back over the last fiftieth of the run, and less at the start: a network a few steps old has no
    past worth remembering. The statistics are averaged like the weights that they belong to.
    """
    reach = min(max(AVERAGED_SHARE * steps, SHORTEST_AVERAGE), LONGEST_AVERAGE)

    def average(averaged: list[Tensor], current: list[Tensor], seen: Tensor) -> None:
        if not averaged[0].is_floating_point():  # BatchNorm's count of batches
            torch._foreach_copy_(averaged, current)
            return
        count = int(seen)
        decay = min(1 - 1 / reach, (1 + count) / (10 + count))  # the start as in TensorFlow's and timm's
        torch._foreach_lerp_(averaged, current, 1 - decay)

    result = AveragedModel(network, multi_avg_fn=average, use_buffers=True)  # type: ignore[arg-type]
    result.requires_grad_(False)
    return result
