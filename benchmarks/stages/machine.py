"""The card itself: what it is, and the best that it does."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from importlib import metadata
from multiprocessing import get_context
from unittest.mock import patch

import torch
from devices import milliseconds
from launches import Card, launches
from measure import conditions, cores
from subjects import ROOT

from sancli.ops.cuda import cache, compiling, loader
from sancli.ops.registry import UnavailableError
from stages import Figures, Settings, in_time, name_of

QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,utilization.gpu"
SIDE = 8192


def environment(settings: Settings, until: float) -> Iterator[Figures]:
    """Card, driver, versions, and the settings of this run."""
    yield {"settings": {key: str(value) for key, value in vars(settings).items()}}
    yield conditions()
    yield {"packages": {name: version(name) for name in ("torchvision", "triton", "numpy", *cupies())}}
    if settings.device != "cuda":
        yield {"gpu": "none"}
        return
    card = torch.cuda.get_device_properties(0)
    yield {
        "gpu": card.name,
        "capability": f"sm_{card.major}{card.minor}",
        "memory_gib": round(card.total_memory / 2**30, 1),
        "multiprocessors": card.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "kernels": str(loader.state(torch.device("cuda", 0))),
    }
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
        answers = told.partition("\n")[0].split(", ")
        yield {"nvidia_smi": dict(zip(QUERY.split(","), answers, strict=False))}


def cupies() -> list[str]:
    """The packages that bring CuPy, and there should be one."""
    names = {one.metadata["Name"] or "" for one in metadata.distributions()}
    return sorted(name for name in names if name.startswith("cupy"))


def version(name: str) -> str:
    """Of a package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def best(settings: Settings, until: float) -> Iterator[Figures]:
    """GB/s of a copy, which shares of the bandwidth are of; TFLOP/s of products of matrices."""
    source = torch.zeros(settings.copied, dtype=torch.int8, device=settings.device)
    target = torch.empty_like(source)
    copy_ms = milliseconds(lambda: target.copy_(source), settings.device)
    yield {"copy_gb_s": round(2 * source.nbytes / copy_ms / 1e6, 1)}
    side = SIDE if settings.device == "cuda" else 64
    for dtype, tf32 in (
        (torch.bfloat16, False),
        (torch.float16, False),
        (torch.float32, True),
        (torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a = torch.randn(side, side, device=settings.device).to(dtype)
        product_ms = milliseconds(lambda a=a: a @ a, settings.device)
        name = "tf32" if tf32 else name_of(dtype)
        yield {"tflop_s": {name: round(2 * side**3 / product_ms / 1e9, 2)}}


def compilation(settings: Settings, until: float) -> Iterator[Figures]:
    """All kernels compiled anew, and then read again; and the first training step of a process.

    The cache is of this run alone: benchmarks/gpu.py has seen to it.
    """
    if settings.device == "cuda":
        device = torch.device("cuda", 0)
        card = Card(loader.capability(device), loader.shared_limit(device))
        wanted = sorted({one[:2] for dtype in settings.dtypes for one in launches(card, dtype)})
        for how in ("cold", "warm"):
            yield {how: made(wanted)}
    for name in in_time(("san10-patchwise-bf16", "san10-pairwise-bf16"), until):
        program = str(ROOT / "benchmarks/first_step.py")
        command = [sys.executable, program, settings.device, str(settings.size), name]
        left = max(1.0, until - time.time())
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
        if told.returncode:
            raise RuntimeError(told.stderr[-500:])
        yield {"first_step": json.loads(told.stdout.splitlines()[-1])}


def made(kernels: list[tuple[str, str]]) -> Figures:
    """How long it takes to get kernels ready, by so many processes as there are cores, up to 8."""
    processes, began = min(cores(), 8), time.perf_counter()
    shares = [kernels[i::processes] for i in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = [row for rows in pool.map(compiled, shares) for row in rows]
    seconds = [took for _, took in found if isinstance(took, float)]
    return {
        "kernels": len(found),
        "processes": processes,
        "wall_s": round(time.perf_counter() - began, 2),
        "median_s": round(statistics.median(seconds or [0.0]), 4),
        "sum_s": round(sum(seconds), 2),
        "wrong": [f"{kernel}: {took}" for kernel, took in found if isinstance(took, str)],
    }


def compiled(kernels: list[tuple[str, str]]) -> list[tuple[str, float | str]]:
    """Seconds for each kernel, or what is wrong with it. No lock: nobody else compiles the same ones."""
    cache.prepare()
    import cupy

    device, found = torch.device("cuda", 0), []
    with torch.cuda.device(device), patch.object(cache, "held", nullcontext):
        for source, kernel in kernels:
            began = time.perf_counter()
            try:
                compiling.compiled(cupy, source, kernel, device)
                found.append((kernel, time.perf_counter() - began))
            except UnavailableError as error:
                found.append((kernel, str(error)))
    return found
