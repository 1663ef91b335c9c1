"""Which CUDA kernels are launched, found by running what launches them: launches are only written down."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from cases import OPERATORS, STAGES, awkward, case
from routes import on_cuda, results
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sancli.model.relations import RELATIONS
from sancli.model.san import SAN
from sancli.ops import registry
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


class Notes(TorchDispatchMode):
    """Notes what the operators launch on tensors of a CPU, as for a card; the numbers are never looked at.

    Convolutions, all of them 1x1, give whatever lies in memory: in 16 bits they take seconds on a CPU.
    """

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.launches: set[Launch] = set()
        self.count = 0
        self.plain: set[str] = set()
        """Operators that launched nothing: plain PyTorch did their work."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator of torch or ours."""
        if func is torch.ops.aten.convolution.default:
            x, weight, *_ = args
            return maps(x, len(weight), *x.shape[2:])
        if func is torch.ops.aten.convolution_backward.default:
            _, x, weight, *_ = args
            return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(len(weight))
        if func.namespace != "san":
            return func(*args, **(kwargs or {}))
        before, name = self.count, func.name().partition("::")[2]
        with self:  # for the convolutions inside of it
            made = registry.by_itself(on_cuda(name))(*args, **(kwargs or {}))
        if self.count == before:
            self.plain.add(name)
        return made

    def launch(self, source: str, kernel: str, grid: Any, block: Any, *args: Any, shared: int = 0) -> None:
        """In the place of the loader's."""
        self.count += 1
        self.launches.add(Launch(source, kernel, int(np.prod(block)), int(shared)))

    def usable(self, *tensors: Tensor | None) -> bool:
        """What the loader would say on the card."""
        given = [tensor for tensor in tensors if tensor is not None]
        halves = any(tensor.dtype == torch.bfloat16 for tensor in given)
        return loader.fits(*given) and (not halves or self.card.capability >= loader.OLDEST_WITH_BFLOAT16)


@contextlib.contextmanager
def noted(card: Card) -> Iterator[Notes]:
    """Within it the operators choose kernels as for a card; nothing is launched."""
    notes = Notes(card)
    instead = {
        "launch": notes.launch,
        "usable": notes.usable,
        "shared_limit": lambda device: card.shared,
        "capability": lambda device: card.capability,
    }
    with patch.multiple(loader, **instead), notes:
        yield notes


def of_network(card: Card, dtype: torch.dtype, attention: str, side: int = 224) -> Notes:
    """What a training step and an inference launch.

    SAN10, 15 and 19 differ in the number of their blocks alone: one block a stage stands for all.
    """
    own = torch.float64 if dtype == torch.float64 else torch.float32
    image = torch.zeros(1, 3, side, side, dtype=own).to(memory_format=torch.channels_last)
    net = SAN(attention, RELATIONS[attention][0], (1,) * 5, 6).to(own)
    with noted(card) as notes, torch.autocast("cpu", dtype, enabled=dtype != own):
        net(image).sum().backward()
        with torch.inference_mode():
            net.eval()(image)
    return notes


def of_aggregation(card: Card, dtype: torch.dtype) -> Notes:
    """What the other relations launch: aggregation alone, at the sizes of the networks' layers."""
    with noted(card) as notes:
        for size in STAGES:
            one = case("aggregation", size._replace(images=1), dtype)
            results(one.function, *one.args)
    return notes


def of_awkward_sizes(card: Card, dtype: torch.dtype) -> Notes:
    """What runs where a size suits no fast kernel."""
    with noted(card) as notes:
        for operator in OPERATORS:
            for one in awkward(operator, dtype):
                results(one.function, *one.args, **one.options)
    return notes


def launches(card: Card, dtype: torch.dtype) -> list[Launch]:
    """All of them, each kernel once, with the most threads and the most shared memory that it is given."""
    notes = [of_network(card, dtype, attention) for attention in RELATIONS]
    notes += [of_aggregation(card, dtype), of_awkward_sizes(card, dtype)]
    most: dict[tuple[str, str], Launch] = {}
    for one in set().union(*(of.launches for of in notes)):
        before = most.get((one.source, one.kernel), one)
        most[one.source, one.kernel] = Launch(
            one.source, one.kernel, max(one.threads, before.threads), max(one.shared, before.shared)
        )
    return sorted(most.values())
