"""What a bound on the growth of images is worth: the same weights asked as they are, and with several bounds.

    python benchmarks/bounded.py RUN DATA [--splits val test] [--limit N] [--out FILE.json]

RUN is a run of SAN with patchwise attention, DATA a folder made by `san prepare` with classes that it knows.
`over`: images that come to the last BatchNorm with over the bound (sancli/model/bounded.py). An image without
a number for an answer counts as wrong, and in the loss as an even guess. Runs are added to those that FILE
holds.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import add_run, cores, processor
from torch import Tensor

from sancli.data.dataset import evaluation_loader
from sancli.data.prepared import open_prepared
from sancli.engine.device import choose
from sancli.engine.loop import infer
from sancli.model import bounded
from sancli.runs import open_model, versions
from sancli.tasks.evaluate import matched

BOUNDS = (2.0, 3.0, 4.0, 5.0, 6.0)


def figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and loss; a row of zeros is no answer."""
    right = (logits.argmax(1) == labels) & logits.any(1)
    return {
        "top1": round(float(right.double().mean()), 4),
        "loss": round(float(F.cross_entropy(logits, labels)), 4),
        "no_answer": int((~logits.any(1)).sum()),
    }


def main() -> None:
    """Asks, shows and writes."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("run")
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", nargs="+", default=["val", "test"])
    parser.add_argument("--limit", type=int, help="of each split's images, so many at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, prepared, device = open_model(options.run), open_prepared(options.data), choose("cpu", "fp32")
    samples = [one for split in options.splits for one in prepared.samples(split)[: options.limit]]
    samples = matched(samples, prepared.classes, model.info.classes)
    labels = torch.tensor([sample.label for sample in samples])

    def asked(network: torch.nn.Module) -> Tensor:
        loader = evaluation_loader(samples, model.info.preprocessing, batch_size=32, workers=0)
        return torch.cat([logits for _, logits in infer(network, loader, device=device)])

    own = asked(model.network)
    ways: dict[str, Any] = {"as it is": figures(own, labels)}
    for most in BOUNDS:
        bounded.MOST = most
        network = bounded.Bounded(model.network)
        logits = asked(network)
        over = (logits != own).any(1)
        right = [int((rows.argmax(1) == labels)[over & rows.any(1)].sum()) for rows in (own, logits)]
        ways[f"{most:g}"] = figures(logits, labels) | {
            "over": network.again,
            "changed": int(over.sum()),
            "right_of_changed_before_and_after": right,
        }
    info = model.info
    found = {
        "run": {"arch": info.arch, "attention": info.attention, "epoch": info.epoch, "classes": info.classes},
        "image_size": info.preprocessing.image_size,
        "data": prepared.manifest.name,
        "splits": options.splits,
        "images": len(samples),
        "bounds": ways,
        "processor": processor(),
        "cores": cores(),
        **versions(),
    }
    print(json.dumps(found, indent=2))
    if options.out:
        add_run(options.out, "benchmarks/bounded.py", found)


if __name__ == "__main__":
    main()
