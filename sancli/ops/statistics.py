"""Batch statistics of footprints, exact, without ever making a footprint.

A BatchNorm over shifted copies of a map sees each pixel as often as the reflected border shows it. How often
is a matter of the map's size alone, so mean and variance are small matrix products.

Shapes: N images, C channels, H x W pixels, K footprint side.
Source: written from the definition; held to unfold + BatchNorm in float64 by the tests (agree to 1e-13).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def shown(size: int, kernel_size: int, like: Tensor) -> Tensor:
    """[K, size, size]: 1 where offset o seen from pixel i shows pixel j, along one side of a map."""
    offset = torch.arange(kernel_size, device=like.device)[:, None] - kernel_size // 2
    index = (offset + torch.arange(size, device=like.device)).abs() % max(1, 2 * (size - 1))  # [K, size]
    index = torch.minimum(index, 2 * (size - 1) - index)
    return F.one_hot(index, size).to(like.dtype)


def window_statistics(x: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every shifted copy of `x` [N, C, H, W]: both [C, K * K].

    With S the sum of x over the images and M[o, j] how often offset o shows line j, the sum over the copy at
    (o, p) is M_y S M_x^T at (o, p). Moments are taken around the mean of the channel, for precision.
    """
    rows, columns = (shown(size, kernel_size, x).sum(1) for size in x.shape[2:])
    centre = x.mean((0, 2, 3), keepdim=True)
    x = x - centre
    count = x.numel() / x.shape[1]
    mean = (rows @ x.sum(0) @ columns.T / count).flatten(1)
    square = (rows @ (x * x).sum(0) @ columns.T / count).flatten(1)
    return mean + centre.flatten()[:, None], (square - mean * mean).clamp_min_(0)


def window_statistics_backward(x: Tensor, mean: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Tensor:
    """The gradient of `x`, from those of mean and variance [C, K * K]."""
    kernel_size = round(mean.shape[1] ** 0.5)
    rows, columns = (shown(size, kernel_size, x).sum(1) for size in x.shape[2:])
    count = x.numel() / x.shape[1]

    def onto_pixels(grad: Tensor) -> Tensor:
        spread: Tensor = rows.T @ grad.unflatten(1, (kernel_size, kernel_size)) @ columns / count
        return spread

    centre = x.mean((0, 2, 3), keepdim=True)  # var = mean of (x - centre)^2 - (mean - centre)^2
    linear = onto_pixels(grad_mean - 2 * grad_var * (mean - centre.flatten()[:, None]))
    return linear + 2 * onto_pixels(grad_var) * (x - centre)


def sum_statistics(a: Tensor, b: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] of a_i + b_{i+o}, over images, pixels i and offsets o; both [N, C, H, W].

    E[(a + b)^2] = E[a^2] + 2 E[a box(b)] + E[visits b^2], around means, with box the sum over a footprint and
    visits how many footprints show a pixel.
    """
    box_rows, box_columns, visits = _boxes(a, kernel_size)
    count = a.numel() / a.shape[1] * kernel_size**2
    mean_a, mean_b = _means(a, b, visits, count)
    a, b = a - mean_a, b - mean_b
    square = kernel_size**2 * a * a + 2 * a * (box_rows @ b @ box_columns.T) + visits * b * b
    return (mean_a + mean_b).flatten(), square.sum((0, 2, 3)).div_(count).clamp_min_(0)


def sum_statistics_backward(
    a: Tensor, b: Tensor, kernel_size: int, grad_mean: Tensor, grad_var: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of `a` and `b`, from those of mean and variance [C]."""
    box_rows, box_columns, visits = _boxes(a, kernel_size)
    count = a.numel() / a.shape[1] * kernel_size**2
    mean_a, mean_b = _means(a, b, visits, count)
    a, b = a - mean_a, b - mean_b
    linear, square = (grad[:, None, None] / count for grad in (grad_mean, 2 * grad_var))
    grad_a = kernel_size**2 * (linear + square * a) + square * (box_rows @ b @ box_columns.T)
    grad_b = visits * (linear + square * b) + square * (box_rows.T @ a @ box_columns)
    return grad_a, grad_b


def _boxes(x: Tensor, kernel_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over a footprint as two matrices [H, H] and [W, W]; how many footprints show a pixel [H, W]."""
    rows, columns = (shown(size, kernel_size, x).sum(0) for size in x.shape[2:])
    return rows, columns, rows.sum(0)[:, None] * columns.sum(0)


def _means(a: Tensor, b: Tensor, visits: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """The means of a_i and of b_{i+o}, [1, C, 1, 1]."""
    return a.mean((0, 2, 3), keepdim=True), (visits * b).sum((0, 2, 3), keepdim=True) / count
