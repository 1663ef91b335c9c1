"""SAN run as the authors' code runs it: layer by layer, every footprint made by unfold. The naive way."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli.model.san import SAN, coordinates

Mapping = Callable[[Tensor], Tensor]


class Published(nn.Module):
    """The network around the parameters of a SAN."""

    def __init__(self, net: SAN) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Image to logits."""
        net, x = self.net, self.net.bn_in(self.net.conv_in(image)).relu()
        for i in range(5):
            x = getattr(net, f"conv{i}")(F.max_pool2d(x, 2))
            for block in getattr(net, f"layer{i}"):
                out = attend(block.sam, block.bn1(x).relu())
                x = x + block.conv(block.bn2(out).relu())
            x = getattr(net, f"bn{i}")(x).relu()
        return net.fc(x.mean((2, 3)))


def attend(layer: nn.Module, x: Tensor) -> Tensor:
    """Model/san.py in hszhao/SAN."""
    maps = layer.conv1(x), layer.conv2(x), layer.conv3(x)
    place = layer.conv_p(coordinates(x, x.dtype)) if hasattr(layer, "conv_p") else None
    return attend_maps(*maps, place, layer.conv_w, layer.kernel_size)


def attend_maps(
    query: Tensor, key: Tensor, value: Tensor, place: Tensor | None, conv_w: Mapping, kernel_size: int
) -> Tensor:
    """The attention itself, with the unfold formulas of the authors' tests for their CUDA operators."""
    if place is None:
        relation = torch.cat([query.flatten(2), footprints(key, kernel_size).flatten(1, 2)], 1)
        weights = conv_w(relation[:, :, None]).view(len(query), -1, kernel_size**2, relation.shape[2])
    else:
        position = place.flatten(2)[:, :, None] - footprints(place, kernel_size)
        compared = query.flatten(2)[:, :, None] - footprints(key, kernel_size)  # [N, R, K * K, H * W]
        weights = conv_w(torch.cat([compared, position.expand(len(query), -1, -1, -1)], 1)).softmax(2)
    return aggregate(value, weights, kernel_size)


def aggregate(value: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """The sum of value's footprints weighted by `weights` [N, G, K * K, H * W]."""
    values = footprints(value, kernel_size).unflatten(1, (-1, weights.shape[1]))  # [N, S, G, K * K, H * W]
    return (values * weights[:, None]).sum(3).view(value.shape)


def footprints(x: Tensor, kernel_size: int) -> Tensor:
    """[N, C, K * K, H * W]."""
    reach = kernel_size // 2
    wide = F.unfold(F.pad(x, (reach,) * 4, mode="reflect"), kernel_size)
    return wide.view(len(x), x.shape[1], kernel_size**2, -1)
