"""How things are measured: in turns, with medians and quartiles, under conditions that are written down.

Networks take turns within each round, so that what else the machine does falls on all alike, and a ratio is
the median of the ratios of the rounds. The order turns too. All of them, ResNet-50 too, run in processes that
keep the memory that they free, as those of `san train` do.
"""

import datetime
import functools
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from subjects import ROOT, base_of, has, ready

from sancli.engine.allocator import keep_freed_memory
from sancli.ops.cpu.library import state

VARIABLES = ("SAN_", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "MALLOC_", "LD_PRELOAD")
"""Variables of the environment that can change a figure."""
CALLS = 3
"""In a row, at batch 1, which is soon over; their median is the figure of a round."""
TASKS = {"train": ("train", None, 1), "infer": ("infer", None, 1), "infer_batch1": ("infer", 1, CALLS)}
"""What is timed: its kind, its batch where it is not the one that was asked for, and its calls."""
Figures = dict[str, Any]
Times = dict[str, list[float]]
"""Milliseconds an image of each network, one number a round."""

keep_memory = functools.cache(keep_freed_memory)


def process(**environment: str) -> ProcessPoolExecutor:
    """A fresh process with these variables set from its start."""
    before = {key: os.environ.get(key) for key in environment}
    os.environ.update(environment)
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(os.getpid).result()  # it starts with its first task
    for key, value in before.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})
    return pool


def environment(name: str) -> dict[str, str]:
    """What a network needs set before its process starts."""
    return {"SAN_OPS": "reference"} if has(name, "plain") else {}


@functools.cache
def plain_process() -> ProcessPoolExecutor:
    """The process of all plain networks: which operators run is decided once in a process."""
    return process(**environment("plain"))


def where_it_runs(function: Callable[..., Any], name: str, *args: Any, **options: Any) -> Any:
    """function(name, ...), in this process or in that of the plain networks."""
    if has(name, "plain"):
        return plain_process().submit(function, name, *args, **options).result()
    return function(name, *args, **options)


def apart(function: Callable[..., Any], name: str, *args: Any) -> Any:
    """function(name, ...) in a process of its own, that ends with it."""
    with process(**environment(name)) as pool:
        return pool.submit(function, name, *args).result()


def milliseconds(
    name: str, kind: str, *, batch: int, size: int, calls: int = 1, threads: int | None = None
) -> float:
    """How long one of some calls in a row takes, the median, for one image."""
    keep_memory()
    torch.set_num_threads(threads or torch.get_num_threads())
    step, times = ready(name, kind, batch=batch, size=size), []
    for _ in range(calls):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3 / batch


def in_turns(names: Iterable[str], kind: str, *, rounds: int, **options: Any) -> Times:
    """`milliseconds` of each network in each round; one round before them is not counted."""
    names = tuple(names)
    times: Times = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(where_it_runs(milliseconds, name, kind, **options))
        print(".", end="", file=sys.stderr, flush=True)
    print(f" {kind} {options}", file=sys.stderr)
    return {name: values[1:] for name, values in times.items()}


def time_networks(
    names: Iterable[str], tasks: Iterable[str] = tuple(TASKS), *, batch: int, size: int, rounds: int
) -> dict[str, Figures]:
    """The figures of each network in each of the tasks that it can do."""
    found: dict[str, Figures] = {name: {} for name in names}
    for task in tasks:
        kind, own_batch, calls = TASKS[task]
        able = [name for name in found if not (kind == "train" and has(name, "folded"))]
        times = in_turns(able, kind, rounds=rounds, batch=own_batch or batch, size=size, calls=calls)
        for name, of in figures(times).items():
            found[name][task] = of
    return found


def figures(times: Times) -> dict[str, Figures]:
    """Medians and quartiles of the milliseconds, and of how much faster each is than its ResNet-50."""
    found = {}
    for name, values in times.items():
        ratios = [base / own for base, own in zip(times[base_of(name)], values, strict=True)]
        found[name] = spread("ms", values) | spread("ratio", ratios)
    return found


def spread(what: str, values: list[float]) -> Figures:
    """Median and quartiles."""
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    )
    return {what: round(median, 3), f"{what}_quartiles": [round(low, 3), round(high, 3)]}


def best_of(function: Callable[[], Any], times: int = 10) -> float:
    """Seconds of the fastest call: what disturbs can only slow down."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def conditions(**settings: Any) -> Figures:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        **settings,
        "batch1_calls": CALLS,
        "step": "forward, cross entropy, backward, SGD with momentum",
        "ratio": "images/s over those of ResNet-50, channels last, of the same precision, in the same round",
        "memory": "freed memory is kept, for all" if keep_memory() else "as the C library does it, for all",
        "kernels": str(state()),
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(VARIABLES)},
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def add_run(path: Path, program: str, run: Figures) -> None:
    """Adds the figures of a run to a file of results, which is made where there is none."""
    result = {"program": program, "runs": []}
    if path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    result["runs"].append(run)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def file_name(program: str) -> str:
    """Of a program's results: by date, processor and cores."""
    made_of = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    return f"{program}-{datetime.date.today()}-{made_of}-{cores()}c.json"


def processor() -> str:
    """Its name."""
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
