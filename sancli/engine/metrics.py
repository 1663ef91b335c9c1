"""How good a classifier's answers are. N images, C classes; every figure is a fraction from 0 to 1.

Its tests hold the figures to those of torchmetrics, which takes five seconds of processor time to import.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TOP5_FROM = 6
"""Classes: among five, the right one is always in the first five."""
BINS = 15
"""Of confidence, equally wide: as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017."""


def summary(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The figures of an evaluation: loss, top1, top5 (from six classes up), balanced, macro_f1, ece.

    `balanced` is the mean recall of the classes that have images, `macro_f1` the mean F1 of those that have
    images or were predicted, as in scikit-learn and torchmetrics.

    Args:
        logits: [N, C]
        labels: [N]
    """
    logits, num_classes = logits.float(), logits.shape[1]
    predictions = answers(logits)
    matrix = confusion(predictions, labels, num_classes)
    table = per_class(matrix, support_of(labels, num_classes))
    predicted = matrix.sum(0) > 0
    figures: dict[str, Tensor | float] = {
        "loss": F.cross_entropy(logits, labels),
        "top1": int(matrix.diagonal().sum()) / len(labels),
    }
    if num_classes >= TOP5_FROM:
        among = (logits.topk(5).indices == labels[:, None]).any(1) & (predictions >= 0)
        figures["top5"] = among.double().mean()
    figures["balanced"] = table.recall[table.support > 0].mean()
    figures["macro_f1"] = table.f1[(table.support > 0) | predicted].mean()
    figures["ece"] = sum(
        one.count / len(labels) * abs(one.confidence - one.accuracy)
        for one in reliability(logits.softmax(1), labels)
    )
    return {name: float(value) for name, value in figures.items()}


def answers(scores: Tensor) -> Tensor:
    """The likeliest class of each row of scores [N, C]; -1, which is never right, where all are equal."""
    return torch.where(scores.amax(1) > scores.amin(1), scores.argmax(1), -1)


def support_of(labels: Tensor, num_classes: int) -> Tensor:
    """Images of each class, [C]."""
    return torch.bincount(labels, minlength=num_classes)


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts of images by [true class, predicted class]; images without an answer, -1, are in none."""
    answered = predictions >= 0
    cells = labels[answered] * num_classes + predictions[answered]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


@dataclass(frozen=True)
class PerClass:
    """Four figures for each class, [C] each; 0 where there is nothing to divide by."""

    precision: Tensor
    recall: Tensor
    f1: Tensor
    support: Tensor
    """Images of the class."""


def per_class(matrix: Tensor, support: Tensor) -> PerClass:
    """The figures of each class, from counts by [true, predicted] and the number of its images."""
    right, predicted = matrix.diagonal().double(), matrix.sum(0)
    return PerClass(
        precision=right / predicted.clamp(min=1),
        recall=right / support.clamp(min=1),
        f1=2 * right / (support + predicted).clamp(min=1),
        support=support,
    )


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of the share right / total, after Wilson (1927): sound for few images and near 1."""
    z = 1.959963984540054  # the normal quantile of 0.975
    share, scale = right / total, 1 + z**2 / total
    middle = (share + z**2 / (2 * total)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def most_confused(matrix: Tensor) -> list[tuple[int, int, int]]:
    """Every mistake that was made, as (true class, predicted class, images), the most frequent first."""
    mistakes = matrix.clone().fill_diagonal_(0)
    pairs = [(int(true), int(predicted)) for true, predicted in mistakes.nonzero()]
    counted = [(true, predicted, int(mistakes[true, predicted])) for true, predicted in pairs]
    return sorted(counted, key=lambda pair: (-pair[2], pair[:2]))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The images whose confidence lies between `low` and `high`."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean over its images."""
    accuracy: float


def reliability(probabilities: Tensor, labels: Tensor, *, bins: int = BINS) -> list[Bin]:
    """What share of the answers is right at each level of confidence; empty bins are left out.

    Args:
        probabilities: [N, C]
        labels: [N]
        bins: How many intervals 0..1 is cut into.
    """
    confidences, right = probabilities.amax(1), (answers(probabilities) == labels).double()
    place = (confidences * bins).long().clamp(max=bins - 1)
    return [
        Bin(
            low=number / bins,
            high=(number + 1) / bins,
            count=int(inside.sum()),
            confidence=float(confidences[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for number, inside in ((number, place == number) for number in range(bins))
        if inside.any()
    ]
