"""A SAN in layers that every other program knows, and aggregation: what an exported network is made of.

Formulas over whole maps, for eval mode: nothing is tiled, and relations are stored. Shapes are given as
numbers but for N, which a trace leaves open.

Shapes: N images, C channels, R relation channels, M value channels, G weight channels, K footprint side, H x
W pixels, P = H * W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sancli import ops
from sancli.model.relations import PAIRWISE, PATCHWISE
from sancli.model.san import SAN, Attention, Bottleneck, PairwiseAttention, coordinates


def portable(network: nn.Module) -> nn.Module:
    """The same network with the same parameters, with no operator of ours but `aggregation`.

    Networks that are no SAN have none to begin with, and are given back.
    """
    return PortableSAN(network) if isinstance(network, SAN) else network


class PortableSAN(nn.Module):
    """Answers as the network does that it is made of."""

    def __init__(self, san: SAN) -> None:
        super().__init__()
        self.conv_in, self.bn_in, self.fc = san.conv_in, san.bn_in, san.fc
        convs, layers, norms = (
            [getattr(san, f"{kind}{stage}") for stage in range(5)] for kind in ("conv", "layer", "bn")
        )
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
        self.layers = nn.ModuleList(nn.Sequential(*map(PortableBottleneck, layer)) for layer in layers)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, 3, H, W] to logits [N, num_classes]."""
        x = F.relu(self.bn_in(self.conv_in(image)))
        for conv, layer, norm in zip(self.convs, self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(conv(F.max_pool2d(x, 2)))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class PortableBottleneck(nn.Module):
    """A Bottleneck."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.bn1, self.sam, self.bn2, self.conv = block.bn1, block.sam, block.bn2, block.conv

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        merged = F.conv2d(F.relu(self.bn1(x)), *self.sam.merged())
        query, key, value = merged.split(self.sam.planes, 1)
        if isinstance(self.sam, PairwiseAttention):
            weights = pairwise_weights(self.sam, query, key)
        else:
            weights = patchwise_weights(self.sam, query, key)
        attended = ops.aggregation(value, weights, self.sam.kernel_size)
        added: Tensor = x + self.conv(F.relu(self.bn2(attended)))
        return added


def pairwise_weights(attention: PairwiseAttention, query: Tensor, key: Tensor) -> Tensor:
    """[N, K * K, G, H, W]."""
    height, width = key.shape[2:]
    place = attention.conv_p(coordinates(key, key.dtype))  # [1, 2, H, W]
    keys = footprints(key, attention.kernel_size)  # [N, R, K * K, P]
    compared = PAIRWISE[attention.relation].compare(centres(query).expand_as(keys), keys)
    moved = centres(place) - footprints(place, attention.kernel_size)
    relation = torch.cat([compared, moved.expand(query.shape[0], -1, -1, -1)], 1)
    weights: Tensor = attention.conv_w(relation).softmax(2)  # [N, G, K * K, P]
    return weights.reshape(-1, *weights.shape[1:3], height, width).transpose(1, 2)


def patchwise_weights(attention: Attention, query: Tensor, key: Tensor) -> Tensor:
    """[N, K * K, G, H, W]."""
    height, width = key.shape[2:]
    offsets = attention.kernel_size**2
    relation = footprints(key, attention.kernel_size)  # [N, R, K * K, P]
    if attention.relation in PATCHWISE:
        star = attention.relation == "star-product"
        queries = centres(query) if star else footprints(query, attention.kernel_size)
        relation = torch.einsum("nrjp,nrkp->njkp", queries, relation)  # [N, 1 or K * K, K * K, P]
    relation = relation.reshape(-1, relation.shape[1] * offsets, height, width)
    if attention.relation not in PATCHWISE:
        relation = torch.cat([query, relation], 1)
    weights: Tensor = attention.conv_w(relation)  # [N, G * K * K, H, W]
    return weights.reshape(-1, weights.shape[1] // offsets, offsets, height, width).transpose(1, 2)


def centres(maps: Tensor) -> Tensor:
    """[N, C, H, W] as [N, C, 1, P], beside which a footprint can stand."""
    channels, height, width = maps.shape[1:]
    return maps.reshape(-1, channels, 1, height * width)


def footprints(maps: Tensor, kernel_size: int) -> Tensor:
    """What lies around each pixel, [N, C, K * K, P], of maps [N, C, H, W]; the border is reflected.

    As `relations.shifted`, in two gathers: an exporter needs seconds a layer for its K * K slices.
    """
    channels, height, width = maps.shape[1:]
    lines = maps.index_select(2, seen(height, kernel_size)).index_select(3, seen(width, kernel_size))
    windows = lines.reshape(-1, channels, kernel_size, height, kernel_size, width)
    return windows.transpose(3, 4).reshape(-1, channels, kernel_size**2, height * width)


def seen(size: int, kernel_size: int) -> Tensor:
    """For each step of the footprint the line that is seen from each line of the map, [K * size]."""
    steps = range(-(kernel_size // 2), kernel_size // 2 + 1)
    return torch.tensor([ops.reflected(line + step, size) for step in steps for line in range(size)])
