"""SAN run as the authors' code runs it: layer by layer, every footprint made by unfold. The naive way."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli.model.san import SAN, coordinates


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
    """Model/san.py in hszhao/SAN, with the unfold formulas of its tests for its CUDA operators."""
    query, key, value = layer.conv1(x), layer.conv2(x), layer.conv3(x)
    if hasattr(layer, "conv_p"):
        place = layer.conv_p(coordinates(x, x.dtype))
        position = (place.flatten(2)[:, :, None] - footprints(place, layer)).expand(len(x), -1, -1, -1)
        compared = query.flatten(2)[:, :, None] - footprints(key, layer)  # [N, R, K * K, H * W]
        weights = layer.conv_w(torch.cat([compared, position], 1)).softmax(2)
    else:
        relation = torch.cat([query.flatten(2), footprints(key, layer).flatten(1, 2)], 1)
        weights = layer.conv_w(relation[:, :, None]).view(len(x), -1, layer.kernel_size**2, relation.shape[2])
    values = footprints(value, layer).unflatten(1, (-1, weights.shape[1]))  # [N, S, G, K * K, H * W]
    return (values * weights[:, None]).sum(3).view(value.shape)


def footprints(x: Tensor, layer: nn.Module) -> Tensor:
    """[N, C, K * K, H * W]."""
    reach = layer.kernel_size // 2
    wide = F.unfold(F.pad(x, (reach,) * 4, mode="reflect"), layer.kernel_size)
    return wide.view(len(x), x.shape[1], layer.kernel_size**2, -1)
