"""Which implementation of the san operators runs, whatever the device of their tensors."""

from collections.abc import Callable
from typing import Any

import subjects  # noqa: F401 -- makes sancli importable from a bare checkout
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sancli.ops  # noqa: F401 -- the operators
from sancli.ops import registry

Function = Callable[..., Any]


class Route(TorchDispatchMode):
    """Within it the san operators run as `chosen` says by their names; tensors stay where they are."""

    def __init__(self, chosen: Callable[[str], Function]) -> None:
        super().__init__()
        self.chosen = chosen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator of torch or ours."""
        if func.namespace == "san":
            function = self.chosen(func.name().partition("::")[2])
            return registry.by_itself(function)(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def plain() -> Route:
    """The operators in plain PyTorch."""
    return Route(registry.definition)


def on_cuda(name: str) -> Function:
    """What launches an operator's CUDA kernels."""
    return registry.implemented("CUDA").get(name) or registry.definition(name)


def cuda() -> Route:
    """The Python that launches the CUDA kernels; without a GPU, something has to stand in for those."""
    return Route(on_cuda)


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
