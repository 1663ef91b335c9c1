"""Which BatchNorm statistics a young network is best measured with: the running ones, or some measured anew.

usage: python benchmarks/batchnorm.py DATA OUT.json [options of san train]

Trains once, from scratch, and measures the same weights on val after each epoch in three ways: with running
statistics, with those of 128 training images in batches drawn by chance, and with those of the same images,
one class after another.
"""

import copy
import json
import sys
from pathlib import Path

import torch
from torch import nn

from sancli.cli import main
from sancli.data.prepared import Sample
from sancli.engine.loop import infer, measure_statistics
from sancli.engine.metrics import summary
from sancli.tasks.training import session

rows: list[dict[str, object]] = []


class Compared(session.Session):
    """A run that is measured in three ways, and goes on by the first."""

    def validate(self) -> dict[str, float]:
        """The figures with running statistics; all three are written down."""
        running = self.figures(self.learner.best_network)
        chance = self.figures(self.measured(self.statistics_samples()))
        by_class = sorted(self.statistics_samples(), key=lambda sample: sample.label)
        ordered = self.figures(self.measured(by_class))
        named = {"running": running, "by chance": chance, "by class": ordered}
        rows.append({"step": self.steps_done} | {name: shortened(found) for name, found in named.items()})
        return running

    def measured(self, samples: list[Sample]) -> nn.Module:
        """A copy of the network with the statistics of these images."""
        network = copy.deepcopy(self.learner.best_network)
        measure_statistics(network, self.evaluation_batches(samples), device=self.plan.device)
        return network

    def figures(self, network: nn.Module) -> dict[str, float]:
        """On val."""
        batches = self.evaluation_batches(self.plan.val)
        found = [(logits, batch.labels) for batch, logits in infer(network, batches, device=self.plan.device)]
        return summary(torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found]))


def shortened(figures: dict[str, float]) -> dict[str, float]:
    """Loss and top-1, rounded."""
    return {name: round(figures[name], 4) for name in ("loss", "top1")}


if __name__ == "__main__":
    data, out, *options = sys.argv[1:]
    from sancli.tasks import train

    train.Session = Compared  # type: ignore[misc]
    sys.argv = ["san", "train", data, "--weights", "none", *options]
    try:
        main()
    finally:
        result = {"program": "benchmarks/batchnorm.py", "data": Path(data).name, "options": options}
        result |= {"torch": torch.__version__, "epochs": rows}
        Path(out).write_text(json.dumps(result, indent=1) + "\n")
