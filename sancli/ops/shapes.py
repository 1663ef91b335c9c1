"""Shapes of what the public operators are given: kernels read by them, so a wrong one must be an error.

Sizes are compared as they are, never made integers by len(): a free batch size stays free in torch.export.
"""

from torch import Tensor

from sancli.ops.norm import Norm


def expect(name: str, tensor: Tensor | None, *sizes: int, letters: str) -> None:
    """Holds a tensor to its shape.

    Raises:
        ValueError: It has another; says which, and by which letters of the operator's formula.
    """
    if tensor is not None and tuple(tensor.shape) != sizes:
        raise ValueError(f"{name} is {list(tensor.shape)}, and must be {letters}: {list(sizes)}.")


def expect_maps(**maps: Tensor) -> None:
    """Holds tensors to four dimensions, N, C, H, W, and those after the first to its N, H and W."""
    for name, tensor in maps.items():
        if tensor.ndim != 4:
            raise ValueError(f"{name} is {list(tensor.shape)}, and must be [N, C, H, W].")
    images, _, *size = next(iter(maps.values())).shape
    for name, tensor in maps.items():
        expect(name, tensor, images, tensor.shape[1], *size, letters="[N, C, H, W]")


def expect_norm(name: str, norm: Norm, channels: int) -> None:
    """Holds each tensor of a norm to its channels."""
    for field in ("gamma", "beta", "mean", "var"):
        expect(f"{name}.{field}", getattr(norm, field), channels, letters="[C]")


def expect_shared(value: Tensor, weights: int) -> None:
    """Holds the channels of `value` to a multiple of the weight channels, which they share."""
    if not weights or value.shape[1] % weights:
        raise ValueError(f"value has {value.shape[1]} channels, and must have a multiple of {weights}.")
