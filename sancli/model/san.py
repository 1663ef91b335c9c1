"""SAN, the self-attention networks of Zhao, Jia and Koltun, CVPR 2020.

Shapes: N images, C channels in, R relation channels, M value channels, S channels sharing a weight,
G = M / S, K footprint side, H x W pixels. Module names are the keys of the published checkpoints.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli import console, ops
from sancli.model.relations import PAIRWISE, PATCHWISE, RELATIONS, pairwise_weights, patchwise_weights
from sancli.model.trunk import bn_relu_conv1x1, bn_relu_pool, norm_of, pixels, stem, track
from sancli.ops.cpu import build
from sancli.ops.cuda import compiling

build.announce = console.say  # the operators themselves know no console
compiling.busy = console.busy

LAYERS = {
    "san10": (2, 1, 2, 4, 1),
    "san15": (3, 2, 3, 5, 2),
    "san19": (3, 3, 4, 6, 3),
}  # blocks of each stage


class Attention(nn.Module):
    """What the two kinds share: query, key and value are 1x1 convolutions of the same input.

    Args:
        in_planes: C.
        rel_planes: R.
        out_planes: M.
        kernel_size: K, odd.
        relation: One of RELATIONS.
        mapped_planes: Channels of the relation, and of the hidden layer and the output of `conv_w`.
    """

    def __init__(
        self,
        in_planes: int,
        rel_planes: int,
        out_planes: int,
        kernel_size: int,
        relation: str,
        mapped_planes: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.planes, self.kernel_size, self.relation = (
            [rel_planes, rel_planes, out_planes],
            kernel_size,
            relation,
        )
        self.conv1 = nn.Conv2d(in_planes, rel_planes, 1)  # query
        self.conv2 = nn.Conv2d(in_planes, rel_planes, 1)  # key
        self.conv3 = nn.Conv2d(in_planes, out_planes, 1)  # value
        related, hidden, weights = mapped_planes
        self.conv_w = nn.Sequential(
            nn.BatchNorm2d(related),
            nn.ReLU(inplace=True),
            nn.Conv2d(related, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, weights, 1),
        )

    def merged(self) -> tuple[Tensor, Tensor]:
        """The three convolutions as one: weight [2 R + M, C, 1, 1] and bias."""
        convs = self.conv1, self.conv2, self.conv3
        biases = [conv.bias for conv in convs if conv.bias is not None]
        return torch.cat([conv.weight for conv in convs]), torch.cat(biases)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, M, H, W]."""
        return self.attend(F.conv2d(x, *self.merged()))

    def attend(self, merged: Tensor) -> Tensor:
        """[N, M, H, W], from query, key and value in one tensor [N, 2 R + M, H, W]."""
        raise NotImplementedError

    def operate(self, operator: Callable[..., Any], *inputs: Tensor, count: int) -> Tensor:
        """Calls an operator with the parameters of `conv_w`, whose norms see `count` values a channel."""
        norm1, _, conv1, norm2, _, conv2 = self.conv_w
        assert isinstance(norm1, nn.BatchNorm2d)
        assert isinstance(norm2, nn.BatchNorm2d)
        assert isinstance(conv1, nn.Conv2d)
        assert isinstance(conv2, nn.Conv2d)
        out, statistics1, statistics2 = operator(
            *inputs,
            norm1=norm_of(norm1, count),
            weight1=conv1.weight.flatten(1),
            norm2=norm_of(norm2, count),
            weight2=conv2.weight.flatten(1),
            bias2=conv2.bias,
            kernel_size=self.kernel_size,
        )
        track(norm1, statistics1, count)
        track(norm2, statistics2, count)
        assert isinstance(out, Tensor)
        return out


class PairwiseAttention(Attention):
    """Weighs a footprint by comparing its pixels with the middle one (section 3.1)."""

    OPERATORS = {"subtraction": -1, "summation": 1}  # the relations that are one operator, and its sign

    def __init__(
        self,
        in_planes: int,
        rel_planes: int,
        out_planes: int,
        share_planes: int,
        kernel_size: int,
        relation: str = RELATIONS["pairwise"][0],
    ) -> None:
        related = PAIRWISE[relation].planes(rel_planes) + 2  # with the position
        mapped = related, rel_planes, out_planes // share_planes
        super().__init__(in_planes, rel_planes, out_planes, kernel_size, relation, mapped)
        self.conv_p = nn.Conv2d(2, 2, 1)  # position

    def attend(self, merged: Tensor) -> Tensor:
        """[N, M, H, W], from query, key and value in one tensor [N, 2 R + M, H, W]."""
        query, key, value = merged.split(self.planes, 1)
        with torch.autocast(merged.device.type, enabled=False):  # 8 bits would not tell pixels apart
            place = self.conv_p(coordinates(merged, self.conv_p.weight.dtype))  # [1, 2, H, W]
        if self.relation in self.OPERATORS:
            operator = functools.partial(ops.pairwise_attention, sign=self.OPERATORS[self.relation])
            count = pixels(merged) * self.kernel_size**2
            return self.operate(operator, query, key, value, place, count=count)
        weights = pairwise_weights(
            PAIRWISE[self.relation], query, key, place, conv_w=self.conv_w, kernel_size=self.kernel_size
        )
        return ops.aggregation(value, weights, self.kernel_size)


