"""The operators: torch.ops.san.*, their autograd, and how to call them."""

import sancli.ops.cpu  # the C++ kernels register themselves
import sancli.ops.cuda  # noqa: F401 -- and so do the CUDA kernels
from sancli.ops.aggregation import aggregation
from sancli.ops.norm import Norm
from sancli.ops.pairwise import pairwise_attention
from sancli.ops.patchwise import patchwise_attention
from sancli.ops.reference.windows import reflected
from sancli.ops.stem import stem
from sancli.ops.trunk import bn_relu_conv1x1, bn_relu_pool, norm_relu

__all__ = [
    "Norm",
    "aggregation",
    "bn_relu_conv1x1",
    "bn_relu_pool",
    "norm_relu",
    "pairwise_attention",
    "patchwise_attention",
    "reflected",
    "stem",
]
