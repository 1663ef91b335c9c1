"""Everything that only a GPU can show, in one run of less than eight minutes.

usage: python benchmarks/gpu.py [--json] [--stages STAGE...] [--quick] [--out FILE.json]
       python benchmarks/gpu.py --cpu         runs through on a CPU at tiny sizes: its figures mean nothing
       python benchmarks/gpu.py --tune        tries tiles, and writes the fastest into kernels/tiles.json

Each stage runs within a limit of time, in a process that no other stage has to suffer for, and is written to
benchmarks/results/DATE-GPU-COMMIT.json as it ends; a later run of one stage replaces that one alone. Ratios
are images/s over those of ResNet-50, channels last, of the same precision and in the same round: above 1 is
faster.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from limited import Stage, Worker
from stages import SMALL, Settings, tuning
from stages.correctness import correctness, graphs, large, sanitizer, streams
from stages.machine import best, compilation, environment
from stages.networks import authors, memory, networks, profile
from stages.operators import operators
from subjects import ROOT

from sancli.files import write_json

Figures = dict[str, Any]
STAGES: dict[str, tuple[Stage, float]] = {  # and the most seconds that each of them may take
    "environment": (environment, 30),
    "best": (best, 15),
    "compilation": (compilation, 120),
    "correctness": (correctness, 60),
    "streams": (streams, 10),
    "graphs": (graphs, 15),
    "networks": (networks, 130),
    "memory": (memory, 40),
    "authors": (authors, 30),
    "operators": (operators, 60),
    "large": (large, 30),
    "profile": (profile, 20),
    "sanitizer": (sanitizer, 60),
}
TOTAL_S = 450.0
"""Of a whole run: what is left of it is all that a stage may have."""
WAYS = ("forward", "backward")
REQUIRED = {
    "san10-patchwise-bf16": (1.0, 1.8),
    "san15-patchwise-bf16": (0.7, 1.3),
    "san15-pairwise-bf16": (0.5, 1.0),
}
"""Ratio to ResNet-50 in training: what has to be reached, and what is aimed at."""


def run(options: argparse.Namespace) -> Figures:
    """All stages that were asked for; the file is written after each."""
    settings, began, path = settings_of(options), time.time(), options.out
    worker = Worker({name: stage for name, (stage, _) in STAGES.items()})
    result: Figures = {"stages": {}}
    for name in dict.fromkeys(("environment", *options.stages)):
        left = TOTAL_S * settings.patience - (time.time() - began)
        seconds = min(STAGES[name][1] * settings.patience, left)
        if seconds <= 0:
            result["stages"][name] = {"status": "left out: no time is left", "seconds": 0}
            continue
        figures, status = worker.run(name, settings, seconds)
        result |= {name: figures, "stages": result["stages"] | {name: status}}
        print(f"{name:12} {status['seconds']:6.1f} s  {status['status']}", file=sys.stderr)
        path = path or place(result, options)
        if path is not None:
            whole = joined(path, result)
            write_json(path, whole | {"headline": headline(whole)})
    worker.stop()
    if path is not None:
        print(f"written to {path}", file=sys.stderr)
    return result


@contextlib.contextmanager
def own_cache(options: argparse.Namespace) -> Iterator[None]:
    """A folder for what CuPy compiles in this run, where compilation is measured: nothing lies in it yet."""
    if options.tune or options.cpu or "compilation" not in options.stages:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="san-compiled-") as folder:
        before = os.environ.get("CUPY_CACHE_DIR")
        os.environ["CUPY_CACHE_DIR"] = folder
        yield
        os.environ.pop("CUPY_CACHE_DIR") if before is None else os.environ.update(CUPY_CACHE_DIR=before)


def tune(options: argparse.Namespace) -> Figures:
    """Tries tiles for as long as one stage may take, and writes the winners; on a CPU it writes nothing."""
    worker = Worker({"tuning": tuning.tuning})
    figures, status = worker.run("tuning", settings_of(options), options.minutes * 60)
    worker.stop()
    if figures and not options.cpu:
        tuning.write(figures["tiles"])
        print(f"written to {tuning.PATH}", file=sys.stderr)
    return {"tuning": figures, "stages": {"tuning": status}}


def settings_of(options: argparse.Namespace) -> Settings:
    """How large everything is."""
    if options.cpu:
        return SMALL
    settings = Settings()
    if options.quick:
        few = settings.awkward[:3]
        return replace(settings, awkward=few, layers=settings.layers[1:2], batches=(64,), rounds=2, calls=3)
    return settings


def place(result: Figures, options: argparse.Namespace) -> Path | None:
    """Named by date, GPU and commit. A trial on a CPU is not a result, nor is what has no name."""
    about = result.get("environment", {})
    if options.cpu or "gpu" not in about:
        return None
    names = about["date"], re.sub(r"[^a-z0-9]+", "-", about["gpu"].lower()).strip("-"), about["commit"]
    return ROOT / "benchmarks/results" / f"{'-'.join(names)}.json"


def joined(path: Path, result: Figures) -> Figures:
    """With the stages of an earlier run that went into the same file."""
    before: Figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return before | result | {"stages": before.get("stages", {}) | result["stages"]}


def headline(result: Figures) -> Figures:
    """The figures that count, of what there is in a result."""
    train = result.get("networks", {}).get("train_batch64", {})
    return {
        "train_ratio": {name: train[name]["ratio"] for name in REQUIRED if name in train},
        "saved_mib": {
            name: of["saved_mib"] for name, of in result.get("memory", {}).items() if name.endswith("-bf16")
        },
        "times_as_fast_as_the_authors_graph": {
            name: of["times_as_fast"] for name, of in result.get("authors", {}).items()
        },
        "wrong": list(wrong(result)),
    }


def wrong(result: Figures) -> Iterator[str]:
    """Everything that is not as it has to be."""
    for how in ("cold", "warm"):
        yield from result.get("compilation", {}).get(how, {}).get("wrong", [])
    for row in result.get("correctness", {}).get("operators", []):
        yield from row["wrong"]
    for stage in ("streams", "graphs", "large"):
        yield from (f"{stage}: {name}" for name, same in result.get(stage, {}).items() if same is False)


def lines(result: Figures) -> Iterator[str]:
    """What a reader wants to know first."""
    for task, of in result.get("networks", {}).items():
        yield f"{task}: ms an image, ratio to ResNet-50"
        yield from (f"  {name:24}{figure['ms']:9.3f}{figure['ratio']:7.2f}" for name, figure in of.items())
    if rows := result.get("operators", {}).get("rows", []):
        yield "operators: ms and share of the bandwidth, forward and backward"
    for row in rows:
        if "forward_ms" in row:
            shares = (
                f"{way} {row[f'{way}_ms']:.3f} ms, {row[f'{way}_share_of_bandwidth']:.0%}" for way in WAYS
            )
            yield f"{row['operator']:20}{row['type']:9}{row['layer']!s:28}{'; '.join(shares)} of bandwidth"
    for kernel, entries in result.get("tuning", {}).get("tiles", {}).items():
        yield from (f"{kernel} {key}: {entry}" for key, entry in entries.items())
    for name, ratio in headline(result)["train_ratio"].items():
        required, aim = REQUIRED[name]
        yield f"training against ResNet-50: {name} {ratio:.2f}; required {required}, aimed at {aim}"
    yield from (f"WRONG: {what}" for what in wrong(result))
    yield from (f"{name:12} {of['seconds']:6.1f} s  {of['status']}" for name, of in result["stages"].items())


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of tables")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--quick", action="store_true", help="few sizes, one batch")
    parser.add_argument("--cpu", action="store_true", help="try the program without a GPU")
    parser.add_argument("--tune", action="store_true", help="try tiles instead of measuring")
    parser.add_argument("--minutes", type=float, default=10, help="of --tune")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measures, prints and writes."""
    options = arguments()
    with own_cache(options):
        result = tune(options) if options.tune else run(options)
    print(json.dumps(result) if options.json else "\n".join(lines(result)))
    sys.exit(any(of["status"].startswith("failed") for of in result["stages"].values()))


if __name__ == "__main__":
    main()
