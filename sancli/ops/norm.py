"""Batch normalisation as operators take it, and as a scale and a shift."""

from typing import NamedTuple

import torch
from torch import Tensor

NORM = "Tensor gamma, Tensor beta, Tensor? mean, Tensor? var, float eps"
"""A Norm in an operator's schema."""
KNOWN = "Tensor gamma, Tensor beta, Tensor mean, Tensor var, float eps"
"""An Affine."""


class Norm(NamedTuple):
    """What an operator is told of one BatchNorm; tensors are [C].

    `mean` and `var` are None where the statistics of the batch itself are wanted.
    """

    gamma: Tensor
    beta: Tensor
    mean: Tensor | None
    var: Tensor | None
    eps: float

    def known(self, mean: Tensor, var: Tensor) -> "Affine":
        """With these statistics."""
        return Affine(self.gamma, self.beta, mean, var, self.eps)


class Affine(NamedTuple):
    """One BatchNorm with the statistics that it uses, all known."""

    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor
    eps: float

    def fold(self) -> tuple[Tensor, Tensor]:
        """Scale and shift: scale * x + shift = (x - mean) / sqrt(var + eps) * gamma + beta."""
        scale = self.gamma.to(self.mean.dtype) * torch.rsqrt(self.var + self.eps)
        return scale, self.beta.to(self.mean.dtype) - self.mean * scale

    def fold_backward(self, grad_scale: Tensor, grad_shift: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of gamma, beta, mean and var. Never divides by gamma, which may be 0."""
        invstd = torch.rsqrt(self.var + self.eps)
        grad_scale = grad_scale - self.mean * grad_shift
        scale = self.gamma.to(self.mean.dtype) * invstd
        return (
            (grad_scale * invstd).to(self.gamma.dtype),
            grad_shift.to(self.beta.dtype),
            -scale * grad_shift,
            grad_scale * scale * invstd * invstd * -0.5,
        )


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type that sums and statistics are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_type(x: Tensor) -> torch.dtype:
    """The type that a convolution of `x` would run in."""
    kind = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype
