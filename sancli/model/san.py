"""SAN, the self-attention networks of Zhao, Jia and Koltun, CVPR 2020.

Shapes: N images, C channels in, R relation channels, M value channels, S channels sharing a weight, G = M / S,
K footprint side, H x W pixels. Module names are the keys of the published checkpoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli import ops
from sancli.model.trunk import bn_relu_conv1x1, bn_relu_pool, norm_of, pixels, stem, track

LAYERS = {
    "san10": (2, 1, 2, 4, 1),
    "san15": (3, 2, 3, 5, 2),
    "san19": (3, 3, 4, 6, 3),
}  # blocks in each stage
KERNEL_SIZES = (3, 7, 7, 7, 7)
PLANES = (64, 256, 512, 1024, 2048)


class Attention(nn.Module):
    """What the two kinds share: query, key and value are 1x1 convolutions of the same input."""

    def __init__(
        self, in_planes: int, rel_planes: int, out_planes: int, share_planes: int, kernel_size: int
    ) -> None:
        super().__init__()
        self.rel_planes, self.out_planes, self.kernel_size = rel_planes, out_planes, kernel_size
        self.conv1 = nn.Conv2d(in_planes, rel_planes, 1)  # query
        self.conv2 = nn.Conv2d(in_planes, rel_planes, 1)  # key
        self.conv3 = nn.Conv2d(in_planes, out_planes, 1)  # value

    def merged(self) -> tuple[Tensor, Tensor]:
        """The three convolutions as one: weight [2 R + M, C, 1, 1] and bias."""
        convs = self.conv1, self.conv2, self.conv3
        return torch.cat([conv.weight for conv in convs]), torch.cat([conv.bias for conv in convs])

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(F.conv2d(x, *self.merged()))

    def split(self, merged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = merged.split([self.rel_planes, self.rel_planes, self.out_planes], 1)
        return query, key, value

    def attend(self, merged: Tensor) -> Tensor:
        """[N, M, H, W] from query, key and value in one tensor [N, 2 R + M, H, W]."""
        raise NotImplementedError


class PairwiseAttention(Attention):
    """Weighs a footprint by comparing its pixels with the middle one (section 3.1)."""

    def __init__(
        self, in_planes: int, rel_planes: int, out_planes: int, share_planes: int, kernel_size: int
    ) -> None:
        super().__init__(in_planes, rel_planes, out_planes, share_planes, kernel_size)
        self.conv_w = nn.Sequential(
            nn.BatchNorm2d(rel_planes + 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(rel_planes + 2, rel_planes, 1, bias=False),
            nn.BatchNorm2d(rel_planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(rel_planes, out_planes // share_planes, 1),
        )
        self.conv_p = nn.Conv2d(2, 2, 1)  # position

    def attend(self, merged: Tensor) -> Tensor:
        norm1, _, conv1, norm2, _, conv2 = self.conv_w
        count = pixels(merged) * self.kernel_size**2
        with torch.autocast(merged.device.type, enabled=False):  # 8 bits would not tell pixels apart
            place = self.conv_p(coordinates(merged, self.conv_p.weight.dtype))  # [1, 2, H, W]
        out, statistics1, statistics2 = ops.pairwise_attention(
            *self.split(merged),
            place,
            sign=-1,
            norm1=norm_of(norm1, count),
            weight1=conv1.weight.flatten(1),
            norm2=norm_of(norm2, count),
            weight2=conv2.weight.flatten(1),
            bias2=conv2.bias,
            kernel_size=self.kernel_size,
        )
        track(norm1, statistics1, count)
        track(norm2, statistics2, count)
        return out


class PatchwiseAttention(Attention):
    """Makes all weights of a footprint from all of its pixels (section 3.2)."""

    def __init__(
        self, in_planes: int, rel_planes: int, out_planes: int, share_planes: int, kernel_size: int
    ) -> None:
        super().__init__(in_planes, rel_planes, out_planes, share_planes, kernel_size)
        groups, offsets = out_planes // share_planes, kernel_size**2
        relation = rel_planes * (offsets + 1)
        self.conv_w = nn.Sequential(
            nn.BatchNorm2d(relation),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation, groups, 1, bias=False),
            nn.BatchNorm2d(groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(groups, offsets * groups, 1),
        )

    def attend(self, merged: Tensor) -> Tensor:
        norm1, _, conv1, norm2, _, conv2 = self.conv_w
        count = pixels(merged)
        out, statistics1, statistics2 = ops.patchwise_attention(
            *self.split(merged),
            norm1=norm_of(norm1, count),
            weight1=conv1.weight.flatten(1),
            norm2=norm_of(norm2, count),
            weight2=conv2.weight.flatten(1),
            bias2=conv2.bias,
            kernel_size=self.kernel_size,
        )
        track(norm1, statistics1, count)
        track(norm2, statistics2, count)
        return out


ATTENTIONS: dict[str, type[Attention]] = {"pairwise": PairwiseAttention, "patchwise": PatchwiseAttention}


def coordinates(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[1, 2, H, W]: the column and the row of each pixel, from -1 to 1 along each side."""
    height, width = x.shape[2:]
    columns = torch.linspace(-1, 1, width, dtype=dtype, device=x.device).expand(height, width)
    rows = torch.linspace(-1, 1, height, dtype=dtype, device=x.device)[:, None].expand(height, width)
    return torch.stack([columns, rows])[None]


class Bottleneck(nn.Module):
    """Attention on a quarter of the channels, between 1x1 convolutions, added to its input (figure 2)."""

    def __init__(self, attention: type[Attention], planes: int, kernel_size: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(planes)
        self.sam = attention(planes, planes // 16, planes // 4, share_planes=8, kernel_size=kernel_size)
        self.bn2 = nn.BatchNorm2d(planes // 4)
        self.conv = nn.Conv2d(planes // 4, planes, 1)

    def forward(self, x: Tensor) -> Tensor:
        merged = bn_relu_conv1x1(x, self.bn1, *self.sam.merged())  # [N, 3 C / 8, H, W]
        attended = self.sam.attend(merged)  # [N, C / 4, H, W]
        return x + bn_relu_conv1x1(attended, self.bn2, self.conv.weight, self.conv.bias)


class SAN(nn.Module):
    """Image [N, 3, H, W], H and W from 32 up, to logits [N, num_classes]."""

    def __init__(self, attention: type[Attention], layers: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv_in, self.bn_in = nn.Conv2d(3, PLANES[0], 1, bias=False), nn.BatchNorm2d(PLANES[0])
        before = PLANES[0]
        for i, (planes, blocks, kernel_size) in enumerate(zip(PLANES, layers, KERNEL_SIZES, strict=True)):
            self.add_module(f"conv{i}", nn.Conv2d(before, planes, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(planes))
            stage = (Bottleneck(attention, planes, kernel_size) for _ in range(blocks))
            self.add_module(f"layer{i}", nn.Sequential(*stage))
            before = planes
        self.fc = nn.Linear(before, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        x = stem(image, self.conv_in, self.bn_in)  # [N, 64, H / 2, W / 2]
        x = self.layer0(self.conv0(x))
        x = self.layer1(self.conv1(bn_relu_pool(x, self.bn0)))
        x = self.layer2(self.conv2(bn_relu_pool(x, self.bn1)))
        x = self.layer3(self.conv3(bn_relu_pool(x, self.bn2)))
        x = self.layer4(self.conv4(bn_relu_pool(x, self.bn3)))  # [N, 2048, H / 32, W / 32]
        return self.fc(F.relu(self.bn4(x), inplace=True).mean((2, 3)))
