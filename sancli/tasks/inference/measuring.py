"""Logits and labels -> everything that `san eval` writes down. N images, C classes."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sancli.data.images import load_image
from sancli.data.prepared import Sample
from sancli.engine import metrics
from sancli.report.evaluation import Evaluation
from sancli.report.pictures import Mistake
from sancli.report.predictions import Prediction
from sancli.tasks.inference.asking import NO_ANSWER, best

RANKS = 5
"""Labels of each image in predictions.csv."""
PAIRS = 10
"""Most confused pairs in metrics.json; most_confused.csv has all of them."""


def evaluation_of(
    logits: Tensor, samples: Sequence[Sample], classes: Sequence[str], *, origin: dict[str, Any], worst: int
) -> Evaluation:
    """What the logits [N, C] of the samples say about the model.

    Args:
        logits: [N, C]
        samples: N of them; their labels count in `classes`.
        classes: C names.
        origin: What was measured on what, and how: goes first into metrics.json.
        worst: How many mistakes to show.
    """
    labels = torch.tensor([sample.label for sample in samples])
    matrix = metrics.confusion(metrics.answers(logits), labels, len(classes))
    pairs = [(classes[true], classes[other], count) for true, other, count in metrics.most_confused(matrix)]
    figures = {
        **metrics.summary(logits, labels),
        "top1_interval": list(metrics.wilson(int(matrix.diagonal().sum()), len(samples))),
        "most_confused": [
            {"true": true, "predicted": other, "images": count} for true, other, count in pairs[:PAIRS]
        ],
        "reliability": [asdict(one) for one in metrics.reliability(logits.softmax(1), labels)],
    }
    tops = best(logits, classes, count=RANKS)
    return Evaluation(
        classes=classes,
        figures=origin | {"images": len(samples)} | figures,
        matrix=matrix,
        per_class=vars(metrics.per_class(matrix, metrics.support_of(labels, len(classes)))),
        most_confused=pairs,
        predictions=[
            Prediction(sample.path, top=top, error="" if top else NO_ANSWER, true=classes[sample.label])
            for sample, top in zip(samples, tops, strict=True)
        ],
        worst=worst_mistakes(logits, samples, classes, count=worst),
    )


def worst_mistakes(
    logits: Tensor, samples: Sequence[Sample], classes: Sequence[str], *, count: int
) -> list[Mistake]:
    """The wrong answers of which the model was surest, with their whole pictures."""
    confidences, answers = logits.softmax(1).amax(1), metrics.answers(logits)
    order = confidences.sort(descending=True, stable=True).indices.tolist()
    wrong = [number for number in order if answers[number] not in (-1, samples[number].label)][:count]
    return [
        Mistake(
            image=load_image(samples[number].path),
            true=classes[samples[number].label],
            predicted=classes[int(answers[number])],
            confidence=float(confidences[number]),
        )
        for number in wrong
    ]
