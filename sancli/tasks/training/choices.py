"""What settings become when the user leaves them open; each with its reason in words."""

import math
from collections import Counter

import torch
from torch import Tensor

from sancli.config import TrainConfig
from sancli.data.prepared import Prepared, Sample
from sancli.engine.device import Device

LR, LR_FROM_WEIGHTS = 1e-3, 2e-4
LR_BATCH = 64
"""The batch that these learning rates are for; others scale by the square root."""
SGD_LR = 50
"""SGD's learning rate over AdamW's: 0.05 from scratch, as is usual for ResNets at this batch."""
IMBALANCED = 3
"""Largest class over the smallest from which --balance auto weighs the loss."""
PUBLISHED_SIZE = 224
SMALLEST_SIZE, SIZE_STEP = 64, 32
LARGEST_AUTO_BATCH = 256
"""Beyond it a larger batch learns no faster per image."""
FEW_IMAGES = 200
"""Below it, worker processes take longer to start than the images to read."""
MOST_WORKERS = 8


def with_batch_size(config: TrainConfig, batch_size: int, *, from_scratch: bool) -> TrainConfig:
    """The settings with the batch, and with the learning rate that fits it where none was asked for."""
    if config.lr is not None:
        return config.replace(batch_size=batch_size)
    lr = (LR if from_scratch else LR_FROM_WEIGHTS) * math.sqrt(batch_size / LR_BATCH)
    return config.replace(batch_size=batch_size, lr=lr * (SGD_LR if config.optimizer == "sgd" else 1))


def automatic_size(prepared: Prepared, *, published: bool) -> tuple[int, str]:
    """The side of the square the network sees."""
    if published:
        return PUBLISHED_SIZE, "of the published weights"
    side = prepared.manifest.median_short_side_px
    rounded = math.ceil(side / SIZE_STEP) * SIZE_STEP
    reason = f"the images' median short side is {side} px"
    return min(max(rounded, SMALLEST_SIZE), PUBLISHED_SIZE), reason


def automatic_workers(images: int, device: Device) -> tuple[int, str]:
    """How many processes read images."""
    cores = torch.get_num_threads()
    if images < FEW_IMAGES:
        return 0, "few images"
    if cores == 1:
        return 0, "one core"
    if device.torch_device.type == "cpu":
        return 1, "the network needs the cores itself"
    return min(cores, MOST_WORKERS), f"{cores} cores"


def automatic_balance(train: list[Sample], num_classes: int) -> tuple[str, str]:
    """Whether the loss is weighed."""
    counts = Counter(sample.label for sample in train)
    ratio = max(counts.values()) / min(counts.values())
    reason = f"the largest class is {ratio:.1f} times the smallest"
    return ("loss" if ratio > IMBALANCED and num_classes > 1 else "none"), reason


def rarity(train: list[Sample], num_classes: int) -> Tensor:
    """For each class the inverse of its share, [C]; the mean over the training images is 1."""
    counts = torch.bincount(torch.tensor([sample.label for sample in train]), minlength=num_classes)
    present = (counts > 0).sum()
    return torch.where(counts > 0, len(train) / (present * counts.clamp_min(1)), 0.0).float()
