"""How much of the machine a network uses: of its multiplications, and of its memory's bandwidth.

FLOPs are those of the network's definition, 2 for a multiply-add of convolutions, linear layers and the
aggregation; what an implementation computes twice is not counted twice. Bytes are what the operators that are
run read and write, each operand once: an operator may move more, and what still lies in a cache moves less.
"""

from typing import Any

import torch
import torch.nn.functional as F
from measure import best_of
from published import Published
from subjects import has, images, infer, make, resnet50, san, train_step
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def machine() -> dict[str, float]:
    """The best that this machine reaches: GFLOP/s of products of matrices in either type, GB/s of a copy."""
    source, target = torch.zeros(2**26), torch.ones(2**26)  # 256 MiB each: no cache holds them
    copy_s = best_of(lambda: target.copy_(source))
    return {
        "fp32_gflops": round(best_gflops(torch.float32)),
        "bf16_gflops": round(best_gflops(torch.bfloat16)),
        "copy_gb_s": round(2 * source.nbytes / copy_s / 1e9, 1),
    }


def best_gflops(dtype: torch.dtype) -> float:
    """The better of a product of matrices and a 1x1 convolution; torch hands them to different libraries."""
    x, weight = torch.randn(8192, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    image, kernel = x.view(8, 32, 32, 1024).permute(0, 3, 1, 2), weight[:, :, None, None]
    seconds = min(best_of(lambda: x @ weight), best_of(lambda: F.conv2d(image, kernel)))
    return 2 * x.numel() * len(weight) / seconds / 1e9


def gflop(name: str, size: int) -> dict[str, float]:
    """For one image, in training and in inference."""
    with torch.device("meta"):
        net = resnet50("resnet50-nchw") if name.startswith("resnet50") else Published(san(name))
        image = torch.empty(2, 3, size, size)
        with FlopCounterMode(display=False) as inference, torch.no_grad():
            net(image)
        with FlopCounterMode(display=False) as training:
            net(image).sum().backward()
    sums = 0 if name.startswith("resnet50") else aggregation_flops(net.net, size)
    return {
        "train": (training.get_total_flops() / len(image) + 3 * sums) / 1e9,
        "infer": (inference.get_total_flops() / len(image) + sums) / 1e9,
    }


def aggregation_flops(net: nn.Module, size: int) -> int:
    """Of its forward, for one image; torch counts no sums of products that are not matrices."""
    total = 0
    for i in range(5):
        pixels = (size >> (i + 1)) ** 2
        for block in getattr(net, f"layer{i}"):
            total += 2 * block.sam.kernel_size**2 * block.sam.conv3.out_channels * pixels
    return total


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator; views and empty tensors move nothing."""
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or "empty" in func.__name__):
            moved = tree_leaves((args, kwargs, out))
            self.bytes += sum(t.numel() * t.element_size() for t in moved if isinstance(t, torch.Tensor))
        return out


def gigabytes(name: str, batch: int, size: int) -> dict[str, float]:
    """Read and written for one image, in training and in inference."""
    found, x = {}, images(name, batch, size)
    for kind, step in (("train", train_step), ("infer", infer)):
        make(name)[0].train(kind == "train")
        if not (has(name, "folded") and kind == "train"):
            with Traffic() as traffic:
                step(name, x)
            found[kind] = traffic.bytes / batch / 1e9
    return found
