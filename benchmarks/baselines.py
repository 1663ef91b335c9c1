"""What a linear classifier reads from colour alone: the floor that any network has to leave far below.

usage: python benchmarks/baselines.py DATA [--json FILE]

DATA is a folder made by `san prepare`. Multinomial logistic regression in float64, fitted by L-BFGS on the
training images, its L2 penalty chosen on val, measured on test; on the mean colour of an image, and on its
histogram of 8 x 8 x 8 colours.
"""

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import sancli
from sancli.data.images import load_image
from sancli.data.prepared import Prepared, open_prepared

BINS = 8
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
Features = dict[str, Tensor]


def colours_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour [3] and the colour histogram [BINS**3] of an image; the histogram sums to 1."""
    pixels = np.asarray(load_image(path)).reshape(-1, 3)
    red, green, blue = (pixels.astype(np.int64) * BINS // 256).T
    histogram = np.bincount((red * BINS + green) * BINS + blue, minlength=BINS**3)
    return pixels.mean(0), histogram / len(pixels)


def read_split(data: Prepared, split: str) -> tuple[Features, Tensor]:
    """Both kinds of features [N, ...] of a split, and its labels [N]."""
    samples = data.samples(split)
    with ProcessPoolExecutor() as workers:
        rows = list(workers.map(colours_of, [sample.path for sample in samples], chunksize=32))
    means, histograms = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    features = {"mean colour": means, "colour histogram": histograms.sqrt()}  # Hellinger: better than raw
    return features, torch.tensor([sample.label for sample in samples])


def fit(features: Tensor, labels: Tensor, penalty: float) -> torch.nn.Linear:
    """Logistic regression: features [N, D] and labels [N] to logits [N, C]."""
    classifier = torch.nn.Linear(features.shape[1], int(labels.max()) + 1).double()
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(classifier(features), labels) + penalty * classifier.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return classifier


def top1(classifier: torch.nn.Linear, features: Tensor, labels: Tensor) -> float:
    """The share of images [N] that are named rightly."""
    with torch.no_grad():
        return (classifier(features).argmax(1) == labels).double().mean().item()


def measure(data: Prepared) -> dict[str, dict[str, float]]:
    """Top-1 on each split, and the penalty that was best on val, for each kind of features."""
    splits = {split: read_split(data, split) for split in ("train", "val", "test")}
    figures = {}
    for kind, train in splits["train"][0].items():
        middle, spread = train.mean(0), train.std(0).clamp(min=1e-6)
        ready = {
            split: ((features[kind] - middle) / spread, labels)
            for split, (features, labels) in splits.items()
        }
        fitted = [(fit(*ready["train"], penalty), penalty) for penalty in PENALTIES]
        best, penalty = max(fitted, key=lambda pair: top1(pair[0], *ready["val"]))
        figures[kind] = {split: top1(best, *ready[split]) for split in ready} | {"penalty": penalty}
    return figures


def main() -> None:
    """Measures, prints, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = open_prepared(options.data)
    figures = measure(data)
    for kind, shares in figures.items():
        shown = ", ".join(f"{split} {shares[split]:.1%}" for split in ("train", "val", "test"))
        print(f"{kind:17} top-1: {shown}")
    if options.json:
        conditions = {
            "program": "benchmarks/baselines.py",
            "data": data.manifest.name,
            "images": {split: data.total(split) for split in data.splits},
            "classes": list(data.classes),
            "chance": 1 / len(data.classes),
            "versions": {
                "sancli": sancli.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        options.json.write_text(json.dumps(conditions | {"top1": figures}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
