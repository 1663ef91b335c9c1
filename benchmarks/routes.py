"""Which implementation of the san operators runs, whatever the device of their tensors."""

from collections.abc import Callable
from typing import Any

import subjects  # noqa: F401 -- makes sancli importable from a bare checkout
import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._python_dispatch import TorchDispatchMode

import sancli.ops  # noqa: F401 -- the operators

NO_KERNELS = DispatchKey.MPS
"""A device that nobody wrote kernels for: the plain implementations run."""


class Route(TorchDispatchMode):
    """Within it, the san operators run as they do on another device; tensors stay where they are."""

    def __init__(self, key: DispatchKey) -> None:
        super().__init__()
        self.keys = DispatchKeySet(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator of torch or ours."""
        if func.namespace == "san":
            return func.redispatch(self.keys, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def plain() -> Route:
    """The operators in plain PyTorch."""
    return Route(NO_KERNELS)


def cuda() -> Route:
    """The Python that launches the CUDA kernels; without a GPU, something has to stand in for those."""
    return Route(DispatchKey.CUDA)


def results(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Tensor]:
    """All tensors that a function gives, and the gradients of its arguments by a fixed sum of the first."""
    outputs = [x for x in torch.utils._pytree.tree_leaves(function(*args, **kwargs)) if isinstance(x, Tensor)]
    leaves = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    wanted = [x for x in leaves if x.requires_grad]
    if not wanted:
        return outputs
    shares = torch.linspace(-1, 1, outputs[0].numel(), dtype=torch.float64).sin()  # the same for every type
    seed = (7 * shares.view(outputs[0].shape)).to(outputs[0])
    return [*outputs, *torch.autograd.grad(outputs[0], wanted, seed)]
