"""Which way the weights are made and used, and why."""

from types import ModuleType

from torch import Tensor

from sancli.ops.cuda.attend import apart, fused, small


def choose(hidden: Tensor, value: Tensor, kernel_size: int) -> ModuleType:
    """One of the modules beside this one, which have the same functions."""
    if fused.fits(hidden, value, kernel_size):
        return fused
    if small.fits(hidden, value, kernel_size):
        return small  # the first layer: its products are too small for tensor cores and for cuBLAS
    return apart  # fp32 and fp64: a product made again costs as much as it saves; sizes without a kernel
