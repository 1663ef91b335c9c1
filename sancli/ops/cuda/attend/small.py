"""Convolution and aggregation in one by kernels/attend_small.cu: every type, few groups, small footprints.

Shapes: hidden [N, G, H, W]; value [N, 8 G, H, W]; weight [G * K * K, G], offsets inside groups, as published.
"""

from torch import Tensor

from sancli.ops.cuda import loader
from sancli.ops.cuda.arrangement import arranged
from sancli.ops.cuda.attend.apart import by_offset, published
from sancli.ops.cuda.placement import placed, sizes, squares
from sancli.ops.norm import accumulation_type
from sancli.ops.trunk import maps

SOURCE, SIDE, SHARES, THREADS = "attend_small.cu", 16, 8, 256
REGISTERS = 64
"""Of a thread, for its sums of the gradients of weight and bias."""
BLOCKS = 512
"""Of the gradient of hidden: a number that no card decides, so that results repeat."""


def fits(hidden: Tensor, value: Tensor, kernel_size: int) -> bool:
    """Whether a thread's registers hold all sums of a pixel."""
    groups, channels = hidden.shape[1], value.shape[1]
    return (
        kernel_size**2 * groups * (groups + 1) <= REGISTERS
        and groups & (groups - 1) == 0
        and channels == SHARES * groups
        and min(value.shape[2:]) > kernel_size // 2
        and _shared(value, groups, kernel_size) <= loader.shared_limit(value.device)
    )


def _shared(value: Tensor, groups: int, kernel_size: int) -> int:
    """Bytes of shared memory of the largest of the kernels."""
    size = value.element_size()
    pitch = (-(-SHARES * groups * size // 16) | 1) * 16
    tiles = (SIDE + kernel_size - 1) ** 2 * (pitch + groups * size)
    counts = kernel_size**2 * groups * (groups + 1) * accumulation_type(value.dtype).itemsize
    return max(tiles, THREADS // 32 * counts)


def attend(hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """[N, M, H, W]."""
    out = maps(value, *value.shape[1:])
    given, made_of = (hidden, value), _made_of(weight, bias, value, kernel_size)
    _launch("forward", hidden, value, kernel_size, given, *made_of, out)
    return out


def attend_backward(
    grad: Tensor, hidden: Tensor, value: Tensor, weight: Tensor, bias: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, value, weight and bias."""
    k, groups, total = kernel_size, hidden.shape[1], squares(value, SIDE)
    grad_value, grad_hidden = maps(value, *value.shape[1:]), maps(hidden, *hidden.shape[1:])
    last, by_offsets = _made_of(weight, bias, value, k)
    _launch("backward_value", hidden, value, k, (grad, hidden), last, by_offsets, grad_value)
    shares = min(total, BLOCKS)
    sums = last.new_empty(shares, k**2, groups + 1, groups)
    given = grad, hidden, value
    _launch("backward_hidden", hidden, value, k, given, last, grad_hidden, sums, blocks=shares)
    added = sums.sum(0)
    grad_weight, grad_bias = (
        arranged(added, added.dtype, x, k) for x in (_published_weight, _published_bias)
    )
    return grad_hidden, grad_value, grad_weight, grad_bias


def _made_of(weight: Tensor, bias: Tensor, value: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """[K * K, hidden, groups], and the bias by offset."""
    real = accumulation_type(value.dtype)
    return arranged(weight, real, _order, kernel_size), arranged(bias, real, by_offset, kernel_size)


def _order(weight: Tensor, kernel_size: int) -> Tensor:
    last: Tensor = by_offset(weight, kernel_size).unflatten(0, (kernel_size**2, -1)).transpose(1, 2)
    return last


def _published_weight(sums: Tensor, kernel_size: int) -> Tensor:
    """Of [offset, hidden and bias, group]."""
    return published(sums[:, :-1].transpose(1, 2).flatten(0, 1), kernel_size)


def _published_bias(sums: Tensor, kernel_size: int) -> Tensor:
    return published(sums[:, -1].flatten(), kernel_size)


def _launch(
    name: str,
    hidden: Tensor,
    value: Tensor,
    kernel_size: int,
    given: tuple[Tensor, ...],
    *rest: Tensor,
    blocks: int | None = None,
) -> None:
    """`blocks`: of a kernel whose blocks go on to the next square."""
    groups, total = hidden.shape[1], squares(value, SIDE)
    counted = sizes(total) if blocks else sizes()
    loader.launch(
        SOURCE, f"attend_small_{name}<{loader.ctype(value.dtype)}, {kernel_size}, {groups}>",
        (blocks or total,), (THREADS,),
        *(part for x in given for part in placed(x, x.shape[1])), *rest, *counted, *sizes(*value.shape[2:]),
        shared=_shared(value, groups, kernel_size),
    )  # fmt: skip
