"""What the tests of training share: sixteen small drawn images, and a network of a few hundred parameters."""

import json
import random

import torch
from PIL import Image, ImageDraw
from torch import nn

from sancli.config import TrainConfig

CLASSES = ("disc", "square")
FAST = {"epochs": 2, "batch_size": 4, "image_size": 32, "device": "cpu", "workers": 0, "weights": "none"}


class Micro(nn.Module):
    """Convolution, BatchNorm, head: everything that a run has to save."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(8, 8, 3),
        )
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


def build(arch, *, attention="patchwise", relation=None, num_classes, zero_init_residual=False):
    return Micro(num_classes)


def draw(label, seed):
    rand = random.Random(seed)
    image = Image.new("RGB", (40, 36), tuple(rand.randrange(60) for _ in range(3)))
    corner = rand.randrange(2, 12)
    shape = ImageDraw.Draw(image).ellipse if label == 0 else ImageDraw.Draw(image).rectangle
    shape((corner, corner, corner + 20, corner + 20), fill=tuple(rand.randrange(120, 256) for _ in range(3)))
    return image


def prepare(root, counts=None, classes=CLASSES):
    """A prepared folder: images of each class in each split."""
    counts = counts or {"train": 6, "val": 2}
    for split, count in counts.items():
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                draw(label, f"{split} {label} {number}").save(folder / f"{number}.png")
    manifest = {
        "name": "shapes",
        "layout": "folders",
        "classes": list(classes),
        "counts": {split: dict.fromkeys(classes, count) for split, count in counts.items() if count},
        "unlabelled": 0,
        "median_short_side_px": 36,
        "source": {},
        "options": {},
        "format": 1,
    }
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def config(data, runs_dir, **changes):
    return TrainConfig(**{"data": data, "runs_dir": runs_dir, "name": "run", **FAST, **changes})


def same(one, other):
    """Whether two nested states hold the same bits."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
