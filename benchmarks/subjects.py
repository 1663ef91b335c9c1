"""What is measured: networks by their names, a training step, an inference.

A name is words joined by "-": resnet50; or san10, san15 or san19 and an attention; then any of
    naive   as the authors' code runs it, layer by layer
    plain   this project's operators in plain PyTorch (SAN_OPS=reference): what runs without a compiler
    nchw    channels outermost; they are innermost in all others but naive, which knows no layout
    folded  BatchNorm folded into the convolutions, by torch.fx; for inference alone
    bf16    under torch.autocast
    tf32    fp32 whose matrix products a GPU does in TF32; without a word it does them in fp32
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # runs from a bare checkout too

from published import Published  # noqa: E402

from sancli.model import build  # noqa: E402

NUM_CLASSES = 6
SANS = tuple(
    f"{arch}-{attention}" for arch in ("san10", "san15", "san19") for attention in ("patchwise", "pairwise")
)
PRECISIONS = ("bf16", "tf32")
Subject = tuple[nn.Module, torch.optim.Optimizer]


def has(name: str, word: str) -> bool:
    """Whether a word is part of a name."""
    return word in name.split("-")


def base_of(name: str) -> str:
    """The ResNet-50 that a network is compared with: channels innermost, of the same precision."""
    return "-".join(["resnet50", *(word for word in PRECISIONS if has(name, word))])


def make(name: str, device: str = "cpu") -> Subject:
    """The network and its optimizer; all precisions share one, as parameters are fp32 anyway."""
    return _make("-".join(word for word in name.split("-") if word not in PRECISIONS), device)


@functools.cache
def _make(name: str, device: str) -> Subject:
    torch.manual_seed(0)
    net = (resnet50(name) if name.startswith("resnet50") else san(name)).to(device)
    return net, torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)


def forget() -> None:
    """Drops all networks: what they hold on a GPU is free again."""
    _make.cache_clear()


def resnet50(name: str) -> nn.Module:
    """That of torchvision."""
    import torchvision  # not earlier: it takes seconds, which most processes need not wait

    net = torchvision.models.resnet50(num_classes=NUM_CLASSES)
    net = fuse(net.eval()) if has(name, "folded") else net
    return net if has(name, "nchw") else net.to(memory_format=torch.channels_last)


def san(name: str) -> nn.Module:
    """Ours, or with its parameters the authors'."""
    arch, attention = name.split("-")[:2]
    net = build(arch, attention=attention, num_classes=NUM_CLASSES)
    return Published(net.to(memory_format=torch.contiguous_format)) if has(name, "naive") else net


def images(name: str, batch: int, size: int, device: str = "cpu") -> Tensor:
    """Random ones, in the layout that the network wants."""
    x = torch.randn(batch, 3, size, size, device=device)
    outermost = has(name, "naive") or has(name, "nchw")
    return x if outermost else x.to(memory_format=torch.channels_last)


def autocast(name: str, device: str = "cpu") -> torch.autocast:
    """The precision of a network's forward pass."""
    return torch.autocast(device, torch.bfloat16, enabled=has(name, "bf16"))


@contextlib.contextmanager
def products(name: str) -> Iterator[None]:
    """The precision of a GPU's products of fp32 matrices, backward pass included."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [of.allow_tf32 for of in settings]
    try:
        for of in settings:
            of.allow_tf32 = has(name, "tf32")
        yield
    finally:
        for of, value in zip(settings, before, strict=True):
            of.allow_tf32 = value


def forward(name: str, x: Tensor) -> Tensor:
    """Its logits, in fp32."""
    with autocast(name, x.device.type):
        return make(name, x.device.type)[0](x).float()


def train_step(name: str, x: Tensor) -> None:
    """Forward, loss, backward, update."""
    _, optimizer = make(name, x.device.type)
    with products(name):
        F.cross_entropy(forward(name, x), torch.arange(len(x), device=x.device) % NUM_CLASSES).backward()
    optimizer.step()
    optimizer.zero_grad()


def infer(name: str, x: Tensor) -> None:
    """Forward without autograd."""
    with torch.inference_mode(), products(name):
        forward(name, x)


def ready(name: str, kind: str, *, batch: int, size: int, device: str = "cpu") -> Callable[[], None]:
    """One call of it is one step of `kind`, train or infer; the network is in its mode already."""
    make(name, device)[0].train(kind == "train")
    step = train_step if kind == "train" else infer
    return functools.partial(step, name, images(name, batch, size, device))
