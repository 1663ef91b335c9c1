"""A SAN as inference runs it: whatever its weights alone decide is computed once, beforehand.

In every call, torch would merge the three convolutions of an attention, bring all weights into the order in
which oneDNN multiplies, and write a block's output twice, before and after it is added to the block's input.
Measured on one AVX-512 core beside other work, batch 1, 224 px: SAN10 65 -> 57 ms, SAN15 92 -> 80 ms.
"""

import copy

import torch
from torch import Tensor, nn

from sancli import ops
from sancli.model.san import SAN, Attention, Bottleneck
from sancli.model.trunk import norm_of

PLACING = [0, 0], [1, 1], [1, 1], 1
"""Padding, stride, dilation and groups of a 1x1 convolution."""
onednn = torch.ops.mkldnn
"""What torch.compile and torch.jit run frozen convolutions with."""


def prepared(network: nn.Module, *, side: int) -> nn.Module:
    """A copy of `network` for single images on the CPU in fp32; the network itself where nothing is gained.

    The copy has weights of its own: it does not learn what the network learns later.

    Args:
        network: In eval mode.
        side: Of the images, in pixels. Others are answered as well, but slowly: oneDNN's order of the weights
            depends on the sizes, and another one is made anew in each call (10 times slower, at worst).
    """
    if not (isinstance(network, SAN) and torch.backends.mkldnn.is_available() and _is_plain(network)):
        return network
    instead: dict[int, object] = {}
    for number in range(5):
        conv, blocks = getattr(network, f"conv{number}"), getattr(network, f"layer{number}")
        here = side >> (number + 1)
        instead[id(conv)] = PackedConv1x1(conv.weight, conv.bias, here)
        instead |= {id(block): PreparedBottleneck(block, here) for block in blocks}
    return copy.deepcopy(network, instead)  # what `instead` names counts as copied already


def _is_plain(network: nn.Module) -> bool:
    return all(value.device.type == "cpu" and value.dtype == torch.float32 for value in network.parameters())


class PackedConv1x1(nn.Module):
    """A 1x1 convolution that keeps its weights as oneDNN wants them.

    Args:
        weight: [O, C, 1, 1].
        bias: [O], or None.
        side: Of the maps that it will see.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, side: int) -> None:
        super().__init__()
        shape = [1, weight.shape[1], side, side]
        self.packed: Tensor = onednn._reorder_convolution_weight(weight.detach(), *PLACING, shape)
        self.bias = None if bias is None else bias.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, O, H, W]."""
        y: Tensor = onednn._convolution_pointwise(x, self.packed, self.bias, *PLACING, "none", [], "")
        return y

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Adds what it makes of `x` to `total` [N, O, H, W], in place."""
        y: Tensor = onednn._convolution_pointwise_.binary(
            total, x, self.packed, self.bias, *PLACING, "add", 1.0, None, [], None
        )
        return y


class PreparedBottleneck(nn.Module):
    """A Bottleneck whose input nobody else needs: its output takes the place of it."""

    def __init__(self, block: Bottleneck, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = copy.deepcopy([norm_of(bn, 0) for bn in (block.bn1, block.bn2)])
        self.conv_in = PackedConv1x1(*block.sam.merged(), side)
        self.sam = _without_convolutions(block.sam)
        self.conv_out = PackedConv1x1(block.conv.weight, block.conv.bias, side)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        attended = self.sam.attend(self.conv_in(ops.norm_relu(x, self.norm1)))  # [N, C / 4, H, W]
        return self.conv_out.add_to(x, ops.norm_relu(attended, self.norm2))


def _without_convolutions(attention: Attention) -> Attention:
    """A copy that can `attend` alone."""
    merged = attention.conv1, attention.conv2, attention.conv3
    return copy.deepcopy(attention, {id(conv): nn.Identity() for conv in merged})
