"""What a training step holds in memory: kept for backward, and the growth of a process at its peak."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from measure import keep_memory
from subjects import forward, images, make, train_step
from torch import Tensor

MIB = 2**20


def memory(name: str, batch: int, size: int) -> dict[str, float]:
    """Both, in MiB an image; to be asked in a fresh process, as a peak is of one network only."""
    keep_memory()
    make(name)[0].train()
    train_step(name, images(name, 2, 128))  # momentum and libraries are there from now on
    return {"saved_mib": saved_mib(name, batch, size)} | peak_growth_mib(name, batch, size)


def saved_mib(name: str, batch: int, size: int, device: str = "cpu") -> float:
    """MiB an image that are kept for backward: each storage once, parameters apart.

    What a custom Function keeps outside of save_for_backward, on its context, counts too.
    """
    parameters = {p.untyped_storage().data_ptr() for p in make(name, device)[0].train().parameters()}
    storages = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        x = images(name, batch, size, device)
        out = forward(name, x)  # alive until counted, so that no storage is used twice
    for node in graph(out):
        for tensor in tensors(getattr(node, "__dict__", {})):
            note(tensor)
    return round(sum(storages.values()) / batch / MIB, 2)


def graph(out: Tensor) -> Iterator[Any]:
    """The nodes of autograd behind a tensor; that of a custom Function is its context."""
    seen, waiting = set(), [out.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            yield node


def tensors(value: Any, seen: frozenset[int] = frozenset()) -> Iterator[Tensor]:
    """The tensors in a nest of containers and plain objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | set | dict) or hasattr(value, "__dict__"):
        parts = vars(value) if hasattr(value, "__dict__") else value
        for part in parts.values() if isinstance(parts, dict | MappingProxyType) else parts:
            if id(part) not in seen:
                yield from tensors(part, seen | {id(value)})


def peak_growth_mib(name: str, batch: int, size: int) -> dict[str, float]:
    """MiB an image by which the process grows in a training step; nothing where the system does not say."""
    if sys.platform != "linux":
        return {}
    x = images(name, batch, size)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status("VmRSS")
    train_step(name, x)
    return {"peak_growth_mib": round((status("VmHWM") - before) / batch / MIB, 2)}


def status(key: str) -> int:
    """Bytes, from what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
