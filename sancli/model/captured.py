"""A network as inference runs it on a GPU: its kernels are launched all at once, by replaying a CUDA graph.

A small batch keeps a GPU busy for less time than Python needs to launch the kernels one by one. A graph knows
addresses, not names: parameters may change in place, but not be replaced.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sancli.console import warn

KEPT = 4
"""Graphs at a time; each holds the memory of a forward pass."""


class Graph(NamedTuple):
    """A forward pass that can be replayed."""

    cuda: torch.cuda.CUDAGraph
    image: Tensor
    """Where it reads."""
    logits: Tensor
    """Where it writes."""

    def replay(self, image: Tensor) -> Tensor:
        """What the pass gives for another image of the same shape."""
        self.image.copy_(image)
        self.cuda.replay()
        return self.logits.clone()  # the next replay writes there again


def captured(network: nn.Module, device: torch.device) -> nn.Module:
    """The same network, whose forward passes are replayed where it is on a GPU; elsewhere itself."""
    return CapturedNetwork(network) if device.type == "cuda" else network


class CapturedNetwork(nn.Module):
    """Replays the eval forward of a network; a graph for each shape that was seen before.

    The first pass of a shape runs as it is: it compiles what has to be compiled, and shapes seen once cost
    nothing. The second is captured. Where none can be, the network is called, and `reason` says why.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.reason = ""
        """Why the last call was not a replay; empty if it was."""
        self._failure = ""
        self._graphs: OrderedDict[Hashable, Graph | None] = OrderedDict()  # the longest unused first

    def forward(self, image: Tensor) -> Tensor:
        """[N, 3, H, W] to logits [N, num_classes]."""
        self.reason = self._failure or why_not(self, image)
        graph = None if self.reason else self._graph(image)
        logits: Tensor = self.network(image) if graph is None else graph.replay(image)
        return logits

    def _graph(self, image: Tensor) -> Graph | None:
        """The graph for calls like this one; None for the first of them, or if capturing fails."""
        key = situation(image)
        if key not in self._graphs:
            self._graphs[key] = None
            self.reason = "the first image of its shape"
        elif self._graphs[key] is None:
            self._graphs[key] = self._captured(image)
        self._graphs.move_to_end(key)
        while len(self._graphs) > KEPT:
            self._graphs.popitem(last=False)
        return self._graphs[key]

    def _captured(self, image: Tensor) -> Graph | None:
        graph, still = torch.cuda.CUDAGraph(), image.clone()
        capturing = torch.cuda.graph(
            graph, capture_error_mode="thread_local"
        )  # others may allocate meanwhile
        try:
            with uncached_autocast(image.device.type), capturing:
                logits = self.network(still)
        except RuntimeError as error:  # torch's own for all that CUDA refuses, lack of memory too
            self.reason = self._failure = f"CUDA graphs do not work here: {str(error).splitlines()[0]}"
            self._graphs.clear()
            warn(f"{self._failure}. Going on without them.")
            return None
        return Graph(graph, still, logits)


def why_not(network: nn.Module, image: Tensor) -> str:
    """Why a call cannot be a replay; empty where it can."""
    if not image.is_cuda:
        return f"the image is on {image.device.type}"
    if network.training:
        return "the network is in training mode"
    if torch.is_grad_enabled():
        return "gradients can be wanted"
    return "a graph is being captured already" if torch.cuda.is_current_stream_capturing() else ""


def situation(image: Tensor) -> Hashable:
    """All of a call that a graph depends on; tensors of inference mode cannot be written to outside of it."""
    kind = image.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return image.shape, image.stride(), image.dtype, image.device, autocast, torch.is_inference_mode_enabled()


def uncached_autocast(kind: str) -> torch.autocast:
    """The autocast that is on, without its cache: a graph would read weights there that are freed later."""
    return torch.autocast(
        kind,
        dtype=torch.get_autocast_dtype(kind),
        enabled=torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )
