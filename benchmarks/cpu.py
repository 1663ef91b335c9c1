"""The SANs of this project against ResNet-50 on a CPU: time, memory, and share of what the machine can do.

usage: python benchmarks/cpu.py [--json] [--stages networks memory sizes batches threads] [--out FILE.json]
       python benchmarks/cpu.py --quick [--json]      the three ratios that count, within a minute

Rows are fp32 unless they end in bf16, which is torch.autocast, for ResNet-50 as well. Ratios are images/s
over those of ResNet-50, channels last, of the same precision, in the same round: above 1 is faster.
Each stage is written to benchmarks/results/ as it ends; a later run of one stage replaces that one alone.
"""

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import apart, conditions, cores, figures, file_name, in_turns, time_networks, where_it_runs
from memory import memory, saved_mib
from roofline import gflop, gigabytes, machine
from subjects import ROOT, SANS, base_of, has
from tables import lines

Figures = dict[str, Any]
RESNETS = ("resnet50", "resnet50-nchw")
NETWORKS = tuple(
    name + precision
    for precision in ("", "-bf16")
    for name in (*RESNETS, *SANS, *(f"{x}-plain" for x in SANS))
)
FOLDED = ("resnet50-folded", "resnet50-folded-bf16")
"""For inference alone: BatchNorm folded into convolutions, as others deploy ResNet-50."""
GROWING = tuple(
    name + precision
    for name in ("resnet50", "san10-patchwise", "san15-patchwise", "san15-pairwise")
    for precision in ("", "-bf16")
)
QUICK = ("san10-patchwise", "san15-patchwise", "san15-pairwise")
SIZES = (96, 128, 160, 224, 320, 448)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
THREADS = (1, 2, 4, 8, 16)


def networks(options: argparse.Namespace) -> Figures:
    """Time of each network, and the share of the machine that it uses."""
    names = wanted((*NETWORKS, *FOLDED), options.only)
    peak, found = (
        machine(),
        time_networks(names, batch=options.batch, size=options.size, rounds=options.rounds),
    )
    for name, of in found.items():
        plain = name.replace("-plain", "").replace("-folded", "").replace("-nchw", "")
        flops = gflop(plain.removesuffix("-bf16"), options.size)
        moved = where_it_runs(gigabytes, name, options.batch, options.size)
        peak_gflops = peak["bf16_gflops" if has(name, "bf16") else "fp32_gflops"]
        for kind in moved:
            seconds = of[kind]["ms"] / 1e3
            of[kind]["share_of_flops"] = round(flops[kind] / seconds / peak_gflops, 3)
            of[kind]["share_of_bandwidth"] = round(moved[kind] / seconds / peak["copy_gb_s"], 3)
    return {"machine": peak, "networks": found}


def memories(options: argparse.Namespace) -> Figures:
    """What a training step holds, each network in a process of its own."""
    names = wanted(NETWORKS, options.only)
    return {"memory": {name: apart(memory, name, options.batch, options.size) for name in names}}


def growth(options: argparse.Namespace, points: dict[int, dict[str, int]]) -> Figures:
    """How the time of a training step and of inference grows."""
    names = wanted(GROWING, options.only)
    found: dict[str, dict[str, Figures]] = {kind: {name: {} for name in names} for kind in ("train", "infer")}
    for point, settings in points.items():
        for kind, of in found.items():
            here = {"batch": options.batch, "size": options.size} | settings
            times = in_turns(names, kind, rounds=options.growth_rounds, **here)
            for name, figure in figures(times).items():
                of[name][str(point)] = figure
    return found


def sizes(options: argparse.Namespace) -> Figures:
    """By the side of the image."""
    return {"by_size": growth(options, {size: {"size": size} for size in options.sizes})}


def batches(options: argparse.Namespace) -> Figures:
    """By the images in a batch."""
    return {"by_batch": growth(options, {batch: {"batch": batch} for batch in options.batches})}


def threads(options: argparse.Namespace) -> Figures:
    """By the threads of torch and of the kernels, as far as there are cores."""
    counts = sorted({*(count for count in THREADS if count < cores()), min(cores(), THREADS[-1])})
    return {"by_threads": growth(options, {count: {"threads": count} for count in counts})}


STAGES: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "networks": networks,
    "memory": memories,
    "sizes": sizes,
    "batches": batches,
    "threads": threads,
}


def wanted(names: tuple[str, ...], only: str) -> tuple[str, ...]:
    """The networks that were asked for, and each ResNet-50 that one of them is compared with."""
    asked = {name for name in names if re.search(only, name)}
    return tuple(name for name in names if name in asked | {base_of(one) for one in asked})


def quick(options: argparse.Namespace) -> Figures:
    """The figures that count."""
    settings = {"batch": options.batch, "size": options.size}
    names = ("resnet50", *QUICK)
    before = stated(options, "batch", "size", "rounds")  # kernels are built here, where they are not
    held = {name: {"saved_mib": saved_mib(name, **settings)} for name in names}
    timed = time_networks(names, ("train", "infer_batch1"), rounds=options.rounds, **settings)
    return {"networks": timed, "memory": held, "conditions": before}


def whole(options: argparse.Namespace) -> Figures:
    """All stages that were asked for; the file is written after each."""
    out = options.out or ROOT / "benchmarks/results" / file_name("cpu")
    result: Figures = json.loads(out.read_text()) if out.is_file() else {}
    for stage in options.stages:
        print(f"{stage}:", file=sys.stderr)
        before = stated(options, "batch", "size", "rounds", "growth_rounds", "only")
        result |= STAGES[stage](options)
        result["conditions"] = result.get("conditions", {}) | {stage: before}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(headline(result) | result, indent=1) + "\n")
    print(f"written to {out}", file=sys.stderr)
    return result


def stated(options: argparse.Namespace, *names: str) -> Figures:
    """The conditions, as they are before the measurement."""
    return conditions(**{name: getattr(options, name) for name in names})


def headline(result: Figures) -> Figures:
    """The figures that count, of what there is in a result: medians, and quartiles beside them."""
    found: Figures = {}
    for key, task in (("train_ratio", "train"), ("infer_ratio", "infer_batch1")):
        timed = {name: result["networks"][name][task] for name in QUICK if name in result.get("networks", {})}
        found[key] = {name: figure["ratio"] for name, figure in timed.items()}
        found[f"{key}_quartiles"] = {name: figure["ratio_quartiles"] for name, figure in timed.items()}
    held = result.get("memory", {})
    found["saved_mib"] = {name: held[name]["saved_mib"] for name in ("resnet50", *QUICK) if name in held}
    return found


def arguments() -> argparse.Namespace:
    """What the user wants; all settings can be made small to try the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--only", default="", help="networks whose name has this regular expression in it")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--growth-rounds", type=int, default=3, help="rounds by size, by batch and by threads"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measures, prints and writes."""
    options = arguments()
    with contextlib.redirect_stdout(sys.stderr):  # where anything else that is printed belongs
        result = quick(options) if options.quick else whole(options)
    if options.json:
        print(json.dumps(headline(result) | result))
    else:
        print(*lines(result), sep="\n")


if __name__ == "__main__":
    main()
