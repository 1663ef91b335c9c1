"""Which CUDA kernels are launched, found by running what launches them: launches are only written down."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from cases import OPERATORS, STAGES, awkward, case
from routes import Route, on_cuda, results
from torch import Tensor

from sancli.model.relations import RELATIONS
from sancli.model.san import SAN
from sancli.ops.cuda import loader
from sancli.ops.trunk import maps


class Card(NamedTuple):
    """What the choice of a kernel depends on."""

    capability: tuple[int, int]
    shared: int
    """Bytes of shared memory that a block may have."""


CARDS = {  # CUDA C++ Programming Guide, table of technical specifications by compute capability
    "sm_75": Card((7, 5), 64 << 10),
    "sm_80": Card((8, 0), 163 << 10),
    "sm_90": Card((9, 0), 227 << 10),
    "sm_120": Card((12, 0), 99 << 10),
}


class Launch(NamedTuple):
    """One launch, without its arguments."""

    source: str
    kernel: str
    threads: int
    shared: int
    """Bytes of dynamic shared memory."""


class Unmade(Route):
    """The CUDA operators, with convolutions that give whatever lies in memory: no number is looked at."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A convolution on a CPU takes seconds in 16 bits; all of them are 1x1."""
        if func is torch.ops.aten.convolution.default:
            x, weight, *_ = args
            return maps(x, len(weight), *x.shape[2:])
        if func is torch.ops.aten.convolution_backward.default:
            _, x, weight, *_ = args
            return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(len(weight))
        with self if func.namespace == "san" else contextlib.nullcontext():  # those inside of it too
            return super().__torch_dispatch__(func, types, args, kwargs)


@contextlib.contextmanager
def noted(card: Card) -> Iterator[set[Launch]]:
    """Within it the operators choose kernels for tensors of any device as for a card; nothing is launched."""
    found: set[Launch] = set()

    def launch(source: str, kernel: str, grid: Any, block: Any, *args: Any, shared: int = 0) -> None:
        found.add(Launch(source, kernel, int(np.prod(block)), int(shared)))

    def usable(*tensors: Tensor | None) -> bool:
        given = [tensor for tensor in tensors if tensor is not None]
        halves = any(tensor.dtype == torch.bfloat16 for tensor in given)
        return loader.fits(*given) and (not halves or card.capability >= loader.OLDEST_WITH_BFLOAT16)

    instead = {
        "launch": launch,
        "usable": usable,
        "shared_limit": lambda device: card.shared,
        "capability": lambda device: card.capability,
    }
    with patch.multiple(loader, **instead), Unmade(on_cuda):
        yield found


def of_networks(card: Card, dtype: torch.dtype) -> set[Launch]:
    """What a training step and an inference of the networks launch.

    SAN10, 15 and 19 differ in the number of their blocks alone: one block a stage stands for all.
    """
    own = torch.float64 if dtype == torch.float64 else torch.float32
    image = torch.zeros(1, 3, 224, 224, dtype=own).to(memory_format=torch.channels_last)
    found: set[Launch] = set()
    for attention, relations in RELATIONS.items():
        net = SAN(attention, relations[0], (1,) * 5, 6).to(own)
        with noted(card) as launches, torch.autocast("cpu", dtype, enabled=dtype != own):
            net(image).sum().backward()
            with torch.inference_mode():
                net.eval()(image)
        found |= launches
    return found


def of_aggregation(card: Card, dtype: torch.dtype) -> set[Launch]:
    """What the other relations launch: aggregation alone, at the sizes of the networks' layers."""
    with noted(card) as found:
        for size in STAGES:
            one = case("aggregation", size._replace(images=1), dtype)
            results(one.function, *one.args)
    return found


def of_awkward_sizes(card: Card, dtype: torch.dtype) -> set[Launch]:
    """What runs where a size suits no fast kernel."""
    with noted(card) as found:
        for operator in OPERATORS:
            for one in awkward(operator, dtype):
                results(one.function, *one.args, **one.options)
    return found


def launches(card: Card, dtype: torch.dtype) -> list[Launch]:
    """All of them, each kernel once, with the most threads and the most shared memory that it is given."""
    most: dict[tuple[str, str], Launch] = {}
    for one in of_networks(card, dtype) | of_aggregation(card, dtype) | of_awkward_sizes(card, dtype):
        before = most.get((one.source, one.kernel), one)
        most[one.source, one.kernel] = Launch(
            one.source, one.kernel, max(one.threads, before.threads), max(one.shared, before.shared)
        )
    return sorted(most.values())
