"""One image through onnxruntime, by the file of `san export --format onnx`, and through san itself, on a CPU.

usage: python benchmarks/exported.py [--size 224] [--rounds 15] [--out FILE.json]

Both take the same image in turns, in one process, with as many threads; san as `load(...).predict` does. The
weights are fresh, with blocks that start at zero: nothing diverges, and all is computed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from measure import conditions, file_name, keep_memory, spread
from subjects import ROOT

from sancli import model
from sancli.model.prepared import prepared
from sancli.tasks.exporting.onnx import IMAGE, LOGITS, graph

NETWORKS = ("san10-patchwise", "san15-patchwise", "san10-pairwise", "san15-pairwise", "resnet50-none")
Program = Callable[[], Any]


def programs(name: str, size: int) -> dict[str, Program]:
    """The two that answer for a network, once each has answered."""
    arch, attention = name.split("-")
    how = {} if attention == "none" else {"attention": attention}
    network = model.build(arch, num_classes=1000, zero_init_residual=True, **how).eval()
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(graph(network, side=size, metadata={}), options)
    asked, given = prepared(network, side=size), {IMAGE: image.numpy()}
    both: dict[str, Program] = {
        "onnxruntime": lambda: session.run([LOGITS], given)[0],
        "san": lambda: asked(image).numpy(),
    }
    one, other = (torch.from_numpy(program()) for program in both.values())
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    return both


def milliseconds(program: Program, calls: int = 3) -> float:
    """How long one of some calls in a row takes, the median."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        program()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians and quartiles of both, and of how many times as fast san is in a round."""
    both = programs(name, options.size)
    rounds = [{who: milliseconds(program) for who, program in both.items()} for _ in range(options.rounds)]
    found = {who: spread("ms", [times[who] for times in rounds]) for who in both}
    ratios = [times["onnxruntime"] / times["san"] for times in rounds]
    print(f"{name}: {found}", file=sys.stderr)
    return found | spread("san_is_faster_by", ratios)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_memory()
    before = conditions(size=options.size, rounds=options.rounds, onnxruntime=onnxruntime.__version__)
    with torch.inference_mode():
        found = {name: measured(name, options) for name in options.networks}
    out = options.out or ROOT / "benchmarks/results" / file_name("exported")
    out.write_text(json.dumps({"networks": found, "conditions": before}, indent=1) + "\n")
    print(out)


if __name__ == "__main__":
    main()
