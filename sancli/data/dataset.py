"""Images as batches of tensors, in worker processes or without: the same numbers either way.

Nothing random depends on history. An image's view is decided by the seed, the epoch and its index alone, and
an epoch's order by the seed and the epoch: neither the number of workers nor a stop in between changes them.

Letters: N images, S the side of the square in pixels.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sancli.config import PrepareConfig
from sancli.data.images import BadImage, load_image
from sancli.data.prepared import Sample
from sancli.data.preprocessing import Preprocessing
from sancli.data.transforms import View, evaluation_view
from sancli.errors import DataError, TrainingError

Key = tuple[int, int]
"""Epoch and index of an image."""


class Item(NamedTuple):
    """One image, or why there is none."""

    image: Tensor | None
    label: int
    number: int
    """Index of its sample."""
    error: str


class Batch(NamedTuple):
    """Images that could be read, and those that could not."""

    images: Tensor
    """[N, 3, S, S]"""
    labels: Tensor
    """[N]"""
    indices: Tensor
    """[N], of the samples."""
    failures: tuple[tuple[int, str], ...]
    """Index and reason of each image that could not be read; it is not among the N."""


class Images(Dataset[Item]):
    """The samples through a view; a file that cannot be read is an item that says why."""

    def __init__(
        self,
        samples: Sequence[Sample],
        view: View,
        *,
        enough_px: int,
        seed: int = 0,
        max_pixels: int = PrepareConfig.max_pixels,
    ) -> None:
        self.samples, self.view, self.seed = samples, view, seed
        self.limits = {"max_pixels": max_pixels, "enough_px": enough_px}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | Key) -> Item:
        epoch, index = (0, key) if isinstance(key, int) else key
        path, label = self.samples[index].path, self.samples[index].label
        try:
            picture = load_image(path, **self.limits)
        except BadImage as bad:
            return Item(None, label, index, bad.reason)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, epoch, index))
            return Item(self.view(picture), label, index, "")


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, well mixed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def collate(items: Sequence[Item]) -> Batch:
    """The items as one batch; what could not be read is listed beside it."""
    good = [(item.image, item.label, item.number) for item in items if item.image is not None]
    images = torch.stack([image for image, *_ in good]) if good else torch.empty(0, 3, 1, 1)
    labels = torch.tensor([label for _, label, _ in good], dtype=torch.long)
    indices = torch.tensor([index for *_, index in good], dtype=torch.long)
    return Batch(images, labels, indices, tuple((i.number, i.error) for i in items if i.image is None))


class Order(Sampler[list[Key]]):
    """The batches of an epoch, a function of the seed and the epoch; can start in the middle.

    The last batch is left out when it would be smaller than the others and there are others. With several
    processes each takes its share of every batch, so that the batch as a whole is the same.

    Args:
        count: Images there are.
        batch_size: Images in one optimizer step, of all processes together.
        seed: Of the shuffling.
        weights: Chance of each image, [count], drawn with replacement; None: each once an epoch.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        weights: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.count, self.batch_size, self.seed, self.weights = count, batch_size, seed, weights
        self.rank, self.world = rank, world
        self.epoch = self.step = 0

    def __len__(self) -> int:
        return max(1, self.count // self.batch_size)

    def start(self, epoch: int, step: int = 0) -> None:
        """Makes the next pass that of `epoch`, from its batch number `step` on."""
        self.epoch, self.step = epoch, step

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.count, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.count, replacement=True, generator=generator)
        epoch, first = self.epoch, self.step
        for step in range(first, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world]]


def training_loader(images: Images, order: Order, *, workers: int, pin: bool = False) -> DataLoader[Any]:
    """The training batches in their order; its workers live on from epoch to epoch."""
    return DataLoader(images, batch_sampler=order, persistent_workers=workers > 0, **_common(workers, pin))


def evaluation_loader(
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    max_pixels: int = PrepareConfig.max_pixels,
    pin: bool = False,
) -> DataLoader[Any]:
    """The evaluation views of the samples, in their order, as an iterable of Batch."""
    view, enough_px = evaluation_view(preprocessing), preprocessing.enough_px
    images = Images(samples, view, enough_px=enough_px, max_pixels=max_pixels)
    return DataLoader(images, batch_size=batch_size, **_common(workers, pin))


def _common(workers: int, pin: bool) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "collate_fn": collate,
        "worker_init_fn": _quiet_worker,
        "pin_memory": pin,
        # its own, because a loader draws a number when it starts: the global generator stays as it is
        "generator": torch.Generator().manual_seed(0),
    }


def _quiet_worker(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the main process decides
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout and batch systems send theirs to all, too


def readable(loader: Iterable[Batch], samples: Sequence[Sample]) -> Iterator[Batch]:
    """Passes the batches on while every image can be read.

    Raises:
        DataError: One cannot: it has been deleted or damaged since it was prepared.
        TrainingError: A worker process was killed.
    """
    with worker_faults():
        batches = iter(loader)
        if hasattr(signal, "SIGCHLD"):
            # torch would raise at once, wherever the main thread is, also in the middle of an optimizer step;
            # this way it notices when the next batch does not come, within 5 s
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        yield from _whole(batches, samples)


def _whole(batches: Iterable[Batch], samples: Sequence[Sample]) -> Iterator[Batch]:
    for batch in batches:
        for index, reason in batch.failures[:1]:
            raise DataError(
                f"{samples[index].path}: {reason}.",
                why="it could be read when the data was prepared, and has been deleted or changed since.",
                fix="put it back, or prepare the data again, then go on with san train --resume.",
            )
        yield batch


@contextmanager
def worker_faults() -> Iterator[None]:
    """Turns the death of a loader's worker into one clear error.

    Raises:
        TrainingError: A worker was killed.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            "a process that reads images was killed.",
            why=f"{str(error).splitlines()[0].rstrip('. ')}; mostly memory, or /dev/shm, has run out.",
            fix="try --workers 0, or fewer than now.",
        ) from None