class PatchwiseAttention(Attention):
    """Makes all weights of a footprint from all of its pixels (section 3.2)."""

    def __init__(
        self,
        in_planes: int,
        rel_planes: int,
        out_planes: int,
        share_planes: int,
        kernel_size: int,
        relation: str = RELATIONS["patchwise"][0],
    ) -> None:
        groups, offsets = out_planes // share_planes, kernel_size**2
        related = rel_planes * (offsets + 1)  # of the query, and of the key at each offset
        if relation in PATCHWISE:
            related = PATCHWISE[relation].planes(kernel_size)
        mapped = related, groups, offsets * groups
        super().__init__(in_planes, rel_planes, out_planes, kernel_size, relation, mapped)

    def attend(self, merged: Tensor) -> Tensor:
        """[N, M, H, W], from query, key and value in one tensor [N, 2 R + M, H, W]."""
        query, key, value = merged.split(self.planes, 1)
        if self.relation not in PATCHWISE:
            return self.operate(ops.patchwise_attention, query, key, value, count=pixels(merged))
        weights = patchwise_weights(
            PATCHWISE[self.relation], query, key, conv_w=self.conv_w, kernel_size=self.kernel_size
        )
        return ops.aggregation(value, weights, self.kernel_size)


ATTENTIONS: dict[str, type[PairwiseAttention | PatchwiseAttention]] = {
    "pairwise": PairwiseAttention,
    "patchwise": PatchwiseAttention,
}


def coordinates(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 2, H, W]: the column and the row of each pixel, from -1 to 1 along each side."""
    height, width = x.shape[2:]
    columns = torch.linspace(-1, 1, width, dtype=dtype, device=x.device).expand(height, width)
    rows = torch.linspace(-1, 1, height, dtype=dtype, device=x.device)[:, None].expand(height, width)
    return torch.stack([columns, rows])[None]


class Bottleneck(nn.Module):
    """Attention on a quarter of the channels, between 1x1 convolutions, added to its input (figure 2)."""

    def __init__(self, attention: str, relation: str, planes: int, kernel_size: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes)
        self.sam = ATTENTIONS[attention](planes, planes // 16, planes // 4, 8, kernel_size, relation)
        self.bn2 = nn.BatchNorm2d(planes // 4)
        self.conv = nn.Conv2d(planes // 4, planes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        merged = bn_relu_conv1x1(x, self.bn1, *self.sam.merged())  # [N, 3 C / 8, H, W]
        attended = self.sam.attend(merged)  # [N, C / 4, H, W]
        # In place: nobody keeps what the convolution gives, and a sum of its own would be as large.
        return bn_relu_conv1x1(attended, self.bn2, self.conv.weight, self.conv.bias).add_(x)


class SAN(nn.Module):
    """The network: five stages of blocks, each at half the size of the one before.

    Parameters start as torch's convolutions do (uniform, by fan-in), which is what the authors trained from:
    their code initialises nothing. Nothing bounds patchwise weights, though, and a young network in eval mode
    can grow from block to block without end on an image unlike the others; blocks that start at zero grow
    only as far as learning takes them. Measured, SAN10 on the demo's scenes, 20 epochs: without an answer 1
    or 2 of 58 images after most epochs, and none after any; top-1 after 4 epochs 64 % and 79 %, at best
    98.3 % and 100 %.

    Args:
        attention: A key of ATTENTIONS.
        relation: One of RELATIONS[attention].
        layers: Blocks in each of the five stages.
        num_classes: Length of the logits.
        zero_init_residual: The last convolution of each block starts at zero: the block is the identity. As
            in Goyal et al. 2017 (arXiv 1706.02677), section 5.1, and under torchvision's name for it.
    """

    def __init__(
        self,
        attention: str,
        relation: str,
        layers: tuple[int, ...],
        num_classes: int,
        *,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()

        def stage(planes: int, blocks: int, kernel_size: int) -> nn.Sequential:
            return nn.Sequential(
                *(Bottleneck(attention, relation, planes, kernel_size) for _ in range(blocks))
            )

        def conv1x1(in_planes: int, planes: int) -> nn.Conv2d:
            return nn.Conv2d(in_planes, planes, 1, bias=False)

        # The order is that of the published state dict.
        self.conv_in, self.bn_in = conv1x1(3, 64), nn.BatchNorm2d(64)
        self.conv0, self.bn0, self.layer0 = conv1x1(64, 64), nn.BatchNorm2d(64), stage(64, layers[0], 3)
        self.conv1, self.bn1, self.layer1 = conv1x1(64, 256), nn.BatchNorm2d(256), stage(256, layers[1], 7)
        self.conv2, self.bn2, self.layer2 = conv1x1(256, 512), nn.BatchNorm2d(512), stage(512, layers[2], 7)
        self.conv3, self.bn3, self.layer3 = (
            conv1x1(512, 1024),
            nn.BatchNorm2d(1024),
            stage(1024, layers[3], 7),
        )
        self.conv4, self.bn4, self.layer4 = (
            conv1x1(1024, 2048),
            nn.BatchNorm2d(2048),
            stage(2048, layers[4], 7),
        )
        self.fc = nn.Linear(2048, num_classes)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, Bottleneck):
                    nn.init.zeros_(block.conv.weight)
                    nn.init.zeros_(block.conv.bias)  # type: ignore[arg-type]  # it has one
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, 3, H, W], H and W from 32 up, to logits [N, num_classes]."""
        x = stem(image, self.conv_in, self.bn_in)  # [N, 64, H / 2, W / 2]
        x = self.layer0(self.conv0(x))
        x = self.layer1(self.conv1(bn_relu_pool(x, self.bn0)))
        x = self.layer2(self.conv2(bn_relu_pool(x, self.bn1)))
        x = self.layer3(self.conv3(bn_relu_pool(x, self.bn2)))
        x = self.layer4(self.conv4(bn_relu_pool(x, self.bn3)))  # [N, 2048, H / 32, W / 32]
        x = F.relu(self.bn4(x), inplace=True).mean((2, 3))
        logits: Tensor = self.fc(x)
        return logits
