"""Which BatchNorm statistics a young network is best measured with: the running ones, or some measured anew.

usage: python benchmarks/batchnorm.py DATA OUT.json [options of san train]

Trains once, from scratch, and measures the same weights on val after each epoch in three ways: with running
statistics, with those of 128 training images in batches drawn by chance, and with those of the same images,
one class after another. Runs are added to those that OUT.json holds.
"""

import copy
import sys
from pathlib import Path

import torch
from measure import add_run, cores, processor
from torch import nn

from sancli import cli
from sancli.data.prepared import Sample
from sancli.engine.loop import infer, measure_statistics
from sancli.engine.metrics import summary
from sancli.runs import versions
from sancli.tasks import train
from sancli.tasks.training.session import Session

rows: list[dict[str, object]] = []


class Compared(Session):
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


def main() -> None:
    """Trains, and adds the run to the results."""
    data, out, *options = sys.argv[1:]
    train.Session = Compared  # type: ignore[misc]
    sys.argv = ["san", "train", data, "--weights", "none", *options]
    try:
        cli.main()
    finally:
        run = {"data": Path(data).name, "options": options, "epochs": rows}
        conditions = {"processor": processor(), "cores": cores(), **versions()}
        add_run(Path(out), "benchmarks/batchnorm.py", run | conditions)


if __name__ == "__main__":
    main()
