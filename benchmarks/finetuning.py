"""How a network is best fine-tuned from weights, with few images: the head alone, or the body too, how fast.

usage: python benchmarks/finetuning.py DATA WEIGHTS --json FILE [--seeds 3] [--limit 15] [--epochs 8]

DATA is a folder made by `san prepare`, WEIGHTS a run on other classes. Every way learns from the same images
with the same steps, and is measured after its last epoch on the same images of test: val chooses nothing, so
that there is no best of several. The file is written anew after each run.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import torch
from measure import cores, processor

from sancli.config import TrainConfig
from sancli.data.dataset import evaluation_loader
from sancli.data.prepared import Sample
from sancli.engine.distributed import World
from sancli.engine.interrupts import StopRequest
from sancli.engine.loop import infer, measure_statistics
from sancli.model.bounded import Bounded
from sancli.runs import Run, versions
from sancli.tasks import train
from sancli.tasks.training.progress import Progress
from sancli.tasks.training.session import Session

NEVER = 10_000
"""Frozen for more epochs than there are."""
WAYS = {
    "from scratch, 1e-3": {"weights": "none", "lr": 1e-3},
    "head alone, 1e-3": {"lr": 1e-3, "freeze_epochs": NEVER},
    "body and head 2e-4": {"lr": 2e-4, "body_rate": 1.0},
    "body and head 1e-3": {"lr": 1e-3, "body_rate": 1.0},
    "body 2e-4, head 1e-3": {"lr": 1e-3, "body_rate": 0.2},
    "body 1e-4, head 1e-3": {"lr": 1e-3, "body_rate": 0.1},
}


def learnt(config: TrainConfig, tested: int) -> float:
    """Top-1 on the first `tested` images of test, drawn by a seed, after all epochs."""
    plan, learner = train.prepare(config, frozenset(), World(), None)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(plan, learner, Run(Path(folder)), Progress(), StopRequest())
        session.bar = Silent()
        for _ in range(plan.epochs):
            session.train_epoch()
            session.progress.epoch, session.progress.step = session.progress.epoch + 1, 0
        if plan.from_scratch:
            batches = session.evaluation_batches(session.statistics_samples())
            measure_statistics(learner.best_network, batches, device=plan.device)
    samples = drawn(plan.prepared.samples("test"), tested)
    loader = evaluation_loader(samples, plan.preprocessing, batch_size=32, workers=0)
    right = sum(
        int((logits.argmax(1) == batch.labels).sum())
        for batch, logits in infer(Bounded(learner.best_network), loader, device=plan.device)
    )
    return right / len(samples)


class Silent:
    """In place of the progress bar."""

    def advance(self, count: int, extra: str = "") -> None:
        """Shows nothing."""


def drawn(samples: list[Sample], count: int) -> list[Sample]:
    """So many of the images, the same in every run."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).tolist()
    return [samples[index] for index in order[:count]]


def main() -> None:
    """Runs every way with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--json", type=Path, required=True)
    for option, default in {
        "--seeds": 3, "--limit": 15, "--epochs": 8, "--batch": 8, "--tested": 200, "--image-size": 64
    }.items():  # fmt: skip
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    top1, seconds = defaultdict(list), defaultdict(list)
    for seed in range(args.seeds):
        for way, settings in WAYS.items():
            common = {"data": args.data, "weights": args.weights, "limit": args.limit, "epochs": args.epochs}
            machine = {"batch_size": args.batch, "image_size": args.image_size, "workers": 0, "device": "cpu"}
            began = time.process_time()
            top1[way].append(learnt(TrainConfig(**common | machine | settings, seed=seed), args.tested))
            seconds[way].append(time.process_time() - began)
            print(
                f"{way}, seed {seed}: {top1[way][-1]:.1%}, {seconds[way][-1]:.0f} s of processor", flush=True
            )
            write(args, top1, seconds)


def write(args: argparse.Namespace, top1: dict[str, list[float]], seconds: dict[str, list[float]]) -> None:
    """What is known so far."""
    found = {
        way: {
            "top1": [round(value, 4) for value in values],
            "mean": round(mean(values), 4),
            "sd": round(stdev(values), 4) if len(values) > 1 else None,
            "processor_s": round(mean(seconds[way]), 1),
            "settings": WAYS[way],
        }
        for way, values in top1.items()
    }
    conditions = {
        "data": args.data.name,
        "weights": Path(args.weights).name,
        **{
            name: getattr(args, name) for name in ("limit", "epochs", "batch", "tested", "image_size", "note")
        },
        "processor": processor(),
        "cores": cores(),
        **versions(),
    }
    text = json.dumps(
        {"program": "benchmarks/finetuning.py", "conditions": conditions, "ways": found}, indent=2
    )
    args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
