"""Asking a model about files: what evaluation and prediction share, so that both give the same numbers."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from sancli.config import AUTO, PrepareConfig
from sancli.console import plural, progress, say
from sancli.data.dataset import Batch, evaluation_loader, worker_faults
from sancli.data.prepared import Sample
from sancli.engine.allocator import keep_freed_memory
from sancli.engine.device import Device
from sancli.engine.loop import infer
from sancli.engine.metrics import answers
from sancli.model.bounded import Bounded
from sancli.model.captured import captured
from sancli.runs import Model

MOST_WORKERS = 8
NO_ANSWER = "no answer: the network diverges on this image"


def ask(
    model: Model,
    samples: Sequence[Sample],
    *,
    device: Device,
    batch_size: int = 64,
    workers: int | Literal["auto"] = AUTO,
    tta: str = "none",
    max_pixels: int = PrepareConfig.max_pixels,
    title: str,
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch of the samples, in their order, with its logits [N, C]; what cannot be read is in the batch.

    Raises:
        TrainingError: A process that reads images was killed.
    """
    keep_freed_memory()
    loader = evaluation_loader(
        samples,
        model.info.preprocessing,
        batch_size=batch_size,
        workers=number_of_workers(workers, device, single=len(samples) <= batch_size),
        max_pixels=max_pixels,
    )
    placed = device.place(model.network)
    network = Bounded(placed, captured(placed, device.torch_device))
    with progress(title, total=len(samples), unit="images") as bar, worker_faults():
        for batch, logits in infer(network, loader, device=device, flip=tta == "flip"):
            if len(samples) > 1:  # a single image is there before a bar could be read
                bar.advance(len(batch.images) + len(batch.failures))
            yield batch, logits
    if network.again:
        say(f"{plural(network.again, 'image')} grew too far in the network: asked again with bounded blocks")


def number_of_workers(asked: int | Literal["auto"], device: Device, *, single: bool) -> int:
    """Processes that read images: none for a single batch; on a CPU one, as the network needs the cores."""
    if asked != AUTO:
        return asked
    if single:
        return 0
    return 1 if device.torch_device.type == "cpu" else min(torch.get_num_threads(), MOST_WORKERS)


def best(logits: Tensor, classes: Sequence[str], *, count: int) -> list[tuple[tuple[str, float], ...]]:
    """For each row of the logits [N, C] its likeliest labels with their probabilities, the highest first.

    A row of equal logits is no answer, and gives none.
    """
    values, numbers = logits.softmax(1).topk(min(count, len(classes)), dim=1)
    answered = answers(logits) >= 0
    return [
        tuple((classes[number], value) for number, value in zip(row, shares, strict=True)) if answer else ()
        for row, shares, answer in zip(numbers.tolist(), values.tolist(), answered.tolist(), strict=True)
    ]
