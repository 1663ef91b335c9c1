"""What the kernels and the lean graph are worth: SAN as published, in plain PyTorch, and with kernels.

usage: python benchmarks/networks.py [--rounds 7] [--batch 8] [--size 224] [--out FILE.json]

Beside ResNet-50, in turns, in fp32. "naive" is the authors' graph, every footprint made by unfold; "plain"
runs this project's operators in plain PyTorch; without a word, the compiled kernels run. One JSON object with
all figures and their conditions is written to benchmarks/results/networks.json.
"""

import argparse
import json
from pathlib import Path

from measure import apart, conditions, time_networks
from memory import memory
from subjects import ROOT
from tables import lines

NETWORKS = (
    "resnet50",
    *(
        f"{arch}-{attention}{how}"
        for arch in ("san10", "san15")
        for attention in ("patchwise", "pairwise")
        for how in ("", "-plain", "-naive")
    ),
)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/networks.json")
    options = parser.parse_args()
    settings = {"batch": options.batch, "size": options.size}
    result = {
        "conditions": conditions(rounds=options.rounds, **settings),
        "networks": time_networks(NETWORKS, rounds=options.rounds, **settings),
        "memory": {name: apart(memory, name, *settings.values()) for name in NETWORKS},
    }
    print(*lines(result), sep="\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
